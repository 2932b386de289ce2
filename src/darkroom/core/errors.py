"""The one exception a user is meant to read."""


class DarkroomError(Exception):
    """A fault the user can fix: its message is one line naming the key or file, the value found, and the remedy.

    Stages and the command line print it without a traceback and exit with status 1. All that reads what comes from
    outside may raise it; docstrings say so where the condition is not plain.
    """
