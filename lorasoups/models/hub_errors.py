"""What went wrong with the Hub, in one line with a way out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lorasoups.errors import SoupError

_SECRET = re.compile(r"hf_[A-Za-z0-9]{8,}|Bearer\s+\S+")
_LOGIN = "run `hf auth login`"
_PRIVATE = ("no such repository, or a private one", f"check the name, or {_LOGIN}")
_UNREACHABLE = ("unreachable and it is not in the cache", "check the network connection")
# The first that names a class of the error or of one of its causes. By name: httpx and httpx2 raise
# different classes of one name, and huggingface_hub and datasets have an OfflineModeIsEnabled each.
# A gated repository is a kind of "not found"; offline mode comes with connection failures.
_REASONS = {
    "GatedRepoError": ("access is gated", f"accept its licence on the Hub and {_LOGIN}"),
    "RevisionNotFoundError": ("no such revision", "check the commit or branch"),
    "RepositoryNotFoundError": _PRIVATE,
    "DatasetNotFoundError": _PRIVATE,
    "OfflineModeIsEnabled": ("offline mode is on and it is not cached", "unset HF_HUB_OFFLINE"),
}
_NETWORK = {"LocalEntryNotFoundError", "TransportError", "ConnectionError", "TimeoutError"}


@contextmanager
def hub_errors(what: str, instead: str) -> Iterator[None]:
    """Turn an error of huggingface_hub, datasets or the network into a SoupError of one line.

    what: what is asked for, e.g. ``"model org/name"``. instead: the way that needs no Hub.
    """
    try:
        yield
    except Exception as error:
        reason, cure = _explain(error)
        raise SoupError(f"Hugging Face Hub, {reason}: {what}; {cure}, or {instead}") from error


def _explain(error: BaseException) -> tuple[str, str]:
    """Reason and cure, from an error or its causes; tokens are blanked."""
    chain, link = [], error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {cls.__name__ for e in chain for cls in type(e).__mro__}
    for name, reason in _REASONS.items():
        if name in names:
            return reason
    for link in chain:
        if status := getattr(getattr(link, "response", None), "status_code", None):
            return f"it answered {status}", "try again later"
    if names & _NETWORK:
        return _UNREACHABLE
    text = str(error).strip() or type(error).__name__
    line = _SECRET.sub("[token]", text.splitlines()[0])[:160]
    return f"failed ({line})", "check the name and the network"
