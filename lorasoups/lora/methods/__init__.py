"""The merge methods, by name. A new method is one file here and one entry below."""

from lorasoups.lora.methods import (
    cat,
    dare,
    knots,
    lego,
    linear,
    magnitude_prune,
    svd,
    ties,
)
from lorasoups.lora.methods.base import Method, Option

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        cat.METHOD,
        linear.METHOD,
        ties.METHOD,
        dare.DARE_LINEAR,
        dare.DARE_TIES,
        svd.METHOD,
        magnitude_prune.METHOD,
        knots.METHOD,
        lego.METHOD,
    )
}

__all__ = ["METHODS", "Method", "Option"]
