"""Evaluation: a folded soup against the base, batches against one prompt at a time."""

import torch
from harness import hot_spots, in_turn, timed
from models import loras_for

from lorasoups.models.base import load_base
from lorasoups.models.generation import folded, generate
from lorasoups.paths import Folders
from lorasoups.run.doctor import random_base
from lorasoups.tasks.worlds.mini.tasks import dataset


def mini(device):
    attention = "sdpa" if device == "cuda" else "eager"
    model, tokenizer, _ = load_base(Folders().data / "mini", attn_implementation=attention)
    return model.to(device).requires_grad_(False), tokenizer


def prompts(n: int) -> list[str]:
    return [item["prompt"] for item in dataset("hard_math", "test", n, 0)]


def test_a_merged_soup_generates_as_fast_as_the_base(benchmark, figure, missed, quick, device):
    """Tokens per second once the soup is folded in; what folding takes, once, is told beside."""
    if device == "cuda":
        model = random_base("llama-7b", device, "bfloat16", 2 if quick else None)
        n, new, rank = 64, 4 if quick else 32, 32
    else:
        model, n, new, rank = mini(device)[0], 4 if quick else 64, 4 if quick else 48, 8
    soup = loras_for(model, 1, rank, device)[0]
    ids = torch.randint(5, model.config.vocab_size, (n, 64), device=device)
    mask = torch.ones_like(ids)
    folding: list[float] = []

    def run() -> None:
        model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip

    def base() -> float:
        return timed(run)

    def with_soup() -> float:
        inside: list[float] = []

        def whole() -> None:
            with folded(model, soup):
                inside.append(timed(run))

        folding.append(timed(whole) - inside[0])
        return inside[0]

    with torch.no_grad():
        found = in_turn(benchmark, base, with_soup, 3 if quick else 15, clock=lambda way: way())
    shape = "Llama-7B shape, bfloat16" if device == "cuda" else "mini base"
    note = (
        f"{shape}, {n} prompts, {new} new tokens: {n * new / found['second_s'][0]:,.0f} tokens/s; "
        f"folding in and out takes {1000 * sorted(folding)[len(folding) // 2]:.1f} ms once"
    )
    if missed("soup_generation", found["ratio"]) and not quick:
        with torch.no_grad():
            note += f"; time: {hot_spots(run, device)}"
    figure("soup_generation", found.pop("ratio"), **found, note=note)


def test_evaluation_in_batches(benchmark, figure, missed, quick, device):
    """Ours against the released style: prompt by prompt, with a cache, the same new tokens.

    Of many problems the released style gets every few-th, as it takes minutes for all.
    """
    model, tokenizer = mini(device)
    new = 8 if quick else 60
    texts = prompts(6 if quick else 512 if device == "cuda" else 250)
    few = texts[:: 16 if device == "cuda" and not quick else 1]
    answers: dict[str, dict[str, str]] = {}

    def one_by_one() -> None:
        answers["single"] = {t: generate(model, tokenizer, [t], new, 1)[0] for t in few}

    def batches() -> None:
        written = generate(model, tokenizer, texts, new, 512 if device == "cuda" else 250)
        answers["batches"] = dict(zip(texts, written, strict=True))

    found = in_turn(benchmark, one_by_one, batches, rounds=2 if quick else 3)
    share = len(texts) / len(few)
    for name in ("ratio", "low", "high"):
        found[name] *= share
    same = sum(answers["single"][t] == answers["batches"][t] for t in few)
    rates = len(few) / found["first_s"][0], len(texts) / found["second_s"][0]
    note = (
        f"mini base, hard math, up to {new} new tokens: {len(few)} problems one by one at "
        f"{rates[0]:.1f} per s, {len(texts)} in batches at {rates[1]:.1f} per s; "
        f"{same} of {len(few)} texts are equal"
    )
    if missed("evaluation", found["ratio"]) and not quick:
        note += f"; time of ours: {hot_spots(batches, device)}"
    figure("evaluation", found.pop("ratio"), **found, note=note)
    assert same >= 0.9 * len(few)
