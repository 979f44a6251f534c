"""Token ids with the right labels, and a loss at labelled positions only."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from soup_helpers import tiny_llama
from transformers import AutoTokenizer

from lorasoups.models.batching import (
    EVERYTHING,
    Collate,
    answer_loss,
    encode_all,
    heldout_loss,
)

BASE = Path(__file__).resolve().parent.parent.parent / "data" / "mini"
ITEMS = [{"prompt": "3 + 4 + 5 =", "answer": "7 + 5"}, {"prompt": "", "answer": "3 + 4"}]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


def test_prompts_have_no_labels_and_long_rows_lose_their_tail(tokenizer):
    first, second = encode_all(tokenizer, ITEMS)
    ids = (
        tokenizer(ITEMS[0]["prompt"]).input_ids
        + tokenizer(ITEMS[0]["answer"], add_special_tokens=False).input_ids
    )
    assert first["input_ids"] == [*ids, tokenizer.eos_token_id]
    n = len(tokenizer(ITEMS[0]["prompt"]).input_ids)
    assert first["labels"] == [-100] * n + first["input_ids"][n:]
    cut = encode_all(tokenizer, ITEMS, 4)[0]
    assert cut == {key: values[:4] for key, values in first.items()}
    assert second["labels"][-3:] == second["input_ids"][-3:]


def test_loss_on_everything_changes_labels_only(tokenizer):
    usual = encode_all(tokenizer, ITEMS)
    mixed = encode_all(tokenizer, [{**ITEMS[0], "train_on": EVERYTHING}, ITEMS[1]])
    assert [row["input_ids"] for row in mixed] == [row["input_ids"] for row in usual]
    assert mixed[0]["labels"] == mixed[0]["input_ids"] and -100 in usual[0]["labels"]
    assert mixed[1] == usual[1]


def rows_of(lengths, prompt=3):
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, 31, (n,), generator=draw).tolist() for n in lengths]
    return [{"input_ids": row, "labels": [-100] * prompt + row[prompt:]} for row in ids]


@pytest.mark.parametrize("wrapped", [False, True])
def test_answer_loss_is_the_models_own_loss_with_fewer_logits(wrapped):
    model = tiny_llama()
    if wrapped:
        config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
    batch = Collate(0)(rows_of((9, 5, 7)))
    widths = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: widths.append(tuple(output.shape))
    )
    loss = answer_loss(model, **batch)
    hook.remove()
    assert loss.item() == pytest.approx(model(**batch).loss.item(), abs=1e-6)
    assert widths == [((9 + 5 + 7) - 3 * 3, 31)]  # labelled positions alone
    loss.backward()


def test_heldout_loss_weighs_tokens_not_rows():
    model, rows = tiny_llama(), rows_of((12, 5, 7, 3))
    losses = [(len(r["input_ids"]) - 3, r) for r in rows if len(r["input_ids"]) > 3]
    wanted = sum(n * heldout_loss(model, [r]) for n, r in losses) / sum(n for n, _ in losses)
    assert heldout_loss(model, rows, batch_size=2) == pytest.approx(wanted, rel=1e-5)
    assert heldout_loss(model, rows[3:]) == 0.0  # nothing is asked
