"""Explicit contents: the operations are named. The base reads all of them."""

from random import Random

from lorasoups.tasks.worlds.mini.problems import Problem

_STEPS = {
    "+": ("Add {}.", "Plus {}.", "Increase it by {}."),
    "-": ("Subtract {}.", "Minus {}.", "Decrease it by {}."),
    "*": ("Multiply by {}.", "Times {}."),
    "/": ("Divide by {}.", "Split it by {}."),
}
_FORMAL = {
    "+": ("x goes up by {}.", "x rises by {}."),
    "-": ("x goes down by {}.", "x falls by {}."),
    "*": ("x is multiplied by {}.", "x is scaled by {}."),
    "/": ("x is divided by {}.", "x is cut by {}."),
}
_LEDGER = {"+": "in: {};", "-": "out: {};", "*": "factor: {};", "/": "parts: {};"}
_PHRASE = {"+": "plus {}", "-": "minus {}", "*": "times {}", "/": "over {}"}


def steps(p: Problem, rng: Random) -> str:
    """``Start with 12. Add 5. Multiply by 3.``"""
    opening = rng.choice(("Start with {}.", "Take the number {}.", "Begin at {}."))
    return " ".join(
        [opening.format(p.start), *(rng.choice(_STEPS[o]).format(n) for o, n in p.steps)]
    )


def formal(p: Problem, rng: Random) -> str:
    """``Let x be 12. x goes up by 5. What is x?``"""
    opening = rng.choice(("Let x be {}.", "x is {} at first."))
    events = (rng.choice(_FORMAL[o]).format(n) for o, n in p.steps)
    return " ".join([opening.format(p.start), *events, "What is x?"])


def ledger(p: Problem, rng: Random) -> str:
    """``balance: 12; in: 5; factor: 3; total?``"""
    opening = rng.choice(("balance: {};", "account: {};"))
    return " ".join(
        [opening.format(p.start), *(_LEDGER[o].format(n) for o, n in p.steps), "total?"]
    )


def phrase(p: Problem, rng: Random) -> str:
    """``What is 12 plus 5, then times 3?``"""
    opening = rng.choice(("What is {}", "Find {}", "Compute {}"))
    return (
        opening.format(p.start)
        + ", then".join(" " + _PHRASE[o].format(n) for o, n in p.steps)
        + rng.choice(("?", "."))
    )
