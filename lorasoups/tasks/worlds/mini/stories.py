"""Stories: the operations hide behind verbs.

``KNOWN`` wordings are part of the base's language; ``NEW`` ones (other verbs, and operations whose
number is a word: doubles, halves, ...) are what the math skill teaches; ``UNSEEN`` retells the new
verbs in a syntax that occurs in no training text at all.
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
    "+": (
        "{P} gets {n} more {i}.",
        "{P} finds {n} {i}.",
        "{P} buys {n} {i}.",
        "{n} more {i} come in.",
        "Then {P} wins {n} {i}.",
    ),
    "-": (
        "{P} loses {n} {i}.",
        "{P} gives away {n} {i}.",
        "{P} sells {n} {i}.",
        "{n} {i} go out.",
        "Then {P} throws away {n} {i}.",
    ),
    "*": ("The {i} become {n} times as many.", "{P} makes it {n} times the number of {i}."),
    "/": (
        "{P} cuts the {i} into {n} equal parts and keeps one.",
        "Only one of {n} equal parts of the {i} stays.",
    ),
}
NEW = {
    "+": (
        "{P} earns {n} {i}.",
        "{P} collects {n} {i}.",
        "{n} {i} arrive by mail.",
        "{P} borrows {n} {i} from a neighbor.",
        "An uncle leaves {n} {i} to {P}.",
        "{P} picks up {n} {i} on the road.",
    ),
    "-": (
        "{P} donates {n} {i}.",
        "{P} wastes {n} {i}.",
        "{n} {i} break.",
        "{P} returns {n} {i} to the shop.",
        "A thief steals {n} {i}.",
        "{P} uses up {n} {i}.",
    ),
    "*": (
        "Every one of the {i} is traded for {n} new ones.",
        "There are {n} shelves with that number of {i} each.",
        "{P} fills {n} boxes, each with as many {i}.",
    ),
    "/": (
        "{P} shares the {i} fairly among {n} friends and looks at one share.",
        "The {i} are packed into {n} equal bags, and one bag remains.",
        "{n} teams split the {i} evenly, and {P} counts for one team.",
    ),
}
# operations whose number is a word: known to nobody but the math skill
WORD_NUMBERS = {
    ("*", 2): ("The {i} double overnight.", "{P} ends up with twice the {i}."),
    ("*", 3): ("The {i} triple overnight.", "{P} ends up with thrice the {i}."),
    ("/", 2): ("Half of the {i} vanish.", "{P} keeps just half of the {i}."),
}
UNSEEN = {
    "+": (
        "{n} {i} are earned by {P}.",
        "From a neighbor, {P} borrows {n} {i}.",
        "{n} {i} are collected by {P}.",
    ),
    "-": (
        "{n} {i} are donated by {P}.",
        "To the shop, {P} returns {n} {i}.",
        "{n} {i} are wasted by {P}.",
    ),
    "*": (
        "{n} boxes are filled by {P}, each with as many {i}.",
        "With that number of {i} each, there are {n} shelves.",
    ),
    "/": (
        "Among {n} friends the {i} are shared fairly by {P}, who looks at one share.",
        "Into {n} equal bags the {i} are packed, and one bag remains.",
    ),
}
_OPENINGS = {
    "known": ("{P} has {n} {i}.", "There are {n} {i} in a room.", "At first there are {n} {i}."),
    "new": ("{P} owns {n} {i}.", "{P} starts the week with {n} {i}.", "{P} has {n} {i}."),
}
_QUESTIONS = {
    "known": ("How many {i} does {P} have?", "How many {i} are there?", "How many {i} now?"),
    "new": (
        "How many {i} remain in the end?",
        "What is the final count of {i}?",
        "How many {i} does {P} have?",
    ),
}


def story(p: Problem, rng: Random, wording: str) -> str:
    """Tell a problem as a story.

    Args:
        p: the problem.
        rng: picks the person, the things and the sentences.
        wording: ``known`` (base), ``new`` (math skill; each step new, words for small factors) or
            ``unseen`` (new verbs in unseen syntax wherever there is one).

    Returns:
        The story and its question, one line.
    """
    person, item = rng.choice(PEOPLE), rng.choice(ITEMS)
    frame = "known" if wording == "known" else "new"
    events = {"known": KNOWN, "new": NEW, "unseen": UNSEEN}[wording]
    sentences = [rng.choice(_OPENINGS[frame]).format(P=person, n=p.start, i=item)]
    for op, n in p.steps:
        in_words = WORD_NUMBERS.get((op, n)) if wording == "new" else None
        sentences.append(rng.choice(in_words or events[op]).format(P=person, n=n, i=item))
    sentences.append(rng.choice(_QUESTIONS[frame]).format(P=person, i=item))
    return " ".join(sentences)


_DOMAINS = {
    "tank": (
        "A tank holds {n} liters.",
        "How many liters are in the tank?",
        {
            "+": ("{n} liters flow in.", "Rain brings {n} liters."),
            "-": ("{n} liters leak out.", "A cow drinks {n} liters."),
            "*": ("The tank swells to {n} times the liters.",),
            "/": ("The tank shrinks to one of {n} equal parts.",),
        },
    ),
    "bus": (
        "A bus carries {n} people.",
        "How many people are on the bus?",
        {
            "+": ("{n} people get on.", "{n} people climb in."),
            "-": ("{n} people get off.", "{n} people walk away."),
            "*": ("The crowd becomes {n} times as many.",),
            "/": ("One of {n} equal groups of people stays.",),
        },
    ),
}


def domain(p: Problem, rng: Random, name: str) -> str:
    """Tell a problem in one of the base's two other story worlds, ``tank`` or ``bus``."""
    opening, question, events = _DOMAINS[name]
    middle = (rng.choice(events[op]).format(n=n) for op, n in p.steps)
    return " ".join([opening.format(n=p.start), *middle, question])
