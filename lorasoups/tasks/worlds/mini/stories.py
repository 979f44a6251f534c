"""How a problem is told: as named operations, or as a story whose verbs hide them.

The base reads the named operations and the ``known`` stories. The math skill teaches ``new`` verbs
and numbers in words (doubles, halves, ...). ``unseen`` says the new verbs in a syntax that occurs
in no training text.
"""

from random import Random

from lorasoups.tasks.worlds.mini.problems import Problem

PEOPLE = (
    "Tom Anna Ben Mia Leo Eva Max Ida Sam Zoe Paul Nora Finn Lea Omar Rosa Hugo Ines Karl Vera"
).split()
ITEMS = (
    "apples coins books cards shells stamps pens eggs balls nuts marbles plates roses cups "
    "tickets bricks candles ribbons"
).split()

KNOWN = {
    "+": ("{P} gets {n} more {i}.", "{P} finds {n} {i}.", "{P} buys {n} {i}.",
          "{n} more {i} come in.", "Then {P} wins {n} {i}."),
    "-": ("{P} loses {n} {i}.", "{P} gives away {n} {i}.", "{P} sells {n} {i}.", "{n} {i} go out.",
          "Then {P} throws away {n} {i}."),
    "*": ("The {i} become {n} times as many.", "{P} makes it {n} times the number of {i}."),
    "/": ("{P} cuts the {i} into {n} equal parts and keeps one.",
          "Only one of {n} equal parts of the {i} stays."),
}  # fmt: skip
NEW = {
    "+": ("{P} earns {n} {i}.", "{P} collects {n} {i}.", "{n} {i} arrive by mail.",
          "{P} borrows {n} {i} from a neighbor.", "An uncle leaves {n} {i} to {P}.",
          "{P} picks up {n} {i} on the road."),
    "-": ("{P} donates {n} {i}.", "{P} wastes {n} {i}.", "{n} {i} break.",
          "{P} returns {n} {i} to the shop.", "A thief steals {n} {i}.", "{P} uses up {n} {i}."),
    "*": ("Every one of the {i} is traded for {n} new ones.",
          "There are {n} shelves with that number of {i} each.",
          "{P} fills {n} boxes, each with as many {i}."),
    "/": ("{P} shares the {i} fairly among {n} friends and looks at one share.",
          "The {i} are packed into {n} equal bags, and one bag remains.",
          "{n} teams split the {i} evenly, and {P} counts for one team."),
}  # fmt: skip
UNSEEN = {
    "+": ("{n} {i} are earned by {P}.", "From a neighbor, {P} borrows {n} {i}.",
          "{n} {i} are collected by {P}."),
    "-": ("{n} {i} are donated by {P}.", "To the shop, {P} returns {n} {i}.",
          "{n} {i} are wasted by {P}."),
    "*": ("{n} boxes are filled by {P}, each with as many {i}.",
          "With that number of {i} each, there are {n} shelves."),
    "/": ("Among {n} friends the {i} are shared fairly by {P}, who looks at one share.",
          "Into {n} equal bags the {i} are packed, and one bag remains."),
}  # fmt: skip
WORD_NUMBERS = {
    ("*", 2): ("The {i} double overnight.", "{P} ends up with twice the {i}."),
    ("*", 3): ("The {i} triple overnight.", "{P} ends up with thrice the {i}."),
    ("/", 2): ("Half of the {i} vanish.", "{P} keeps just half of the {i}."),
}
"""Operations whose number is a word; part of the ``new`` wording only."""
_FRAMES = {
    "known": (
        ("{P} has {n} {i}.", "There are {n} {i} in a room.", "At first there are {n} {i}."),
        ("How many {i} does {P} have?", "How many {i} are there?", "How many {i} now?"),
    ),
    "new": (
        ("{P} owns {n} {i}.", "{P} starts the week with {n} {i}.", "{P} has {n} {i}."),
        ("How many {i} remain in the end?", "What is the final count of {i}?",
         "How many {i} does {P} have?"),
    ),
}  # fmt: skip
"""Opening sentences and questions of a story."""


def story(p: Problem, rng: Random, wording: str) -> str:
    """Tell a problem as a story and ask its question, in one line.

    Args:
        p: the problem.
        rng: picks the person, the things and the sentences.
        wording: ``known`` (the base's), ``new`` (the math skill's) or ``unseen``.
    """
    person, item = rng.choice(PEOPLE), rng.choice(ITEMS)
    openings, questions = _FRAMES["known" if wording == "known" else "new"]
    events = {"known": KNOWN, "new": NEW, "unseen": UNSEEN}[wording]
    sentences = [rng.choice(openings).format(P=person, n=p.start, i=item)]
    for op, n in p.steps:
        in_words = WORD_NUMBERS.get((op, n)) if wording == "new" else None
        sentences.append(rng.choice(in_words or events[op]).format(P=person, n=n, i=item))
    sentences.append(rng.choice(questions).format(P=person, i=item))
    return " ".join(sentences)


_PLACES = {
    "tank": ("A tank holds {n} liters.", "How many liters are in the tank?", {
        "+": ("{n} liters flow in.", "Rain brings {n} liters."),
        "-": ("{n} liters leak out.", "A cow drinks {n} liters."),
        "*": ("The tank swells to {n} times the liters.",),
        "/": ("The tank shrinks to one of {n} equal parts.",),
    }),
    "bus": ("A bus carries {n} people.", "How many people are on the bus?", {
        "+": ("{n} people get on.", "{n} people climb in."),
        "-": ("{n} people get off.", "{n} people walk away."),
        "*": ("The crowd becomes {n} times as many.",),
        "/": ("One of {n} equal groups of people stays.",),
    }),
}  # fmt: skip


def place(p: Problem, rng: Random, name: str) -> str:
    """Tell a problem as what happens to a ``tank`` or a ``bus``."""
    opening, question, events = _PLACES[name]
    middle = (rng.choice(events[op]).format(n=n) for op, n in p.steps)
    return " ".join([opening.format(n=p.start), *middle, question])


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
        [opening.format(p.start), *(rng.choice(_STEPS[op]).format(n) for op, n in p.steps)]
    )


def formal(p: Problem, rng: Random) -> str:
    """``Let x be 12. x goes up by 5. What is x?``"""
    opening = rng.choice(("Let x be {}.", "x is {} at first."))
    events = (rng.choice(_FORMAL[op]).format(n) for op, n in p.steps)
    return " ".join([opening.format(p.start), *events, "What is x?"])


def ledger(p: Problem, rng: Random) -> str:
    """``balance: 12; in: 5; factor: 3; total?``"""
    opening = rng.choice(("balance: {};", "account: {};"))
    entries = (_LEDGER[op].format(n) for op, n in p.steps)
    return " ".join([opening.format(p.start), *entries, "total?"])


def phrase(p: Problem, rng: Random) -> str:
    """``What is 12 plus 5, then times 3?``"""
    opening = rng.choice(("What is {}", "Find {}", "Compute {}")).format(p.start)
    return (
        f"{opening} {', then '.join(_PHRASE[op].format(n) for op, n in p.steps)}{rng.choice('?.')}"
    )


EXPLICIT = (steps, formal, phrase, ledger)
