"""Evaluation: a folded soup against the base, batches against one prompt at a time."""

import torch
from harness import in_turn
from models import loras_for

from lorasoups.base_models import load_base
from lorasoups.evaluation import folded, generate
from lorasoups.paths import Folders
from lorasoups.world.tasks import dataset


def base(device):
    attention = "sdpa" if device == "cuda" else "eager"
    model, tokenizer, _ = load_base(Folders().data / "mini", attn_implementation=attention)
    return model.to(device).requires_grad_(False), tokenizer


def prompts(n: int) -> list[str]:
    return [item["prompt"] for item in dataset("hard_math", "test", n, 0)]


def fixed(model, tokenizer, texts: list[str], new: int) -> None:
    """Greedy generation of exactly ``new`` tokens for every prompt."""
    batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    model.generate(
        input_ids=batch["input_ids"].to(model.device),
        attention_mask=batch["attention_mask"].to(model.device),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )


def test_a_merged_soup_generates_as_fast_as_the_base(benchmark, figure, quick, device):
    model, tokenizer = base(device)
    soup, texts, new = loras_for(model)[0], prompts(4 if quick else 64), 4 if quick else 48

    def with_soup() -> None:
        with folded(model, soup):  # folding in and out is part of the price
            fixed(model, tokenizer, texts, new)

    with torch.no_grad():
        found = in_turn(
            benchmark,
            lambda: fixed(model, tokenizer, texts, new),
            with_soup,
            rounds=3 if quick else 15,
        )
    note = f"{len(texts)} prompts, {new} new tokens, folding and unfolding included"
    figure("soup_generation", found["ratio"], low=found["low"], high=found["high"], note=note)


def test_evaluation_in_batches(benchmark, figure, quick, device):
    """Ours against the released style: prompt by prompt, with a cache, the same new tokens."""
    model, tokenizer = base(device)
    texts, new = prompts(6 if quick else 96), 8 if quick else 60
    answers: dict[str, list[str]] = {}

    def one_by_one() -> None:
        answers["single"] = [generate(model, tokenizer, [t], new, 1)[0] for t in texts]

    def batches() -> None:
        answers["batches"] = generate(model, tokenizer, texts, new, 250)

    found = in_turn(benchmark, one_by_one, batches, rounds=2 if quick else 3)
    same = sum(a == b for a, b in zip(*answers.values(), strict=True))
    note = f"{len(texts)} problems of hard math, mini base; {same} of {len(texts)} texts are equal"
    figure("evaluation", found["ratio"], low=found["low"], high=found["high"], note=note)
    assert same >= 0.9 * len(texts)
