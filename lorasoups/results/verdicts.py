"""Right or wrong per problem, packed into a short text for the results files."""

import math
from collections.abc import Sequence

import numpy as np

from lorasoups.errors import SoupError


def pack_verdicts(verdicts: Sequence[bool] | np.ndarray) -> str:
    """Right/wrong per problem, in order, as hex: 8 per byte, first problem in the highest bit."""
    return np.packbits(np.asarray(verdicts, dtype=bool)).tobytes().hex()


def unpack_verdicts(text: str, n: int) -> np.ndarray:
    """The inverse of :func:`pack_verdicts`: bool array of shape [n]. Raises SoupError."""
    try:
        packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    except (ValueError, TypeError):
        raise SoupError(
            f"no hex string of verdicts: {str(text)[:20]!r}; make the file again"
        ) from None
    if len(packed) != math.ceil(n / 8) or np.unpackbits(packed)[n:].any():
        raise SoupError(f"{len(packed)} bytes of verdicts for {n} problems; make the file again")
    return np.unpackbits(packed, count=n).astype(bool)
