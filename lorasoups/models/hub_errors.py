"""What went wrong with the Hub, in one line with a way out."""

import re

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


def explain_hub_error(error: BaseException, what: str, instead: str) -> SoupError:
    """Turn an error of huggingface_hub, datasets or the network into one clear line to raise.

    error: what was raised, with its causes; tokens in it are blanked. what: what was asked for,
    e.g. ``"model org/name"``. instead: the way that needs no Hub.
    """
    chain, link = [], error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    reason, cure = _explain(chain)
    return SoupError(f"Hugging Face Hub, {reason}: {what}; {cure}, or {instead}")


def _explain(chain: list[BaseException]) -> tuple[str, str]:
    names = {cls.__name__ for e in chain for cls in type(e).__mro__}
    for name, reason in _REASONS.items():
        if name in names:
            return reason
    for error in chain:
        if status := getattr(getattr(error, "response", None), "status_code", None):
            return f"it answered {status}", "try again later"
    if names & _NETWORK:
        return _UNREACHABLE
    text = str(chain[0]).strip() or type(chain[0]).__name__
    line = _SECRET.sub("[token]", text.splitlines()[0])[:160]
    return f"failed ({line})", "check the name and the network"
