"""The exceptions that are meant for people."""


class SoupError(ValueError):
    """Bad input or a broken environment: one line on what is wrong, where, and what to do."""


def one_line(error: BaseException) -> str:
    """Its message in one line of at most 200 characters; its type where it has none."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


class DiskError(SoupError, OSError):
    """A file or folder that cannot be read or written."""


class Diverged(SoupError):
    """Training whose loss is not finite."""
