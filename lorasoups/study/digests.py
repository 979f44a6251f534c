"""What names a value: sha256 of plain JSON values and of an adapter's numbers."""

import hashlib

from lorasoups.lora.lora import LoRA
from lorasoups.study.store import canonical_json


def digest(value) -> str:
    """sha256 (hex) of a plain JSON value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def lora_digest(lora: LoRA) -> str:
    """sha256 of an adapter's numbers: two ways to the same soup share their evaluation."""
    found = hashlib.sha256()
    for name in sorted(lora.modules):
        factors = lora.modules[name]
        for tensor in (factors.A, factors.B):
            found.update(
                f"{name}{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes()
            )
    return found.hexdigest()
