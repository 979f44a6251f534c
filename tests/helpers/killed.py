"""Trainings that are killed (SIGKILL) at chosen moments, saving included, until one comes through.

Every attempt is a fork of this process, which has imported everything and computed nothing.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import safetensors.torch
import torch
from soup_helpers import llama_lora, tiny_llama

from lorasoups import files
from lorasoups.learning import fit as fit_module
from lorasoups.learning.alphas import learn_alphas
from lorasoups.learning.skills import SkillTraining, train_lora
from lorasoups.learning.xlora import train_xlora

STEPS = 9


def rows(n=20):
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(1, 31, (5 + i % 4,), generator=generator).tolist() for i in range(n)]
    return [{"input_ids": row, "labels": [-100, -100, *row[2:]]} for row in ids]


def train(what, checkpoints):
    """Everything that a training gives, as plain values; dropout is on where there is any."""
    model = tiny_llama()
    if what == "skill":
        config = SkillTraining(
            r=2, steps=STEPS, batch_size=4, warmup_steps=2, lora_dropout=0.3, bf16=False
        )
        lora, log = train_lora(model, rows(), config, 1, checkpoints=checkpoints)
        return {"A": [f.A.tolist() for f in lora.modules.values()],
                "B": [f.B.tolist() for f in lora.modules.values()],
                "losses": log["losses"]}  # fmt: skip
    loras = [llama_lora(1, 3), llama_lora(2, 2)]
    common = {"batch_size": 4, "max_steps": STEPS, "checkpoints": checkpoints}
    if what == "alphas":
        learned = learn_alphas(model, loras, rows(), eval_dataset=rows(4), **common)
        return {"weights": {m: a.tolist() for m, a in learned.items()},
                "history": learned.history, "losses": learned.losses}  # fmt: skip
    gate = train_xlora(model, loras, rows(), **common)
    tensors = {name: tensor.tolist() for name, tensor in gate.tensors.items()}
    return {"tensors": tensors, "history": gate.history}


class Killer:
    """Ends this process at the n-th event: a step, or one of the moments of a save."""

    def __init__(self, n):
        self.left = n

    def event(self):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function):
        def call(*args, **options):
            self.event()
            value = function(*args, **options)
            self.event()
            return value

        return call

    def half_written(self, tensors, path):
        data = safetensors.torch.save(tensors)
        Path(path).write_bytes(data[: len(data) // 2])
        self.event()
        Path(path).write_bytes(data)


def attempt(what, folder, out, kill_at):
    """Train in a child; whether it came through."""
    child = os.fork()
    if child == 0:
        killer = Killer(kill_at)
        moments = [(fit_module, "sha256_file"), (fit_module, "share"), (files, "fsync_folder"),
                   (torch, "save"), (Path, "write_text"), (Path, "rename")]  # fmt: skip
        patches = [
            *(patch.object(at, n, killer.around(getattr(at, n))) for at, n in moments),
            patch.object(fit_module, "save_file", killer.half_written),
            patch.object(fit_module, "SAVE_EVERY_S", 0.0),
        ]
        for each in patches:
            each.start()
        Path(out).write_text(json.dumps(train(what, folder)))
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main(what, folder):
    """Write ``whole.json`` (never killed, nothing saved) and ``killed.json``; print the kills."""
    draw = random.Random(what)
    assert attempt(what, None, folder / "whole.json", -1)
    kills = 0
    while not attempt(what, folder / "saved", folder / "killed.json", draw.randint(20, 60)):
        kills += 1
        assert kills < 60, "no progress"
    print(kills)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]))
