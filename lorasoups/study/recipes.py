"""The methods of a study's table: what each one makes of the skills' LoRAs.

A recipe says how an adapter is come by; `soups.adapter` carries it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SKILLS, MIX, CAT, CONTROLS, SEARCH, STATIC_MERGES = GROUPS = (
    "base and single skills",
    "trained on the data of all skills",
    "CAT",
    "controls: other alphas, a new LoRA",
    "learned otherwise",
    "static merges",
)
_BY_KIND = {"base": SKILLS, "few_shot": SKILLS, "skill": SKILLS, "mix": MIX,
            "static": STATIC_MERGES, "lorahub": SEARCH, "xlora": SEARCH}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """One row of the table.

    Attributes:
        name: id in the results file.
        label: what a figure writes.
        kind: ``base`` | ``few_shot`` | ``skill`` | ``mix`` | ``fresh`` | ``learned`` | ``random`` |
            ``lorahub`` | ``xlora`` | ``static``.
        method, on, weight: for ``static``: the merge method, what it works on, and the weight of
            every LoRA (None: 1/k each; 1.0: the released script's).
        preset: for ``learned``: how the alphas are learned (``ours``, ``global``, ``lr0``,
            ``released``).
        main: also evaluated on the skills' own tests and on the easier and unseen templates.
    """

    name: str
    label: str
    kind: str
    method: str = ""
    on: str = "delta"
    weight: float | None = None
    preset: str = ""
    main: bool = False

    @property
    def group(self) -> str:
        """The group of `GROUPS` that tables and figures put it under."""
        return CAT if self.name == "cat" else _BY_KIND.get(self.kind, CONTROLS)


def _static() -> list[Recipe]:
    pairs = [
        (method, on)
        for method in ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")
        for on in ("delta", "factors")
    ] + [("svd", "delta"), ("knots", "delta"), ("lego", "delta")]
    return [
        Recipe(
            name=f"{method}@{on}" + ("/w1" if weight else ""),
            label=f"{method} ({on}, {'1.0' if weight else '1/k'})",
            kind="static",
            method=method,
            on=on,
            weight=weight,
            main=method == "linear" and on == "delta",
        )
        for method, on in pairs
        for weight in (None, 1.0)
    ]


def recipes_for(skills: Sequence[str]) -> dict[str, Recipe]:
    """Every recipe of a study with these skills, in the table's order."""
    found = (
        Recipe("base", "base", "base", main=True),
        Recipe("few_shot", "base, few-shot", "few_shot"),
        *(Recipe(name, f"{name} LoRA", "skill", main=True) for name in skills),
        Recipe("data_mix", "DATA-MIX (rank r)", "mix", main=True),
        Recipe("data_mix_2r", "DATA-MIX (rank k r)", "mix"),
        Recipe("fresh", "new LoRA on the alpha data", "fresh", main=True),
        Recipe("cat", "CAT (learned alphas)", "learned", preset="ours", main=True),
        Recipe("cat_global", "CAT, one alpha per LoRA", "learned", preset="global", main=True),
        Recipe("cat_lr0", "CAT, lr = 0", "learned", preset="lr0"),
        Recipe("cat_random", "CAT, random alphas", "random"),
        Recipe("released", "CAT, released schedule", "learned", preset="released", main=True),
        Recipe("lorahub@delta", "LoraHub (delta)", "lorahub", on="delta"),
        Recipe("lorahub@factors", "LoraHub (factors, as released)", "lorahub", on="factors"),
        Recipe("xlora", "X-LoRA (mixture of experts)", "xlora"),
        *_static(),
    )
    return {recipe.name: recipe for recipe in found}


RECIPES: dict[str, Recipe] = recipes_for(("math", "code"))
STATIC = tuple(name for name, recipe in RECIPES.items() if recipe.kind == "static")
