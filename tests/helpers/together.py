"""What test_distributed runs in one process and in several: everything that is shared out."""

import json
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from soup_helpers import llama_lora, tiny_llama
from transformers import AutoTokenizer

from lorasoups.files import write_json_atomic
from lorasoups.learning import fit as fit_module
from lorasoups.learning.alphas import learn_alphas
from lorasoups.learning.skills import SkillTraining, train_lora
from lorasoups.learning.xlora import train_xlora
from lorasoups.models import processes
from lorasoups.models.generation import generate
from lorasoups.study.store import Store

TOKENIZER = Path(__file__).resolve().parent.parent.parent / "data" / "mini"
PROMPTS = ["A b " * n for n in (3, 1, 9, 4, 2, 7, 5, 8, 6, 1, 3)]
STAGES = ("alphas", "skill", "xlora", "evaluate", "merge")


def rows(n=33, seed=0):
    """Answers of different lengths, so that a mean of means is not the mean; one without any."""
    generator = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    encoded = []
    for at in range(n):
        ids = [number(1, 31) for _ in range(number(4, 17))]
        asked = len(ids) if at == 7 else number(1, len(ids))
        encoded.append({"input_ids": ids, "labels": [-100] * asked + ids[asked:]})
    return encoded


def compute(stage, checkpoints=None):
    """Plain values of one stage."""
    model, loras = tiny_llama(), [llama_lora(1, 3), llama_lora(2, 2)]
    model.config.pad_token_id = 0
    if stage == "alphas":  # 33 rows in batches of 4: the last one has a single row
        learned = learn_alphas(
            model, loras, rows(), batch_size=4, epochs=2, lr=0.02, checkpoints=checkpoints
        )
        return {"weights": {m: a.tolist() for m, a in learned.items()},
                "losses": [e["loss"] for e in learned.history]}  # fmt: skip
    if stage == "skill":
        config = SkillTraining(r=2, lora_alpha=4, steps=12, batch_size=4, lr=1e-2, bf16=False)
        taught = [row for row in rows() if max(row["labels"]) >= 0]
        lora, log = train_lora(model, taught, config, seed=0, checkpoints=checkpoints)
        deltas = {name: lora.delta(name).tolist() for name in lora.modules}
        return {"deltas": deltas, "losses": log["losses"]}
    if stage == "xlora":
        gate = train_xlora(model, loras, rows()[:8], batch_size=4, epochs=2)
        return {"gate": {name: tensor.tolist() for name, tensor in gate.tensors.items()}}
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    model.resize_token_embeddings(len(tokenizer))
    return {"texts": generate(model, tokenizer, PROMPTS, 8, batch_size=2)}


@patch.object(fit_module, "SAVE_EVERY_S", 0.0)
def main(out):
    processes.join()
    store = Store(out / "store")
    me = f"process {processes.rank()}"
    for stage in STAGES:

        def make(folder, scratch, stage=stage):
            (out / f"{stage} by {me}").touch()
            if stage in ("alphas", "skill"):  # the second time it goes on from the last step
                compute(stage, scratch)
                _drop_last_step(scratch)
            values = {} if stage == "merge" else compute(stage, scratch)
            write_json_atomic(folder / "values.json", values | {"by": me})

        for _ in range(2):  # the second time it lies there
            folder = store.build(stage, {"of": "together"}, make)
        seen = json.loads((folder / "values.json").read_text())
        write_json_atomic(out / f"{stage} seen by {me}.json", seen)
    processes.leave()


def _drop_last_step(scratch):
    """As if the run had been killed before its last checkpoint was sound."""
    processes.gather(None)
    if processes.is_main():
        (fit_module.newest_checkpoint(scratch) / "state.pt").write_bytes(b"")
    processes.gather(None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
