"""What went wrong with the Hub, in one line with a way out."""

import re

import httpx
from huggingface_hub import errors

from lorasoups.errors import SoupError

_SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|Bearer\s+\S+")


def explain_hub_error(error: BaseException, what: str, instead: str) -> SoupError:
    """Turn an error of huggingface_hub, datasets or the network into one clear line.

    Args:
        error: what was raised; its causes are looked at as well.
        what: what was asked for, e.g. ``"model org/name"``.
        instead: the way that needs no Hub, e.g. which option takes local files.

    Returns:
        The error to raise (``raise explain_hub_error(...) from error``). Tokens in the original
        message are blanked.
    """
    reason, cure = next(filter(None, map(_reason, _chain(error))), (None, None))
    if reason is None:
        reason, cure = f"failed ({_line(error)})", "check the name and the network"
    return SoupError(f"Hugging Face Hub, {reason}: {what}; {cure}, or {instead}")


def _chain(error: BaseException):
    seen = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _reason(error: BaseException) -> tuple[str, str] | None:
    # order matters: a gated repository is a kind of "not found", offline mode of "no connection"
    if isinstance(error, errors.GatedRepoError):
        return "access is gated", "accept its licence on the Hub and run `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision", "check the commit or branch"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one", "check the name, or run `hf auth login`"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "offline mode is on and it is not in the cache", "unset HF_HUB_OFFLINE"
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        return f"it answered {error.response.status_code}", "try again later"
    if type(error).__name__ == "OfflineModeIsEnabled":  # that of datasets
        return "offline mode is on and it is not in the cache", "unset HF_DATASETS_OFFLINE"
    # LocalEntryNotFoundError also covers plain connection failures: it does not mean "not found"
    network = (httpx.TransportError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError)
    if isinstance(error, network):
        return "unreachable and it is not in the cache", "check the network connection"
    return None


def _line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return _SECRET.sub("[token]", text.splitlines()[0])[:160]
