"""What learning alphas costs: one step, and the number of steps."""

import statistics
from contextlib import contextmanager

import pytest
import torch
from harness import hot_spots, in_turn, timed
from models import llama, loras_for

from lorasoups.learning.alphas import PRESETS, learn_alphas
from lorasoups.learning.cat import CatModel
from lorasoups.lora.merging import merge
from lorasoups.run.doctor import random_base
from lorasoups.study.stages import Stages


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
    batch, length = (2, 16) if quick else (4, 128)
    yield "Llama of hidden 768, 6 layers", llama(768, 6, device), 8, batch, length


def test_an_alpha_step(benchmark, figure, missed, quick, device):
    """Each way is installed on the same model for its own turns; installing is not timed.

    Ours needs no gradient below the first adapted layer's alphas; of a base of two layers that
    saves several per cent, of a deep one nothing: so the wide base has some depth.
    """
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

        rounds = 2 if quick else 11
        # pytest-benchmark's fixture times one thing per test: the figure's
        last = device == "cuda" or model.config.hidden_size > 160
        found = in_turn(benchmark if last else None, ours, plain, rounds, clock)
        spread = f"{found['ratio']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
        told.append(f"{name}, {batch} x {length} tokens: {spread}")
        if missed("alpha_step", found["ratio"]) and not quick:
            with ours() as step:
                told.append(f"time of ours: {hot_spots(step, device)}")
    figure("alpha_step", found.pop("ratio"), **found, note="; ".join(told))


STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 20, 40)


def test_alpha_steps_until_the_released_schedules_loss(benchmark, figure, quick):
    """Ours is run for 1, 2, 3, ... steps, each with its own decay, until it is there.

    Both see the same rows; the loss is the skills' mean on held-out rows of theirs. Where our start
    (no step at all) is there already, one step is counted, and how often is told. The same with our
    learning rate and batches from the released schedule's own random start tells how much of it is
    the schedule, and not the start.
    """
    if quick:
        pytest.skip("needs the mini skills (from the cache, or trained: minutes)")
    seeds = 5
    experiment = Stages("mini", seeds)
    model = experiment.source.model
    softmax = min(
        (e for e in experiment.grid if e["normalise"] == "softmax"),
        key=lambda e: e["heldout_loss"],
    )
    fields = ("normalise", "init", "lr", "batch_size")
    best = {name: experiment.preset_options("ours")[name] for name in fields}
    theirs = best | {"normalise": "softmax", "init": "randn", "lr": softmax["lr"]}
    runs = []

    def search(seed: int) -> dict:
        loras, rows = experiment.loras(seed), experiment.alpha_rows(seed)

        def learn(n: int, options: dict):
            return learn_alphas(model, loras, rows, seed=seed, max_steps=n, **options)

        def loss(learned) -> float:
            return experiment.held_out_loss(merge(loras, "cat", weights=learned))

        def steps(options: dict) -> int:
            return next((n for n in STEPS if loss(learn(n, options)) <= wanted), STEPS[-1] + 1)

        wanted = experiment.learn(loras, rows, {"preset": "released"}, seed)[1]
        start = loss(learn(1, best | {"lr": 0.0}))
        ours = steps(best)
        return {
            "released_steps": -(-len(rows) // PRESETS["released"]["batch_size"]),
            "released_loss": wanted,
            "start_loss": start,
            "steps": ours,
            "steps_from_their_start": steps(theirs),
            "seconds": timed(lambda: learn(ours, best)),
            "released_seconds": timed(
                lambda: learn_alphas(model, loras, rows, seed=seed, preset="released")
            ),
        }

    def all_seeds() -> None:
        runs[:] = [search(seed) for seed in range(seeds)]

    benchmark.pedantic(all_seeds, rounds=1, iterations=1)
    ratios = [run["steps"] / run["released_steps"] for run in runs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    there = sum(run["start_loss"] <= run["released_loss"] for run in runs)
    same = [run["steps_from_their_start"] / run["released_steps"] for run in runs]
    faster = statistics.median(run["seconds"] / run["released_seconds"] for run in runs)
    note = (
        f"hard math, mini base, {seeds} seeds, steps of ours (batches of {best['batch_size']}): "
        f"{_listed(runs, 'steps')} of {runs[0]['released_steps']} (of "
        f"{PRESETS['released']['batch_size']}); in {there} seeds our start alone is there; from "
        f"their own start with lr {theirs['lr']:g}: {_listed(runs, 'steps_from_their_start')} "
        f"(median ratio {statistics.median(same):.3f}); seconds {faster:.3f} of theirs"
    )
    figure("alpha_steps", middle, low=low, high=high, note=note, seeds=runs)


def _listed(runs: list[dict], field: str) -> str:
    return ", ".join(str(run[field]) for run in runs)
