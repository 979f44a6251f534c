"""What a method of a study's table is, and the methods that merge nothing.

A method asks the stages for what it needs; the stages know no methods.
"""

import random
from dataclasses import dataclass

from lorasoups.errors import SoupError
from lorasoups.lora.lora import LoRA
from lorasoups.study.stages import Skill, Stages


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str  # id in the results file
    label: str  # what figures and tables call it
    group: str  # of `reading.GROUPS`: what they put it under
    main: bool = False  # also evaluated on the skills' own tests and on the profile's extras
    on: str = "delta"  # recorded with its rows: what a merge works on
    weight: float | None = None  # recorded too: the weight of every LoRA

    def adapter(self, stages: Stages, seed: int) -> LoRA | None:
        """The adapter; None is the base alone."""
        raise SoupError(f"{self.label} is no adapter: method {self.name!r}; use its answers")

    def answers(self, stages: Stages, task: str, seed: int) -> list[dict]:
        """Verdicts on one test, in its order (see `Stages.answers`)."""
        return stages.evaluate_adapter(self.adapter(stages, seed), task)


class Base(Method):
    """The base model alone."""

    def adapter(self, stages: Stages, seed: int) -> None:
        return None


class FewShot(Method):
    """The base model, shown one solved training example of every skill."""

    def answers(self, stages: Stages, task: str, seed: int) -> list[dict]:
        items = with_demonstrations(stages, task, seed)
        return stages.answers(task, None, lambda: stages.with_adapter(None), items)


def with_demonstrations(stages: Stages, task: str, seed: int) -> list[dict]:
    """Test items whose prompts begin with solved training examples, one of every skill.

    They are short ones, drawn by the seed; none is of the target task, which has no training data.
    A skill is left out where its example no longer fits the model's context.
    """
    rng, source, p = random.Random(f"demonstrations {seed}"), stages.source, stages.profile
    items, text = stages.items(task), ""

    def tokens(text: str) -> int:
        return len(source.tokenizer(text).input_ids)

    room = getattr(source.model.config, "max_position_embeddings", 2048)
    room -= p.max_new_tokens + max(tokens(item["prompt"]) for item in items)
    for skill in p.skills:
        solved = [i["prompt"] + i["answer"] for i in source.items(skill, "train", 100)]
        longer = text + rng.choice(sorted(solved, key=len)[:30]) + "\n"
        text = longer if tokens(longer) <= room else text
    return [item | {"prompt": text + item["prompt"]} for item in items]


class Trained(Method):
    """A skill's LoRA, trained or loaded."""

    def trained(self, stages: Stages, seed: int) -> Skill:
        """The adapter with the log of its training."""
        return stages.skill(self.name, seed)

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        return self.trained(stages, seed).lora


class DataMix(Trained):
    """One LoRA on the data of all skills."""

    def trained(self, stages: Stages, seed: int) -> Skill:
        return stages.data_mix(self.name, seed)


class Fresh(Method):
    """A new LoRA on exactly the data that the alphas are learned on."""

    def adapter(self, stages: Stages, seed: int) -> LoRA:
        return stages.fresh_lora(seed).lora
