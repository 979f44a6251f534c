"""The exceptions that are meant for people."""


class SoupError(ValueError):
    """Bad input or a broken environment, told in one line.

    The message says what is wrong, where (file, module, option) and what to do about it. The
    command line prints it as ``error: ...`` and exits with status 2; nothing has been written.
    """


class DiskError(SoupError, OSError):
    """A file or folder that cannot be read or written."""


class Diverged(SoupError):
    """Training whose loss is not finite."""
