"""Errors that end a command with one sentence instead of a traceback."""


class UserError(Exception):
    """Something the person at the keyboard can mend: what was found, where, what was expected, what to do. Exit code 2."""


class RunError(Exception):
    """Something that went wrong beyond the user's input (a disk, a lost process): one sentence, exit code 1."""
