"""What learning alphas costs: one step, and the number of steps."""

import statistics
from contextlib import contextmanager

import pytest
import torch
from harness import hot_spots, in_turn, timed
from models import llama, loras_for

from lorasoups.alphas import PRESETS, learn_alphas
from lorasoups.cat import CatModel
from lorasoups.measure import random_base
from lorasoups.merging import merge


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


def bases(quick: bool, device: str):
    """Name -> (model, rank, batch, length); the last one is the figure."""
    if device == "cuda":
        layers = 2 if quick else 8
        model = random_base("llama-7b", device, "bfloat16", layers)
        yield f"Llama-7B shape, {layers} layers, bfloat16", model, 32, 8, 256
        return
    batch, length = (2, 16) if quick else (16, 64)
    yield "the mini base's shape", llama(160, 4, device), 8, batch, length
    batch, length = (2, 16) if quick else (8, 256)
    yield "Llama of hidden 768, 2 layers", llama(768, 2, device), 8, batch, length


def test_an_alpha_step(benchmark, figure, missed, quick, device):
    """Each way is installed on the same model for its own turns; installing is not timed."""
    found, told = {}, []
    for name, model, rank, batch, length in bases(quick, device):
        loras = loras_for(model, rank=rank, device=device)
        ids = torch.randint(512, (batch, length), device=device)

        def ours(model=model, loras=loras, ids=ids):
            return alpha_step(model, loras, ids)

        def plain(model=model, ids=ids):
            return plain_step(model, ids)

        def clock(way) -> float:
            with way() as step:
                step()  # caches and optimiser state of a fresh installation
                return timed(lambda: [step() for _ in range(3)]) / 3

        rounds = 2 if quick else 15
        # pytest-benchmark's fixture times one thing per test: the figure's
        last = device == "cuda" or model.config.hidden_size > 160
        found = in_turn(benchmark if last else None, ours, plain, rounds, clock)
        spread = f"{found['ratio']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
        told.append(f"{name}, {batch} x {length} tokens: {spread}")
        if missed("alpha_step", found["ratio"]) and not quick:
            with ours() as step:
                told.append(f"time of ours: {hot_spots(step, device)}")
    figure("alpha_step", found.pop("ratio"), **found, note="; ".join(told))


def test_alpha_steps_until_the_released_schedules_loss(benchmark, figure, quick):
    """Ours is run for 1, 2, 3, ... steps, each with its own decay, until it is there.

    Both see the same rows; the loss is the skills' mean on held-out rows of theirs.
    """
    if quick:
        pytest.skip("needs the mini skills (from the cache, or trained: minutes)")
    from lorasoups.experiment import Experiment

    seeds = 5
    experiment = Experiment("mini", seeds)
    best = experiment.alpha_options("ours")
    batch = best["batch_size"]
    best = {name: best[name] for name in ("normalise", "init", "lr", "batch_size")}
    steps, seconds = [], []

    def search(seed: int) -> None:
        model, loras = experiment.source.model, experiment.pair(seed)
        rows = experiment.alpha_rows(seed)
        wanted = experiment.learn(loras, rows, {"preset": "released"}, seed)[1]
        released = -(-len(rows) // PRESETS["released"]["batch_size"])
        for n in range(1, released // 2):
            learned = learn_alphas(model, loras, rows, seed=seed, max_steps=n, **best)
            if experiment.held_out_loss(merge(loras, "cat", weights=learned)) <= wanted:
                break
        steps.append((n, released))
        own = timed(lambda: learn_alphas(model, loras, rows, seed=seed, max_steps=n, **best))
        theirs = timed(lambda: learn_alphas(model, loras, rows, seed=seed, preset="released"))
        seconds.append((own, theirs))

    benchmark.pedantic(lambda: [search(s) for s in range(seeds)], rounds=1, iterations=1)
    low, middle, high = statistics.quantiles([n / m for n, m in steps], n=4, method="inclusive")
    faster = statistics.median(a / b for a, b in seconds)
    size = PRESETS["released"]["batch_size"]
    note = (
        f"hard math, mini base, {seeds} seeds: {', '.join(f'{n} of {m}' for n, m in steps)} steps; "
        f"ours in batches of {batch}, theirs of {size}; seconds {faster:.3f} x theirs"
    )
    more = {"seconds_ratio": faster, "steps": steps, "seconds": seconds}
    figure("alpha_steps", middle, low=low, high=high, note=note, **more)
