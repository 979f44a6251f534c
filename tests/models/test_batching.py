"""Token ids with the right labels, and a loss at labelled positions only."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from soup_helpers import llama_pair, tiny_llama
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from lorasoups.learning.cat import CatModel
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


def gemma():
    """It caps its logits after the output layer: cap * tanh(logits / cap)."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=1, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, final_logit_softcapping=0.05,
    )  # fmt: skip
    return Gemma2ForCausalLM(config)


def with_peft():
    config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    return get_peft_model(tiny_llama(), config)


MODELS = {
    "plain": tiny_llama,
    "peft": with_peft,
    "cat": lambda: CatModel(tiny_llama(), llama_pair()),
    "softcapping": gemma,
}


@pytest.mark.parametrize("kind", MODELS)
def test_answer_loss_is_the_models_own_loss_with_fewer_logits(kind):
    model = MODELS[kind]()
    batch = Collate(0)(rows_of((9, 5, 7)))
    widths = []
    head = (model.model if kind == "cat" else model).get_output_embeddings()
    hook = head.register_forward_hook(lambda _, inputs, output: widths.append(output.shape))
    loss = answer_loss(model, **batch)
    hook.remove()
    whole = model(**batch).loss
    assert loss.item() == pytest.approx(whole.item(), abs=1e-6)
    assert widths == [((9 + 5 + 7) - 3 * 3, 31)]  # labelled positions alone
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = [torch.autograd.grad(x, trained, allow_unused=True) for x in (loss, whole)]
    for ours, own in zip(*gradients, strict=True):
        assert (ours is None) == (own is None)
        if ours is not None:
            torch.testing.assert_close(ours, own, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("without", ["any output layer", "one vector per token"])
def test_answer_loss_falls_back_to_the_models_own(monkeypatch, without):
    model, batch = tiny_llama(), Collate(0)(rows_of((9, 5, 7)))
    whole = model(**batch).loss
    head = torch.nn.Linear(16, 31) if without == "one vector per token" else None
    monkeypatch.setattr(model, "get_output_embeddings", lambda: head)
    assert answer_loss(model, **batch).item() == whole.item()


def test_heldout_loss_weighs_tokens_not_rows():
    model, rows = tiny_llama(), rows_of((12, 5, 7, 3))
    losses = [(len(r["input_ids"]) - 3, r) for r in rows if len(r["input_ids"]) > 3]
    wanted = sum(n * heldout_loss(model, [r]) for n, r in losses) / sum(n for n, _ in losses)
    assert heldout_loss(model, rows, batch_size=2) == pytest.approx(wanted, rel=1e-5)
    assert heldout_loss(model, rows[3:]) == 0.0  # nothing is asked
