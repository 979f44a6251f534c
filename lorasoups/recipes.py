"""The methods of the headline table: what each one makes of the skills' LoRAs.

A recipe says how an adapter is come by; `experiment.Experiment.adapter` carries it out.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """One row of the table.

    Attributes:
        name: id in the results file.
        label: what a figure writes.
        kind: ``base`` | ``skill`` | ``mix`` | ``learned`` | ``random`` | ``static``.
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


def _static() -> list[Recipe]:
    pairs = [
        (method, on)
        for method in ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")
        for on in ("delta", "factors")
    ] + [("svd", "delta")]
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


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("base", "base", "base", main=True),
        Recipe("math", "math LoRA", "skill", main=True),
        Recipe("code", "code LoRA", "skill", main=True),
        Recipe("data_mix", "DATA-MIX (rank r)", "mix", main=True),
        Recipe("data_mix_2r", "DATA-MIX (rank k r)", "mix"),
        Recipe("cat", "CAT (learned alphas)", "learned", preset="ours", main=True),
        Recipe("cat_global", "CAT, one alpha per LoRA", "learned", preset="global", main=True),
        Recipe("cat_lr0", "CAT, lr = 0", "learned", preset="lr0"),
        Recipe("cat_random", "CAT, random alphas", "random"),
        Recipe("released", "CAT, released schedule", "learned", preset="released", main=True),
        *_static(),
    )
}
STATIC = tuple(name for name, recipe in RECIPES.items() if recipe.kind == "static")
