"""The merge methods, by name. A new method is one file here and one entry below."""

from lorasoups.lora.methods import knots, lego, sparse, spectral, sums
from lorasoups.lora.methods.base import Method

_ALL = (sums.CAT, sums.LINEAR, sparse.TIES, sparse.DARE_LINEAR, sparse.DARE_TIES, sums.SVD,
        sparse.MAGNITUDE_PRUNE, knots.METHOD, lego.METHOD, spectral.TSV, spectral.ISO_C,
        spectral.CORE_SPACE)  # fmt: skip
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
