"""The exceptions that are meant for people."""


class SoupError(ValueError):
    """Bad input or a broken environment: one line on what is wrong, where, and what to do."""


class DiskError(SoupError, OSError):
    """A file or folder that cannot be read or written."""


class Diverged(SoupError):
    """Training whose loss is not finite."""
