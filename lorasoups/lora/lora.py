"""A LoRA adapter as an immutable value: per module two factors, nothing else.

An adapted linear layer computes ``W x + delta x`` with the *delta weight* ``delta = s * B @ A``
(Hu et al. 2021, arXiv 2106.09685, section 4.1); ``s`` is ``lora_alpha / r``, for rsLoRA (arXiv
2312.03732) ``lora_alpha / sqrt(r)``. Here ``s`` is folded into ``B``: ``delta = B @ A`` always.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from lorasoups.errors import SoupError


def pick_device(name: str | torch.device = "auto") -> str:
    """``auto``: the GPU where torch has one, else the CPU; SoupError for a device not here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise SoupError(f"unknown device {name!r}; give auto, cpu or cuda") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise SoupError(f"no GPU that torch can use: device {name}; give auto or cpu")
    return str(name)


@dataclass(frozen=True, eq=False)
class Factors:
    """The two factors of one adapted module; ``delta = B @ A``.

    A: float32 ``[r, in]``. B: float32 ``[out, r]``. scale: the ``s`` in ``B`` (1.0 for a merged
    adapter); ``B / scale`` is B as trained, which only ``on="factors"`` looks at.
    rank, shape, device: r; (out, in) of the delta weight; where the tensors are.

    SoupError for shapes that do not fit, rank 0, other types, NaN. The tensors are not copied.
    """

    A: Tensor
    B: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        A, B = _checked(self.A, "LoRA factor A"), _checked(self.B, "LoRA factor B")
        if A.shape[0] != B.shape[1] or A.shape[0] == 0:
            shapes = f"A {list(A.shape)} and B {list(B.shape)}"
            raise SoupError(f"LoRA factors do not fit: {shapes}; expected A [r, in] and B [out, r]")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise SoupError(f"LoRA scale is {self.scale}; lora_alpha must be finite and not 0")
        shape = (B.shape[0], A.shape[1])
        self.__dict__.update(A=A, B=B, rank=A.shape[0], shape=shape, device=A.device)

    def delta(self, out: Tensor | None = None) -> Tensor:
        """The delta weight ``B @ A``, float32 ``[out, in]``, written to ``out`` if given."""
        return torch.matmul(self.B, self.A, out=out)

    def scaled(self, weight: float) -> "Factors":
        """The same module with its delta weight times ``weight`` (any finite number)."""
        return Factors(self.A, self.B * weight, self.scale * weight if weight else self.scale)

    def to(self, device: str | torch.device) -> "Factors":
        """The same factors on ``device``."""
        return Factors(self.A.to(device), self.B.to(device), self.scale)


class Dense(Factors):
    """A delta weight kept as one float32 matrix ``[out, in]``: what methods that prune it return.

    It reads as factors of rank min(out, in); the one on the short side is the identity, made only
    when asked for: a 7B model's take about as much memory as its deltas.
    """

    def __init__(self, matrix: Tensor):
        matrix = _checked(matrix, "delta weight")
        shape, wide = tuple(matrix.shape), matrix.shape[0] <= matrix.shape[1]
        self.__dict__.update(matrix=matrix, wide=wide, scale=1.0)
        self.__dict__.update(rank=min(shape), shape=shape, device=matrix.device)

    @property
    def A(self) -> Tensor:
        return self.matrix if self.wide else torch.eye(self.rank, device=self.device)

    @property
    def B(self) -> Tensor:
        return torch.eye(self.rank, device=self.device) if self.wide else self.matrix

    def delta(self, out: Tensor | None = None) -> Tensor:
        return self.matrix if out is None else out.copy_(self.matrix)

    def scaled(self, weight: float) -> "Dense":
        return Dense(self.matrix * weight)

    def to(self, device: str | torch.device) -> "Dense":
        return Dense(self.matrix.to(device))


def _checked(tensor: Tensor, label: str) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32:
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        raise SoupError(f"{label} is {kind}, not a float32 tensor; use .float()")
    if tensor.ndim != 2:
        raise SoupError(f"{label} has shape {list(tensor.shape)}; only linear layers merge")
    if tensor.numel() and not torch.isfinite(torch.stack(tensor.aminmax())).all():
        raise SoupError(f"{label} holds NaN or infinity; train or export it again")
    return tensor.detach()


@dataclass(frozen=True, eq=False, repr=False)
class LoRA:
    """An adapter, as an immutable value.

    modules: path in the base (``"model.layers.0.self_attn.q_proj"``) -> Factors, at least one;
    absent ones count as 0. base_model: ``base_model_name_or_path`` of its config, "" if unknown.
    provenance: JSON-able notes on where it came from and how it was merged.
    """

    modules: Mapping[str, Factors]
    base_model: str = ""
    provenance: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.modules:
            raise SoupError("a LoRA needs at least one adapted module; this one has none")
        object.__setattr__(self, "modules", MappingProxyType(dict(self.modules)))

    def __repr__(self) -> str:
        ranks = sorted({factors.rank for factors in self.modules.values()})
        shown = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]}-{ranks[-1]}"
        return f"LoRA({len(self.modules)} modules, {shown}, base {self.base_model!r})"

    def __getitem__(self, name: str) -> Factors:
        """The factors of one module; SoupError if there are none."""
        if name not in self.modules:
            known = next(iter(self.modules))
            raise SoupError(f"no LoRA on module {name!r}; module names look like {known!r}")
        return self.modules[name]

    def delta(self, name: str) -> Tensor:
        """The delta weight of one module, float32 ``[out, in]``."""
        return self[name].delta()

    def rank(self, name: str) -> int:
        """The rank of one module's factors."""
        return self[name].rank

    @property
    def max_rank(self) -> int:
        """The largest rank of all modules."""
        return max(factors.rank for factors in self.modules.values())

    def each(self, change: Callable[[Factors], Factors]) -> "LoRA":
        """The adapter with ``change`` applied to the factors of every module."""
        modules = {name: change(factors) for name, factors in self.modules.items()}
        return LoRA(modules, self.base_model, self.provenance)

    def scaled(self, weight: float) -> "LoRA":
        """The adapter with every delta weight times ``weight``."""
        return self.each(lambda factors: factors.scaled(weight))

    def to(self, device: str | torch.device) -> "LoRA":
        """The adapter on ``device``; see `pick_device`."""
        device = pick_device(device)
        return self.each(lambda factors: factors.to(device))


def module_names(loras: list[LoRA]) -> list[str]:
    """The sorted union of the module names of several adapters."""
    return sorted({name for lora in loras for name in lora.modules})


def lora_digest(lora: LoRA) -> str:
    """sha256 (hex) of an adapter's numbers: two ways to the same soup share their evaluation."""
    sha = hashlib.sha256()
    for name, factors in sorted(lora.modules.items()):
        for tensor in (factors.A, factors.B):
            sha.update(f"{name}{tuple(tensor.shape)}".encode())
            sha.update(tensor.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
