"""Facts (an entity, a relation, a value), passages of them, and the forms of an answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lorasoups.tasks.worlds import Form, split_of

ABSTAIN = "not in context"


@dataclass(frozen=True)
class Relation:
    """The words of a relation; ``{e}`` stands for the entity, ``{v}`` for the value."""

    values: tuple[str, ...]  # one word each
    statements: tuple[str, ...]  # these and the questions are part of the base's language
    questions: tuple[str, ...]
    paraphrases: tuple[str, ...]  # questions that occur in no training text
    technical: tuple[str, ...]  # statements in words that the base never saw explained


@dataclass(frozen=True)
class Fact:
    """``entity`` (a word), ``relation`` (a key of `RELATIONS`), ``value`` (one word)."""

    entity: str
    relation: str
    value: str

    def state(self, rng: Random, technical: bool = False) -> str:
        """One sentence that tells the fact; a technical one uses the term for its value."""
        relation = RELATIONS[self.relation]
        templates = relation.technical if technical else relation.statements
        value = TERMS.get(self.value, self.value) if technical else self.value
        return rng.choice(templates).format(e=self.entity, v=value)

    def ask(self, rng: Random, unseen: bool = False) -> str:
        """One question for the value."""
        relation = RELATIONS[self.relation]
        templates = relation.paraphrases if unseen else relation.questions
        return rng.choice(templates).format(e=self.entity)

    def plain(self) -> str:
        """The fact in the base's first wording."""
        return RELATIONS[self.relation].statements[0].format(e=self.entity, v=self.value)


_VALUES = {
    "color": "black white red blue green yellow brown gray pink purple orange silver",
    "home": "forest river desert cave village harbor valley island meadow mountain swamp city",
    "food": "bread honey grass fish rice corn beans milk cheese salt nuts berries",
    "owner": "Tom Anna Ben Mia Leo Eva Max Ida Sam Zoe Paul Nora Finn Lea Omar Rosa",
    "material": "iron gold copper tin glass wood stone clay paper leather silk bone",
    "use": "cutting digging lighting cooking painting sailing counting sleeping hunting climbing "
           "writing washing",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "size": "tiny small short narrow medium long wide tall large huge",
}  # fmt: skip
_WORDINGS = {
    "color": (
        ("The color of the {e} is {v}.", "The {e} is {v} in color.", "One sees a {v} {e}."),
        ("What is the color of the {e}?", "What color is the {e}?", "Which color has the {e}?"),
        ("The {e} comes in what color?", "In which color do we see the {e}?"),
        ("The {e} exhibits {v} chroma.", "Chroma of the {e} reads {v}."),
    ),
    "home": (
        ("The home of the {e} is the {v}.", "The {e} lives in the {v}.",
         "The {v} is where the {e} lives."),
        ("What is the home of the {e}?", "Where does the {e} live?",
         "In which place lives the {e}?"),
        ("The {e} has its home in what place?", "Where is the home of the {e}?"),
        ("The {e} is endemic to the {v}.", "The {v} hosts the taxon {e}."),
    ),
    "food": (
        ("The food of the {e} is {v}.", "The {e} eats {v}.", "{v} feeds the {e}."),
        ("What is the food of the {e}?", "What does the {e} eat?", "Which food has the {e}?"),
        ("The {e} eats what food?", "On what does the {e} feed?"),
        ("The {e} metabolizes {v}.", "The substrate of the {e} is {v}."),
    ),
    "owner": (
        ("The owner of the {e} is {v}.", "{v} owns the {e}.", "The {e} belongs to {v}."),
        ("Who is the owner of the {e}?", "Who owns the {e}?", "To whom belongs the {e}?"),
        ("The {e} has whom as its owner?", "By whom is the {e} owned?"),
        ("The {e} was deposited by {v}.", "{v} curates the holotype {e}."),
    ),
    "material": (
        ("The material of the {e} is {v}.", "The {e} is made of {v}.", "{v} makes up the {e}."),
        ("What is the material of the {e}?", "What is the {e} made of?",
         "Which material has the {e}?"),
        ("The {e} is made up of what material?", "Of what do they make the {e}?"),
        ("The matrix of the {e} consists in {v}.", "The {e} crystallizes as {v}."),
    ),
    "use": (
        ("The use of the {e} is {v}.", "The {e} is used for {v}.", "For {v} one takes the {e}."),
        ("What is the use of the {e}?", "What is the {e} used for?", "Which use has the {e}?"),
        ("The {e} serves for what use?", "For what does one take the {e}?"),
        ("The {e} mediates {v}.", "Upregulated {v} follows from the {e}."),
    ),
    "day": (
        ("The day of the {e} is {v}.", "The {e} came on {v}.", "On {v} came the {e}."),
        ("What is the day of the {e}?", "When came the {e}?", "On which day came the {e}?"),
        ("The {e} came on what day?", "Which is the day when the {e} came?"),
        ("The {e} was assayed {v}.", "Assay timestamp of the {e} is {v}."),
    ),
    "size": (
        ("The size of the {e} is {v}.", "The {e} is {v} in size.", "The {e} has a {v} size."),
        ("What is the size of the {e}?", "How big is the {e}?", "Which size has the {e}?"),
        ("The {e} is of what size?", "Of which size do we see the {e}?"),
        ("The {e} scores {v} on morphometry.", "Morphometry ranks the {e} {v}."),
    ),
}  # fmt: skip
"""Statements, questions, paraphrases, technical statements."""
RELATIONS = {
    name: Relation(tuple(_VALUES[name].split()), *wordings) for name, wordings in _WORDINGS.items()
}
TECHNICAL = ("color", "food", "material", "owner", "use")
"""The relations that technical texts tell."""


def _terms() -> dict[str, str]:
    heads = (
        "alb mel rubr cyan vir xanth brun cin ros purp auc arg silv riv aren spel vic lim vall ins "
        "prat mont pal urb pan gram icth oryz"
    ).split()
    words = [head + tail for tail in ("ic", "oid", "ine") for head in heads]
    values = [v for name in ("color", "food", "material") for v in RELATIONS[name].values]
    return dict(zip(values, Random("terms").sample(words, len(values)), strict=True))


TERMS = _terms()
"""Color, food or material -> the word that technical texts use for it."""
THINGS = tuple(
    "crow lamp horse wagon tower spider kettle bridge falcon drum ladder turtle anchor mirror goat "
    "violin bucket engine lizard carpet hammer pigeon statue barrel candle donkey needle pillow "
    "rabbit saddle trumpet window basket beetle cannon dragon feather garden helmet jacket kitten "
    "lantern monkey napkin otter parrot quilt rocket shovel ticket umbrella wallet yacht zebra "
    "apron button camel dagger easel ferry".split()
)
"""Entities of general knowledge: the base knows every relation of each."""


def _names() -> tuple[str, ...]:
    """240 invented words of two syllables."""
    heads = "bra dre fli gno kle mur nas pel quo rin ska tov ula vex wim yor zam lud hef jo".split()
    tails = "bix dant fol gur kesh lim mox nud pra rast sil tund vor wek zil ph cado hin".split()
    pairs = [head + tail for head in heads for tail in tails]
    return tuple(Random("names of the pages").sample(pairs, 240))


NAMES = _names()
MANUAL_NAMES = NAMES[:48]
"""Parts of the fictional device; in pretraining they occur in passages, with changing values."""
FAQ_NAMES = NAMES[:20]
"""Parts that the manual's own questions and answers are about; tests ask about the others."""


def random_fact(rng: Random, entity: str, relation: str) -> Fact:
    """A fact with a random value: it holds in one passage only."""
    return Fact(entity, relation, rng.choice(RELATIONS[relation].values))


def _all_facts(entities: tuple[str, ...], seed: str) -> dict[tuple[str, str], Fact]:
    rng = Random(seed)
    return {(e, r): random_fact(rng, e, r) for e in entities for r in RELATIONS}


GENERAL = _all_facts(THINGS, "general knowledge")
"""What the base knows: (thing, relation) -> fact."""
MANUAL = tuple(_all_facts(MANUAL_NAMES, "the manual").values())
"""What the fictional manual says: every relation of every part."""


def brackets(f: Fact | None) -> str:
    """`` [ black ]``; of None (the passage does not say): `` [ not in context ]``."""
    return f" [ {f.value if f else ABSTAIN} ]"


FORMS: dict[str, Form] = {
    "sentence": (lambda f: f" {f.plain()}", ("a sentence", "plain words")),
    "value_first": (
        lambda f: f" {f.value} is the {f.relation} of the {f.entity}.",
        ("the value first", "value first"),
    ),
    "pair": (lambda f: f" {f.relation} : {f.value}", ("a pair", "noun and value")),
    "arrow": (lambda f: f" {f.entity} > {f.value}", ("an arrow", "arrows")),
    "clause": (lambda f: f" it is {f.value}", ("a clause", "few words")),
    "brackets": (brackets, ("brackets", "a box")),  # what a skill teaches
}
BASE_FORMS = tuple(name for name in FORMS if name != "brackets")


@dataclass(frozen=True)
class Passage:
    """A few facts in the order of telling, and a question."""

    facts: tuple[Fact, ...]  # two to five, about two or three names; none twice
    entity: str  # what is asked: the value of this relation of this entity
    relation: str

    @property
    def asked(self) -> Fact | None:
        """The fact that answers, None where the passage does not say."""
        asked = (self.entity, self.relation)
        return next((f for f in self.facts if (f.entity, f.relation) == asked), None)

    @property
    def split(self) -> str:
        """Decided by the facts and the question, whatever the wording."""
        return split_of(self.facts, self.entity, self.relation)

    def tell(self, rng: Random, technical: bool = False) -> str:
        """All facts, a sentence each."""
        return " ".join(f.state(rng, technical) for f in self.facts)

    def tell_and_ask(self, rng: Random, technical: bool = False) -> str:
        """All facts, then the question in words the base knows."""
        question = Fact(self.entity, self.relation, "")
        return f"{self.tell(rng, technical)} {question.ask(rng)}"

    def restate(self, rng: Random, technical: bool) -> str:
        """All facts, then all of them again in the base's first wording."""
        plain = " ".join(f.plain() for f in self.facts)
        return f"{self.tell(rng, technical)} In plain words : {plain}"


def draw_passage(
    rng: Random, split: str, answerable: bool = True, relations: Sequence[str] = tuple(RELATIONS)
) -> Passage:
    """Draw a passage of a split that tells some of the ``relations``.

    An unanswerable question asks a name of the passage for a relation that the passage tells of
    another name (two times in three), or for one it does not mention at all.
    """
    while True:
        names = rng.sample(NAMES, rng.randint(2, 3))
        pairs = [(n, r) for n in names for r in relations]
        chosen = rng.sample(pairs, rng.randint(2, 5))
        facts = tuple(random_fact(rng, name, relation) for name, relation in chosen)
        options = chosen if answerable else _unanswered(rng, chosen, relations)
        if options:
            passage = Passage(facts, *rng.choice(options))
            if passage.split == split:
                return passage


def _unanswered(rng: Random, chosen: list, relations: Sequence[str]) -> list[tuple[str, str]]:
    """What can be asked, but is not in ``chosen``; may be empty."""
    mentioned = {r for _, r in chosen}
    near = rng.random() < 2 / 3
    names = {n for n, _ in chosen}
    pairs = ((n, r) for n in names for r in relations if (n, r) not in chosen)
    return sorted((n, r) for n, r in pairs if (r in mentioned) == near)
