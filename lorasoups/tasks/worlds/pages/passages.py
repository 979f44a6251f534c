"""Passages: a few facts about invented names, and a question that they answer or do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from lorasoups.tasks.worlds.pages.facts import NAMES, RELATIONS, Fact, random_fact, split_of


@dataclass(frozen=True)
class Passage:
    """Facts in the order of telling, and what is asked.

    Attributes:
        facts: two to five, about two or three names; no (entity, relation) twice.
        entity, relation: what is asked.
    """

    facts: tuple[Fact, ...]
    entity: str
    relation: str

    @property
    def asked(self) -> Fact | None:
        """The fact that answers, None where the passage does not say."""
        return next(
            (f for f in self.facts if (f.entity, f.relation) == (self.entity, self.relation)), None
        )

    @property
    def split(self) -> str:
        """Decided by the facts and what is asked, whatever the wording."""
        return split_of(self.facts, self.entity, self.relation)

    def tell(self, rng: Random, technical: bool = False) -> str:
        """All facts, a sentence each."""
        return " ".join(f.state(rng, technical) for f in self.facts)

    def question(self, rng: Random) -> str:
        """The question, in words the base knows."""
        return Fact(self.entity, self.relation, "").ask(rng)


def sample(
    rng: Random, split: str, answerable: bool = True, relations: Sequence[str] = tuple(RELATIONS)
) -> Passage:
    """Draw a passage of a split that tells and asks some of the ``relations``.

    An unanswerable question asks a name of the passage for a relation that the passage tells of
    another name (two times in three), or for one it does not mention at all.
    """
    while True:
        names = rng.sample(NAMES, rng.randint(2, 3))
        pairs = [(n, r) for n in names for r in relations]
        chosen = rng.sample(pairs, rng.randint(2, 5))
        facts = tuple(random_fact(rng, name, relation) for name, relation in chosen)
        if answerable:
            asked = rng.choice(chosen)
        else:
            told = {r for _, r in chosen}
            near = rng.random() < 2 / 3
            open_pairs = [
                (n, r)
                for n in {f.entity for f in facts}
                for r in relations
                if (n, r) not in chosen and (r in told) == near
            ]
            if not open_pairs:
                continue
            asked = rng.choice(sorted(open_pairs))
        passage = Passage(facts, *asked)
        if passage.split == split:
            return passage
