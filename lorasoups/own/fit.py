"""``lorasoups fit``: learn CAT's alphas for one's own LoRAs, and say whether they were worth it."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from lorasoups import __version__
from lorasoups.errors import SoupError
from lorasoups.files import json_text, write_text_atomic
from lorasoups.learning.alphas import Alphas, learn_alphas
from lorasoups.learning.cat import applied
from lorasoups.learning.tuned_sum import tuned_weight
from lorasoups.lora.adapters import CONFIG, check_target, save_lora
from lorasoups.lora.linalg import compress
from lorasoups.lora.lora import LoRA
from lorasoups.lora.merging import merge
from lorasoups.lora.serving import VLLM_RANKS
from lorasoups.models.base import load_base
from lorasoups.models.batching import heldout_loss, row_losses
from lorasoups.models.devices import peak_memory, seconds
from lorasoups.models.fetch import fetch_lora
from lorasoups.own.page import card, page, text
from lorasoups.own.rows import Data, read_data
from lorasoups.own.verify import VERIFIED, verify
from lorasoups.results.stats import LEVEL, ratio

GRID = (0.03, 0.1)  # learning rates that are tried unless one is given
TRIAL, EPOCHS, BATCH = 0.25, 1.0, 4  # epochs of a trial and of what is kept; rows of a step
TUNED_ROWS, TUNED_CLOSE = 12, 0.05  # of each skill: what the sum's one weight is fitted on, to this
EVALUATED = 8  # rows at a time
CAT, SUM, AVERAGE, TUNED = "CAT", "plain sum", "average", "sum, one weight"
SIMPLER = (SUM, AVERAGE, TUNED)


@dataclass(frozen=True)
class Fitted:
    """A soup with the alphas that made it and the report on it (plain JSON values)."""

    soup: LoRA
    alphas: Alphas
    report: dict


def fit(
    model: Any, loras: Sequence[LoRA], data: Sequence[Data], *, names: Sequence[str] = (),
    lr: float | None = None, epochs: float = EPOCHS, rank: int | float | None = None,
    scratch: Path | None = None, **options: Any,
) -> Fitted:  # fmt: skip
    """Learn a soup of k LoRAs on their own data, and compare it with simpler ones.

    Args:
        model: the frozen base, in eval mode; it comes back as it was.
        loras, data: of each skill its LoRA and its rows, in one order.
        names: of the LoRAs, for the report.
        lr: of the alphas (not LoRA's); None: of `GRID` the one with the least loss on the rows that
            are kept for that choice, after `TRIAL` epochs.
        rank: cut the soup to this rank, or to the rank with this share of the energy.
        scratch: a folder for checkpoints and finished trials: a run that was killed goes on.
        epochs, options: of `learn_alphas`; default one epoch in batches of 4.

    The report has ``methods`` (each with its held-out loss per skill, intervals over rows, and its
    difference to CAT), ``ranks`` (loss of the soup at ranks that vLLM allows), ``alphas``,
    ``verdict`` (what to take) and ``steps``. Raises SoupError as `learn_alphas` and `merge`.
    """
    if len(loras) != len(data) or len(loras) < 2:
        what = f"{len(loras)} LoRAs and {len(data)} sets of rows"
        raise SoupError(f"{what}: fit; give two LoRAs or more, and the rows of each")
    names = list(names) or [f"LoRA {i + 1}" for i in range(len(loras))]
    train = [row for own in data for row in own.train]
    how = {
        "normalise": "none",
        "init": "ones",
        "granularity": "module",
        "batch_size": BATCH,
    } | options

    def learned(rate: float, length: float) -> Alphas:
        place = scratch and scratch / f"lr {rate:g} epochs {length:g}"
        return learn_alphas(model, loras, train, lr=rate, epochs=length, checkpoints=place, **how)

    def chosen_on(lora: LoRA) -> float:
        with applied(model, lora) as soup:
            return sum(heldout_loss(soup, own.choice, EVALUATED) for own in data) / len(data)

    tried = []
    for rate in GRID if lr is None else ():
        trial = merge(loras, "cat", weights=learned(rate, min(TRIAL, epochs)))
        tried.append({"lr": rate, "loss": chosen_on(trial)})
    rate = min(tried, key=lambda e: e["loss"])["lr"] if tried else lr
    alphas = learned(rate, epochs)
    fitted_on = [row for own in data for row in own.train[:TUNED_ROWS]]
    weight, _ = tuned_weight(model, loras, fitted_on, EVALUATED, TUNED_CLOSE)
    k, whole = len(loras), merge(loras, "cat", weights=alphas)
    soup = whole if rank is None else _cut(whole, rank)
    soups = {
        "base": None, **dict(zip(names, loras, strict=True)),
        AVERAGE: merge(loras, "cat"), SUM: merge(loras, "cat", weights=[1.0] * k),
        TUNED: merge(loras, "cat", weights=[weight] * k), CAT: soup,
    }  # fmt: skip
    losses = {name: _losses(model, lora, data) for name, lora in soups.items()}
    methods = [_entry(name, losses) for name in soups]
    ranks = [
        {"rank": r, "loss": _mean(_losses(model, _cut(whole, r), data))}
        for r in VLLM_RANKS if r < whole.max_rank
    ]  # fmt: skip
    uncut = losses[CAT] if soup is whole else _losses(model, whole, data)
    ranks.append({"rank": whole.max_rank, "loss": _mean(uncut)})
    report = {
        "schema": 1, "lorasoups": __version__, "adapters": names,
        "data": [{"name": own.name, "train": len(own.train), "held_out": len(own.held_out)}
                 for own in data],
        "alphas": {"lr": rate, "epochs": epochs, "tried": tried, "steps": len(alphas.history),
                   **{name: how[name] for name in ("normalise", "init", "granularity")},
                   "values": {m: [round(float(a), 6) for a in v] for m, v in alphas.items()}},
        "sum_weight": weight, "rank": soup.max_rank, "methods": methods, "ranks": ranks,
    }  # fmt: skip
    return Fitted(soup, alphas, report | {"verdict": advice(report)})


def _cut(lora: LoRA, rank: int | float) -> LoRA:
    return lora.each(lambda factors: compress(factors, rank))


def _losses(model: Any, lora: LoRA | None, data: Sequence[Data]) -> list[np.ndarray]:
    """Of each skill the losses of its held-out rows, float64 [rows, 2] (see `row_losses`)."""
    with applied(model, lora) as changed:
        return [row_losses(changed, own.held_out, EVALUATED).numpy() for own in data]


def _mean(losses: list[np.ndarray]) -> float:
    """Mean over skills of the loss per token."""
    return sum(ratio(*table.T)[0] for table in losses) / len(losses)


def _entry(name: str, losses: dict[str, list[np.ndarray]]) -> dict:
    """A method's loss per skill with its interval, their mean, and their difference to CAT."""
    per_skill = [_interval([ratio(*table.T)]) for table in losses[name]]
    pairs = zip(losses[name], losses[CAT], strict=True)
    apart = [ratio(own[:, 0] - cat[:, 0], cat[:, 1]) for own, cat in pairs]
    return {"name": name, "losses": per_skill, "mean": _mean(losses[name]),
            "minus_cat": _interval(apart)}  # fmt: skip


def _interval(parts: list[tuple[float, float, float]]) -> list[float]:
    """The mean of independent parts (mean, standard error, degrees of freedom), lo and hi."""
    k = len(parts)
    mean, variance = sum(m for m, _, _ in parts) / k, sum(e**2 for _, e, _ in parts) / k**2
    squares = sum((e / k) ** 4 / df for _, e, df in parts)
    df = variance**2 / squares if squares else 1.0  # Welch and Satterthwaite
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, df)) * variance**0.5
    return [mean, mean - half, mean + half]


def advice(report: dict) -> str:
    """What to take, in one sentence: the simplest merge that is not told apart from the best."""
    by_name = {entry["name"]: entry for entry in report["methods"]}
    for name in SIMPLER:
        diff, lo, hi = by_name[name]["minus_cat"]
        if lo <= 0:
            weight = f" ({report['sum_weight']:.2f})" if name == TUNED else ""
            more = "better" if hi < 0 else "as good, as far as these rows tell"
            return (
                f"The {name}{weight} is {more}: its held-out loss minus CAT's is {diff:+.4f} nats "
                f"per token [{lo:+.4f}, {hi:+.4f}]. Take it."
            )
    best = min(SIMPLER, key=lambda name: by_name[name]["mean"])
    diff, lo, hi = by_name[best]["minus_cat"]
    return (
        f"CAT is better than every simpler merge; the best of them, the {best}, loses {diff:.4f} "
        f"nats per token [{lo:+.4f}, {hi:+.4f}] against it. Take CAT."
    )


def estimate(model: Any, loras: Sequence[LoRA], data: Sequence[Data], batch: int) -> dict:
    """What a step of the alphas and an evaluated row take here, and the memory of the longest rows.

    Times are of rows of middle length. Returns ``step``, ``row`` (seconds) and ``bytes``.
    """
    device = next(model.parameters()).device.type
    rows = sorted((row for own in data for row in own.train), key=lambda r: len(r["input_ids"]))
    first = max(0, len(rows) // 2 - batch)
    middle = rows[first : first + 2 * batch]

    def steps(n: int, of: list[dict]) -> None:
        how = {"max_steps": n, "batch_size": batch, "progress": False}
        learn_alphas(model, loras, of, lr=0.01, **how)

    with peak_memory(device) as peak:
        steps(1, rows[-batch:])
        one = seconds(lambda: steps(1, middle), device)
        both = seconds(lambda: steps(3, middle), device)
        row = seconds(lambda: heldout_loss(model, middle, EVALUATED), device) / len(middle)
    return {"step": max(0.05 * one, (both - one) / 2), "row": row, "bytes": peak.bytes}


def _evaluated(loras: Sequence[LoRA], data: Sequence[Data], trials: int) -> int:
    """How many rows `fit` evaluates: for trials, the one weight (about ten times), the report."""
    held_out, choice = (sum(len(getattr(d, part)) for d in data) for part in ("held_out", "choice"))
    ranks = sum(r < sum(lora.max_rank for lora in loras) for r in VLLM_RANKS)
    return trials * choice + 10 * TUNED_ROWS * len(data) + (len(loras) + 5 + ranks) * held_out


def fit_folder(
    adapters: Sequence[str], base: str, data: Sequence[str], out: str | Path, *,
    limit: int | None = None, share: float = 0.2, max_length: int = 512, dtype: str = "float32",
    device: str = "auto", four_bit: bool = False, overwrite: bool = False,
    check: bool = True, say: Callable[[str], Any] = print, **options: Any,
) -> int:  # fmt: skip
    """`fit` from names to a folder: adapters, base and data are loaded, the soup is written.

    ``out`` becomes a PEFT folder with ``alphas.json``, ``report.json``, ``report.html`` and a model
    card, whole or not at all; ``<out>.work`` keeps checkpoints until then. ``check``: load it with
    stock PEFT afterwards. Returns `verify`'s exit code. Raises SoupError.
    """
    if len(adapters) != len(data):
        what = f"{len(adapters)} adapters, {len(data)} data files"
        raise SoupError(f"{what}: fit; give --data one file for each adapter, in their order")
    target = Path(out).resolve()
    check_target(target, overwrite, (target / CONFIG).is_file(), "adapter")
    started = time.monotonic()
    model, tokenizer, info = load_base(base, dtype=dtype, device=device, four_bit=four_bit)
    model.requires_grad_(False)
    loras = [fetch_lora(str(place), model, info["name"]) for place in adapters]
    adapters, data = list(map(str, adapters)), list(map(str, data))
    names = [Path(place).name for place in adapters]
    names = names if len(set(names)) == len(names) else adapters
    how = {"limit": limit, "share": share, "max_length": max_length}
    rows = [read_data(one, tokenizer, seed=options.get("seed", 0), **how) for one in data]
    train = sum(len(own.train) for own in rows)
    batch, epochs = options.get("batch_size", BATCH), options.get("epochs", EPOCHS)
    one = estimate(model, loras, rows, batch)
    trials = 0 if options.get("lr") is not None else len(GRID)
    steps = (trials * min(TRIAL, epochs) + epochs) * train / batch
    told = (steps * one["step"] + _evaluated(loras, rows, trials) * one["row"]) / 60
    say(f"{train} rows to learn from, {len(loras)} LoRAs: about {told:.0f} min, "
        f"{one['bytes'] / 1e9:.1f} GB")  # fmt: skip
    work = target.with_name(f"{target.name}.work")
    settings = {"base": info["sha256"], "adapters": adapters, "data": data, **how, **options}
    _same_run(work, settings)
    fitted = fit(model, loras, rows, names=names, scratch=work, **options)
    seconds_taken = round(time.monotonic() - started, 1)
    report = fitted.report | {"base": info["name"], "seconds": seconds_taken,
                              "peak_bytes": one["bytes"]}  # fmt: skip
    alphas = json_text(fitted.alphas.content(), target / "alphas.json")
    texts = {"alphas.json": alphas, "report.json": json_text(report, target / "report.json"),
             "report.html": page(report), "README.md": card(report)}  # fmt: skip
    soup = LoRA(fitted.soup.modules, loras[0].base_model or info["name"], fitted.soup.provenance)
    save_lora(soup, target, overwrite=overwrite, more=texts)
    shutil.rmtree(work, ignore_errors=True)
    say(f"\n{text(report)}\n\n{out}: {soup!r}; look at report.html in it")
    return verify(target, base, say=say) if check else VERIFIED


def _same_run(work: Path, settings: dict) -> None:
    """Checkpoints of other settings go: they could not be used."""
    note, text = work / "settings.json", json_text(settings, work)
    if not note.is_file() or note.read_text(encoding="utf-8") != text:
        shutil.rmtree(work, ignore_errors=True)
        write_text_atomic(note, text)
