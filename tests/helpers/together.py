"""What test_distributed runs in one process and in several: everything that is shared out."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from soup_helpers import LEAVES, llama_lora, tiny_llama
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer

from lorasoups.files import write_json_atomic
from lorasoups.learning import sharded_base
from lorasoups.learning.alphas import learn_alphas
from lorasoups.learning.skills import SkillTraining, train_lora
from lorasoups.learning.xlora import train_xlora
from lorasoups.models import processes as distributed
from lorasoups.models.generation import generate
from lorasoups.study.store import Store

TOKENIZER = Path(__file__).resolve().parent.parent.parent / "data" / "mini"
PROMPTS = ["A b " * n for n in (3, 1, 9, 4, 2, 7, 5, 8, 6, 1, 3)]


def rows(n=33, seed=0):
    """Answers of different lengths, so that a mean of means is not the mean; one without any."""
    generator = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    found = []
    for at in range(n):
        ids = [number(1, 31) for _ in range(number(4, 17))]
        asked = len(ids) if at == 7 else number(1, len(ids))
        found.append({"input_ids": ids, "labels": [-100] * asked + ids[asked:]})
    return found


def base():
    """A tiny Llama (hidden 16, 2 layers) with a pad token."""
    model = tiny_llama()
    model.config.pad_token_id = 0
    return model


@contextmanager
def in_pieces():
    """As if the launcher's config said FSDP; yields how many tensors were cut, per training."""
    pieces, shard = [], sharded_base.shard

    def counted(model, *more):
        shard(model, *more)
        pieces.append(sum(isinstance(p, DTensor) for p in model.parameters()))

    with (
        patch.object(distributed, "sharding", lambda: ("LlamaDecoderLayer", True)),
        patch.object(sharded_base, "shard", counted),
    ):
        yield pieces


def compute(stage):
    """Plain values of one stage; ``-cut``: with the base in pieces, where there are several."""
    if stage.endswith("-cut"):
        if distributed.size() == 1:
            return compute(stage.removesuffix("-cut"))
        with in_pieces() as pieces:
            return compute(stage.removesuffix("-cut")) | {"pieces": pieces}
    model, loras = base(), [llama_lora(1, 3), llama_lora(2, 2)]
    if stage == "alphas":  # 33 rows in batches of 4: the last one has a single row
        learned = learn_alphas(model, loras, rows(), batch_size=4, epochs=2, lr=0.02)
        return {"weights": {m: a.tolist() for m, a in learned.items()},
                "losses": [e["loss"] for e in learned.history],
                "means": [e["alpha_mean"][0] for e in learned.history]}  # fmt: skip
    if stage == "skill":
        config = SkillTraining(r=2, lora_alpha=4, steps=12, batch_size=4, lr=1e-2, bf16=False)
        taught = [row for row in rows() if max(row["labels"]) >= 0]
        lora, log = train_lora(model, taught, config, seed=0)
        deltas = {name: lora.delta(name).tolist() for name in lora.modules}
        return {"deltas": deltas, "losses": log["losses"]}
    if stage == "xlora":
        gate = train_xlora(model, [llama_lora(1, 2), llama_lora(2, 2)], rows()[:8], batch_size=4,
                           epochs=1)  # fmt: skip
        start = train_xlora(model, [llama_lora(1, 2), llama_lora(2, 2)], rows()[:8], batch_size=4,
                            max_steps=1, lr=0.0)  # fmt: skip
        return {
            "gate": {name: tensor.tolist() for name, tensor in gate.tensors.items()},
            "moved": max(float((gate.tensors[n] - start.tensors[n]).abs().max())
                         for n in gate.tensors),
        }  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    wide = tiny_llama()
    wide.resize_token_embeddings(len(tokenizer))
    return {"texts": generate(wide, tokenizer, PROMPTS, 8, batch_size=2)}


STAGES = ("alphas", "skill", "xlora", "alphas-cut", "skill-cut", "xlora-cut", "evaluate", "merge")


def main(out):
    store = Store(out / "store")
    me = f"process {distributed.rank()}"
    for stage in STAGES:

        def make(folder, scratch, stage=stage):
            (out / f"{stage} by {me}").touch()
            found = {} if stage == "merge" else compute(stage)
            write_json_atomic(folder / "found.json", found | {"by": me})

        for _ in range(2):  # the second time it lies there
            folder = store.build(stage.removesuffix("-cut"), {"leaves": list(LEAVES), "as": stage}, make)
        seen = json.loads((folder / "found.json").read_text())
        write_json_atomic(out / f"{stage} seen by {me}.json", seen)
    distributed.leave()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
