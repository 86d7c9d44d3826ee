"""Errors that end a command with one sentence instead of a traceback."""


class UserError(Exception):
    """Error that the user can fix; the message says what was found, where, and what to do. Exit code 2."""


class RunError(Exception):
    """Failure beyond the user's input, such as a full disk or a lost process; one sentence. Exit code 1."""
