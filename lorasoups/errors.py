"""The one exception that is meant for people."""


class SoupError(Exception):
    """Bad input or a broken environment, told in one line.

    The message says what is wrong, where (file, module, option) and what to do about it. The
    command line prints it as ``error: ...`` and exits with status 2; nothing has been written.
    """
