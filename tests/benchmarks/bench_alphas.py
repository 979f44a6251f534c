"""What learning alphas costs: one step, and the number of steps."""

import statistics
from contextlib import ExitStack, contextmanager
from functools import cache

import pytest
import torch
from harness import in_turn
from models import llama, loras_for

from lorasoups.alphas import PRESETS, learn_alphas
from lorasoups.cat import CatModel
from lorasoups.experiment import Experiment


@contextmanager
def plain_step(model, ids):
    """Forward, and backward down to the embeddings: what lower layers' alphas need anyhow."""
    hook = model.get_input_embeddings().register_forward_hook(
        lambda module, args, out: out.requires_grad_(True)
    )
    try:
        yield lambda: model(input_ids=ids, labels=ids).loss.backward()
    finally:
        hook.remove()


@contextmanager
def alpha_step(model, loras, ids):
    """One step of alpha learning: forward, backward, AdamW."""
    with CatModel(model, loras) as cat:
        optimizer = torch.optim.AdamW([cat.logits], lr=1e-3, weight_decay=0.0, fused=True)

        def step() -> None:
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        yield step


@pytest.mark.parametrize("hidden, layers", [(160, 4), (768, 2)], ids=["mini", "wide"])
def test_an_alpha_step(benchmark, figure, quick, device, hidden, layers):
    """The wide one is the figure; the mini base's is told beside it."""
    model = llama(hidden, layers, device, "sdpa" if device == "cuda" else "eager")
    loras = loras_for(model)
    shape = (2, 16) if quick else (8, 256) if hidden > 160 else (16, 64)
    ids = torch.randint(512, shape, device=device)

    def run(way) -> None:
        """Installing is not timed with the step: three steps per installation."""
        for _ in range(3):
            way()

    # both live on one model, one after the other: each is installed for its own rounds
    seconds = {"first_s": [], "second_s": []}

    def once() -> tuple[float, float]:
        from harness import timed

        pair = []
        for make in (lambda: alpha_step(model, loras, ids), lambda: plain_step(model, ids)):
            with ExitStack() as stack:
                way = stack.enter_context(make())
                way()
                pair.append(timed(lambda way=way: run(way)))
        seconds["first_s"].append(pair[0])
        seconds["second_s"].append(pair[1])
        return pair[0], pair[1]

    benchmark.pedantic(once, rounds=2 if quick else 15, warmup_rounds=1, iterations=1)
    ratios = [a / b for a, b in zip(*(s[1:] for s in seconds.values()), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    name = f"Llama of hidden {hidden}, {layers} layers, {shape[0]} x {shape[1]} tokens"
    print(f"\n{name}: {middle:.3f} [{low:.3f}, {high:.3f}]")
    told[hidden] = middle
    if hidden > 160:
        note = f"{name}; on the mini base's shape {told.get(160, float('nan')):.2f}"
        figure("alpha_step", middle, low=low, high=high, note=note)


told: dict[int, float] = {}


@cache
def headline(seeds: int) -> Experiment:
    """The headline's skills (from the cache, or trained: minutes)."""
    return Experiment("mini", seeds)


def test_alpha_steps_until_the_released_schedules_loss(benchmark, figure, quick):
    """Ours is run for 1, 2, 3, ... steps, each with its own decay, until it is there."""
    if quick:
        pytest.skip("needs the mini skills")
    seeds = 3
    experiment = headline(seeds)
    best = experiment.alpha_options("ours")
    best = {name: best[name] for name in ("normalise", "init", "lr", "batch_size")}
    found: list[tuple[int, int]] = []

    def search(seed: int) -> tuple[int, int]:
        loras, rows = experiment.pair(seed), experiment.alpha_rows(seed)
        wanted = experiment.learn(loras, rows, {"preset": "released"}, seed)[1]
        steps = -(-len(rows) // PRESETS["released"]["batch_size"])
        from lorasoups.merging import merge

        for n in (1, 2, 3, 4, 6, 8, 10, 13, 20, 30, 60):
            learned = learn_alphas(
                experiment.source.model, loras, rows, seed=seed, max_steps=n, **best
            )
            if experiment.held_out_loss(merge(loras, "cat", weights=learned)) <= wanted:
                return n, steps
        return steps, steps

    def all_seeds() -> None:
        found[:] = [search(seed) for seed in range(seeds)]

    benchmark.pedantic(all_seeds, rounds=1, iterations=1)
    ratios = sorted(n / steps for n, steps in found)
    note = f"hard math, {seeds} seeds: {', '.join(f'{n} of {steps}' for n, steps in found)} steps"
    figure("alpha_steps", statistics.median(ratios), low=ratios[0], high=ratios[-1], note=note)


def test_in_turn_is_what_it_says(benchmark):
    """The harness itself: twice the work takes about twice as long."""
    x = torch.randn(300, 300)

    def work(n):
        for _ in range(n):
            x @ x

    found = in_turn(benchmark, lambda: work(40), lambda: work(20), rounds=9)
    assert 1.4 < found["ratio"] < 2.8
