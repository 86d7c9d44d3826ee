"""Errors that end a command with one sentence instead of a traceback."""


class UserError(Exception):
    """Something the person at the keyboard can mend: what was found and where, and what to do about it. Exit code 2."""


class RunError(Exception):
    """Something that went wrong beyond the user's input (a disk, a lost process): one sentence, exit code 1."""
