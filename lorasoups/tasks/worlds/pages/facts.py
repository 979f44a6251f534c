"""Facts (an entity, a relation, a value), passages of them, and the forms of an answer."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from lorasoups.tasks.worlds import Form, split_of

ABSTAIN = "not in context"


@dataclass(frozen=True)
class Relation:
    """The words of a relation; ``{e}`` stands for the entity, ``{v}`` for the value."""

    values: list[str]  # one word each
    statements: list[str]  # these and the questions are part of the base's language
    questions: list[str]
    paraphrases: list[str]  # questions that occur in no training text
    technical: list[str]  # statements in words that the base never saw explained


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

    @property
    def plain(self) -> str:
        """The fact in the base's first wording."""
        return RELATIONS[self.relation].statements[0].format(e=self.entity, v=self.value)


WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
RELATIONS = {
    name: Relation(**words | {"values": words["values"].split()})
    for name, words in WORDS["relations"].items()
}
TECHNICAL = ("color", "food", "material", "owner", "use")
"""The relations that technical texts tell."""


def _terms() -> dict[str, str]:
    heads, tails = WORDS["terms"]["heads"].split(), WORDS["terms"]["tails"].split()
    words = [head + tail for tail in tails for head in heads]
    values = [v for name in ("color", "food", "material") for v in RELATIONS[name].values]
    return dict(zip(values, Random("terms").sample(words, len(values)), strict=True))


TERMS = _terms()
"""Color, food or material -> the word that technical texts use for it."""
THINGS = tuple(WORDS["things"].split())
"""Entities of general knowledge: the base knows every relation of each."""
_HEADS, _TAILS = WORDS["names"]["heads"].split(), WORDS["names"]["tails"].split()
NAMES = tuple(Random("names of the pages").sample([h + t for h in _HEADS for t in _TAILS], 240))
"""240 invented words of two syllables."""
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


def _form(names: list[str], template: str) -> Form:
    return lambda f: template.format(f=f), names


FORMS: dict[str, Form] = {name: _form(**words) for name, words in WORDS["forms"].items()}
FORMS["brackets"] = (brackets, ("brackets", "a box"))  # what a skill teaches
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
        plain = " ".join(f.plain for f in self.facts)
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
