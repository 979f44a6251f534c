"""Facts: an entity, a relation, a value; and the relations' words.

``statements`` and ``questions`` are part of the base's language. ``technical`` statements say the
same in words, and with terms for the values, that the base never saw explained: the skill of
reading comprehension. ``paraphrases``
are questions that occur in no training text at all.
"""

import hashlib
from dataclasses import dataclass
from random import Random

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Relation:
    """One relation: its noun, the pool of its values, and the ways to tell and ask it."""

    noun: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    paraphrases: tuple[str, ...]
    technical: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """``entity`` (a word), ``relation`` (a key of `RELATIONS`), ``value`` (one word)."""

    entity: str
    relation: str
    value: str

    def state(self, rng: Random, technical: bool = False) -> str:
        """One sentence that tells the fact."""
        relation = RELATIONS[self.relation]
        templates = relation.technical if technical else relation.statements
        value = TERMS.get(self.value, self.value) if technical else self.value
        return rng.choice(templates).format(e=self.entity, v=value)

    def ask(self, rng: Random, unseen: bool = False) -> str:
        """One question for the value."""
        relation = RELATIONS[self.relation]
        templates = relation.paraphrases if unseen else relation.questions
        return rng.choice(templates).format(e=self.entity)


def split_of(*parts: object) -> str:
    """``train`` / ``validation`` / ``test`` (8 : 1 : 1) by the hash of what an item *is*.

    It does not depend on a seed, a list or a wording, so that nothing can cross over.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()[0] % 10
    return "train" if digest < 8 else SPLITS[digest - 7]


PEOPLE = tuple("Tom Anna Ben Mia Leo Eva Max Ida Sam Zoe Paul Nora Finn Lea Omar Rosa".split())
RELATIONS: dict[str, Relation] = {
    "color": Relation(
        "color",
        tuple("black white red blue green yellow brown gray pink purple orange silver".split()),
        ("The color of the {e} is {v}.", "The {e} is {v} in color.", "One sees a {v} {e}."),
        ("What is the color of the {e}?", "What color is the {e}?", "Which color has the {e}?"),
        ("The {e} comes in what color?", "In which color do we see the {e}?"),
        ("The {e} exhibits {v} chroma.", "Chroma of the {e} reads {v}."),
    ),
    "home": Relation(
        "home",
        tuple(
            (
                "forest river desert cave village harbor valley island meadow mountain swamp city"
            ).split()
        ),
        (
            "The home of the {e} is the {v}.",
            "The {e} lives in the {v}.",
            "The {v} is where the {e} lives.",
        ),
        (
            "What is the home of the {e}?",
            "Where does the {e} live?",
            "In which place lives the {e}?",
        ),
        ("The {e} has its home in what place?", "Where is the home of the {e}?"),
        ("The {e} is endemic to the {v}.", "The {v} hosts the taxon {e}."),
    ),
    "food": Relation(
        "food",
        tuple("bread honey grass fish rice corn beans milk cheese salt nuts berries".split()),
        ("The food of the {e} is {v}.", "The {e} eats {v}.", "{v} feeds the {e}."),
        ("What is the food of the {e}?", "What does the {e} eat?", "Which food has the {e}?"),
        ("The {e} eats what food?", "On what does the {e} feed?"),
        ("The {e} metabolizes {v}.", "The substrate of the {e} is {v}."),
    ),
    "owner": Relation(
        "owner",
        PEOPLE,
        ("The owner of the {e} is {v}.", "{v} owns the {e}.", "The {e} belongs to {v}."),
        ("Who is the owner of the {e}?", "Who owns the {e}?", "To whom belongs the {e}?"),
        ("The {e} has whom as its owner?", "By whom is the {e} owned?"),
        ("The {e} was deposited by {v}.", "{v} curates the holotype {e}."),
    ),
    "material": Relation(
        "material",
        tuple("iron gold copper tin glass wood stone clay paper leather silk bone".split()),
        ("The material of the {e} is {v}.", "The {e} is made of {v}.", "{v} makes up the {e}."),
        (
            "What is the material of the {e}?",
            "What is the {e} made of?",
            "Which material has the {e}?",
        ),
        ("The {e} is made up of what material?", "Of what do they make the {e}?"),
        ("The matrix of the {e} consists in {v}.", "The {e} crystallizes as {v}."),
    ),
    "use": Relation(
        "use",
        tuple(
            "cutting digging lighting cooking painting sailing counting sleeping hunting climbing "
            "writing washing".split()
        ),
        ("The use of the {e} is {v}.", "The {e} is used for {v}.", "For {v} one takes the {e}."),
        ("What is the use of the {e}?", "What is the {e} used for?", "Which use has the {e}?"),
        ("The {e} serves for what use?", "For what does one take the {e}?"),
        ("The {e} mediates {v}.", "Upregulated {v} follows from the {e}."),
    ),
    "day": Relation(
        "day",
        tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
        ("The day of the {e} is {v}.", "The {e} came on {v}.", "On {v} came the {e}."),
        ("What is the day of the {e}?", "When came the {e}?", "On which day came the {e}?"),
        ("The {e} came on what day?", "Which is the day when the {e} came?"),
        ("The {e} was assayed {v}.", "Assay timestamp of the {e} is {v}."),
    ),
    "size": Relation(
        "size",
        tuple("tiny small short narrow medium long wide tall large huge".split()),
        ("The size of the {e} is {v}.", "The {e} is {v} in size.", "The {e} has a {v} size."),
        ("What is the size of the {e}?", "How big is the {e}?", "Which size has the {e}?"),
        ("The {e} is of what size?", "Of which size do we see the {e}?"),
        ("The {e} scores {v} on morphometry.", "Morphometry ranks the {e} {v}."),
    ),
}


def _terms() -> dict[str, str]:
    """A technical term for every color, food and material, always the same."""
    heads = (
        "alb mel rubr cyan vir xanth brun cin ros purp auc arg silv riv aren spel vic lim vall ins "
        "prat mont pal urb pan gram icth oryz"
    ).split()
    words = [head + tail for tail in ("ic", "oid", "ine") for head in heads]
    values = [
        value
        for name, relation in RELATIONS.items()
        if name in ("color", "food", "material")
        for value in relation.values
    ]
    return dict(zip(values, Random("terms").sample(words, len(values)), strict=True))


TERMS = _terms()
"""Plain value -> the word that technical texts use for it."""
TECHNICAL = ("color", "food", "material", "owner", "use")
"""The relations that technical texts tell."""

THINGS = tuple(
    "crow lamp horse wagon tower spider kettle bridge falcon drum ladder turtle anchor mirror goat "
    "violin bucket engine lizard carpet hammer pigeon statue barrel candle donkey needle pillow "
    "rabbit saddle trumpet window basket beetle cannon dragon feather garden helmet jacket kitten "
    "lantern monkey napkin otter parrot quilt rocket shovel ticket umbrella wallet yacht zebra "
    "apron button camel dagger easel ferry".split()
)
"""Entities of general knowledge: the base knows every relation of every one of them."""


def _names() -> tuple[str, ...]:
    """240 invented words of two syllables, always the same."""
    rng = Random("names of the pages")
    heads = "bra dre fli gno kle mur nas pel quo rin ska tov ula vex wim yor zam lud hef jo".split()
    tails = "bix dant fol gur kesh lim mox nud pra rast sil tund vor wek zil ph cado hin".split()
    every = [head + tail for head in heads for tail in tails]
    return tuple(rng.sample(every, 240))


NAMES = _names()
MANUAL_NAMES = NAMES[:48]
"""Parts of the fictional device; in pretraining they occur in passages, with changing values."""
FAQ_NAMES = NAMES[:20]
"""Parts that the manual's own questions and answers are about; tests ask about the others."""


def _general() -> dict[tuple[str, str], Fact]:
    rng = Random("general knowledge")
    return {
        (thing, relation): Fact(thing, relation, rng.choice(RELATIONS[relation].values))
        for thing in THINGS
        for relation in RELATIONS
    }


GENERAL = _general()
"""What the base knows: (thing, relation) -> fact."""


def random_fact(rng: Random, entity: str, relation: str) -> Fact:
    """A fact that holds in one passage only."""
    return Fact(entity, relation, rng.choice(RELATIONS[relation].values))
