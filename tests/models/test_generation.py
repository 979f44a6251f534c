"""Batched greedy decoding against transformers' own, one prompt at a time."""

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from lorasoups.errors import SoupError
from lorasoups.models import generation
from lorasoups.models.base import load_base
from lorasoups.models.generation import generate
from lorasoups.paths import Folders
from lorasoups.tasks.worlds.mini.tasks import dataset

NEW = 24


@pytest.fixture(scope="module")
def base():
    return load_base(Folders().data / "mini")[:2]


@pytest.fixture(scope="module")
def prompts():
    """Of very different lengths, in no order; some end at once, some never."""
    tasks = (dataset(task, "test", 6, 0) for task in ("hard_math", "math", "code"))
    texts = [item["prompt"] for items in tasks for item in items]
    return texts + [text[: len(text) // 3] for text in texts[::3]] + [texts[0] * 2]


@pytest.fixture(scope="module")
def expected(base, prompts):
    model, tokenizer = base
    texts = []
    for prompt in prompts:
        batch = tokenizer(prompt, return_tensors="pt")
        ids = {name: batch[name] for name in ("input_ids", "attention_mask")}
        out = model.generate(**ids, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
        new = out[0, batch["input_ids"].shape[1] :]
        texts.append(tokenizer.decode(new, skip_special_tokens=True))
    assert len(set(texts)) > 3 and len({len(text) for text in texts}) > 3
    return texts


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("at_once", [1, 200, 10_000], ids="read {}".format)
def test_texts_are_those_of_one_prompt_at_a_time(
    base, prompts, expected, batch_size, at_once, monkeypatch
):
    monkeypatch.setitem(generation.READ_TOKENS, "cpu", at_once)
    assert generate(*base, prompts, NEW, batch_size) == expected


def test_the_output_layer_is_not_copied_for_every_row(base, prompts):
    """torch multiplies a strided slice [rows, 1, hidden] with one copy of the weights per row."""
    model, tokenizer = base
    seen = []
    with model.lm_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        generate(model, tokenizer, prompts, 3)
    assert len(seen) >= 3 and all(x.is_contiguous() and x.shape[1] == 1 for x in seen)


@pytest.mark.parametrize("at_once", [1, 60, 10_000], ids="read {}".format)
def test_what_all_prompts_begin_with_is_read_once(base, prompts, at_once, monkeypatch):
    model, tokenizer = base
    monkeypatch.setitem(generation.READ_TOKENS, "cpu", at_once)
    shown = [prompts[0] + " 12 + 5\n\n" + text for text in prompts]
    monkeypatch.setattr(generation, "SHARED_FROM", 10_000)
    apart = generate(model, tokenizer, shown, NEW, 100)
    seen, forward = [], model.forward

    def counting(input_ids, **rest):
        seen.append(input_ids.shape)
        return forward(input_ids=input_ids, **rest)

    monkeypatch.setattr(model, "forward", counting)
    monkeypatch.setattr(generation, "SHARED_FROM", 2)
    assert generate(model, tokenizer, shown, NEW, 100) == apart
    (rows, shared), *later = seen
    assert rows == 1 and shared >= len(tokenizer(prompts[0]).input_ids)
    assert max(width for _, width in later) == max(map(len, tokenizer(shown).input_ids)) - shared


@pytest.mark.parametrize("keep_from", [0.0, 0.5, 1.1])
def test_rows_that_end_are_dropped_without_a_trace(base, prompts, expected, keep_from, monkeypatch):
    monkeypatch.setattr(generation, "KEEP_FROM", keep_from)
    assert generate(*base, prompts, NEW, 100) == expected


def test_the_limit_holds_and_nothing_is_no_error(base, prompts):
    model, tokenizer = base
    full, short = (generate(model, tokenizer, prompts, n) for n in (NEW, 2))
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in short]
    assert max(map(len, ids)) <= 2
    assert all(long.startswith(text) for long, text in zip(full, short, strict=True))
    assert generate(model, tokenizer, []) == []


def test_no_token_is_computed_for_rows_that_have_ended(base, prompts, monkeypatch):
    model, tokenizer = base
    sizes = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"] if not args else args[0])),
        with_kwargs=True,
    )
    try:
        generate(model, tokenizer, prompts, NEW, 100)
    finally:
        hook.remove()
    assert 0 < sizes[-1] < generation.KEEP_FROM * len(prompts)


def test_a_model_without_keys_and_values_is_refused(base):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "pad_token_id": 0}
    model = MambaForCausalLM(MambaConfig(vocab_size=len(base[1]), **small))
    with pytest.raises(SoupError, match="MambaForCausalLM; give a base with plain attention"):
        generate(model, base[1], ["2 + 2 ="], 4)
