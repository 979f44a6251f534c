"""``lorasoups fit``: learn CAT's alphas for one's own LoRAs, and say whether they were worth it."""

import gc
import hashlib
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
from lorasoups.learning.alphas import Alphas, balanced, learn_alphas
from lorasoups.learning.cat import applied, start_logits
from lorasoups.learning.fitted import tuned_weight
from lorasoups.lora.adapters import CONFIG, check_target, save_lora
from lorasoups.lora.linalg import compress, energy_share
from lorasoups.lora.lora import LoRA, lora_digest
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
AS_GOOD = 0.05, 0.01  # a loss that is no more than this share, or so many nats, above the least
DEFAULTS = {"normalise": "none", "init": "ones", "granularity": "module", "batch_size": BATCH}
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
        names: of the LoRAs, for the report; numbers are added if they would be mistaken.
        lr: of the alphas (not LoRA's); None: of `GRID` the one with the least loss on the rows that
            are kept for that choice, after `TRIAL` epochs.
        rank: cut every soup to this rank, or to the rank with this share of the energy.
        scratch: a folder for checkpoints and finished trials: a run that was killed goes on.
        epochs, options: of `learn_alphas`; default one epoch in batches of 4.

    The report has ``methods`` (each with its held-out loss per skill, intervals over rows of this
    one fit, its difference to CAT, and per skill to the ``best``), ``ranks`` (loss of the soup at
    ranks that vLLM allows), ``alphas``, ``verdict`` (what to take) and ``notes`` (what to look at).
    Raises SoupError as `learn_alphas` and `merge`.
    """
    if len(loras) != len(data) or len(loras) < 2:
        what = f"{len(loras)} LoRAs and {len(data)} sets of rows"
        raise SoupError(f"{what}: fit; give two LoRAs or more, and the rows of each")
    names = list(names) or [f"LoRA {i + 1}" for i in range(len(loras))]
    if len({*names, "base", CAT, *SIMPLER}) < len(names) + 2 + len(SIMPLER):
        names = [f"LoRA {i}: {name}" for i, name in enumerate(names, start=1)]
    train = balanced([own.train for own in data])
    how = DEFAULTS | options

    def learned(rate: float, length: float) -> Alphas:
        place = scratch and scratch / f"lr {rate:g} epochs {length:g}"
        ended = place and place.with_name(f"{place.name}.json")
        if ended and ended.is_file():
            return Alphas.from_json(ended)
        found = learn_alphas(model, loras, train, lr=rate, epochs=length, checkpoints=place, **how)
        if ended:
            found.to_json(ended)
        return found

    tried = []
    for rate in GRID if lr is None else ():
        with applied(model, merge(loras, "cat", weights=learned(rate, min(TRIAL, epochs)))) as soup:
            loss = sum(heldout_loss(soup, own.choice, EVALUATED) for own in data) / len(data)
        tried.append({"lr": rate, "loss": loss})
    rate = min(tried, key=lambda e: e["loss"])["lr"] if tried else lr
    alphas = learned(rate, epochs)
    fitted_on = [row for own in data for row in own.train[:TUNED_ROWS]]
    weight, _ = tuned_weight(model, loras, fitted_on, EVALUATED, TUNED_CLOSE)
    k, whole = len(loras), merge(loras, "cat", weights=alphas)
    shares = {AVERAGE: 1 / k, SUM: 1.0, TUNED: weight}
    soups = {"base": None} | dict(zip(names, loras, strict=True))
    soups |= {n: _cut(merge(loras, "cat", weights=[w] * k), rank) for n, w in shares.items()}
    soups[CAT] = soup = _cut(whole, rank)
    losses = {name: _losses(model, lora, data) for name, lora in soups.items()}
    best = min(losses.keys() - {"base"}, key=lambda name: _mean(losses[name]))
    methods = [_entry(name, losses, best) for name in soups]
    lower = [r for r in VLLM_RANKS if r < whole.max_rank]
    ranks = {r: _mean(_losses(model, _cut(whole, r), data)) for r in lower}
    ranks[soup.max_rank] = _mean(losses[CAT])
    if soup is not whole:
        ranks[whole.max_rank] = _mean(_losses(model, whole, data))
    ranks = [{"rank": r, "loss": loss} for r, loss in sorted(ranks.items())]
    notes = [f"{own.name}: {own.told}" for own in data if own.told] + [
        f"{name} is not the best LoRA on its own rows: is --data in the order of the adapters?"
        for i, name in enumerate(names)
        if min(names, key=lambda other: ratio(*losses[other][i].T)[0]) != name
    ] + [f"{name} is a LoRA that PEFT made of {lora.provenance['converted_from']}"
         for name, lora in zip(names, loras, strict=True)
         if "converted_from" in lora.provenance] + [rule(names, losses)]  # fmt: skip
    report = {
        "schema": 1, "lorasoups": __version__, "adapters": names,
        "data": [{"name": own.name, "train": len(own.train), "held_out": len(own.held_out)}
                 for own in data],
        "alphas": {"lr": rate, "epochs": epochs, "tried": tried, "steps": len(alphas.history),
                   **{name: how[name] for name in ("normalise", "init", "granularity")},
                   "values": {m: [round(float(a), 6) if m in lora.modules else None
                                  for a, lora in zip(v, loras, strict=True)]
                              for m, v in alphas.items()}},
        "sum_weight": weight, "rank": soup.max_rank, "methods": methods, "ranks": ranks,
        "best": best, "notes": notes,
    }  # fmt: skip
    return Fitted(soup, alphas, report | {"verdict": advice(report)})


def _cut(lora: LoRA, rank: int | float | None) -> LoRA:
    return lora if rank is None else lora.each(lambda factors: compress(factors, rank))


def _losses(model: Any, lora: LoRA | None, data: Sequence[Data]) -> list[np.ndarray]:
    """Of each skill the losses of its held-out rows, float64 [rows, 2] (see `row_losses`)."""
    with applied(model, lora) as changed:
        return [row_losses(changed, own.held_out, EVALUATED).numpy() for own in data]


def _mean(losses: list[np.ndarray]) -> float:
    """Mean over skills of the loss per token."""
    return sum(ratio(*table.T)[0] for table in losses) / len(losses)


def _entry(name: str, losses: dict[str, list[np.ndarray]], best: str) -> dict:
    """A method's loss per skill with its interval, their mean, and what it is above others."""
    return {"name": name, "losses": [_interval([ratio(*table.T)]) for table in losses[name]],
            "mean": _mean(losses[name]), "minus_cat": _interval(_above(losses[name], losses[CAT])),
            "minus_best": [_interval([p]) for p in _above(losses[name], losses[best])]}  # fmt: skip


def _above(losses: list[np.ndarray], rival: list[np.ndarray]) -> list[tuple[float, float, float]]:
    """Of each skill what a method's loss is above another's: parts for `_interval`."""
    return [ratio(a[:, 0] - b[:, 0], b[:, 1]) for a, b in zip(losses, rival, strict=True)]


def _interval(parts: list[tuple[float, float, float]]) -> list[float]:
    """The mean of independent parts (mean, standard error, degrees of freedom), lo and hi."""
    k = len(parts)
    mean, variance = sum(m for m, _, _ in parts) / k, sum(e**2 for _, e, _ in parts) / k**2
    squares = sum((e / k) ** 4 / df for _, e, df in parts)
    df = variance**2 / squares if squares else 1.0  # Welch and Satterthwaite
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, df)) * variance**0.5
    return [mean, mean - half, mean + half]


def advice(report: dict) -> str:
    """What to take, in one sentence: the simplest that is as good as the best on every skill.

    As good: the interval of its loss minus the best's ends below `AS_GOOD`. That few rows show no
    difference is not enough.
    """
    by_name, k = {entry["name"]: entry for entry in report["methods"]}, len(report["adapters"])
    weights = {SUM: 1.0, AVERAGE: round(1 / k, 4), TUNED: round(report["sum_weight"], 4)}
    least = [loss for loss, _, _ in by_name[report["best"]]["losses"]]
    for name in (*report["adapters"], *SIMPLER):
        pairs = zip(by_name[name]["minus_best"], least, strict=True)
        if all(hi <= max(AS_GOOD[0] * loss, AS_GOOD[1]) for (_, _, hi), loss in pairs):
            weight = f" {weights[name]:g}" * k if name in weights else ""
            merged = f"Take it: lorasoups merge ... --weights{weight}."
            cure = merged if weight else "Take it alone."
            if name == report["best"]:
                return f"The {name} has the least held-out loss. {cure}"
            return (
                f"The {name} is nearly as good: on every skill its loss is at most {AS_GOOD[0]:.0%}"
                f" or {AS_GOOD[1]} nats above that of the best, {report['best']}. {cure}"
            )
    rival = min(SIMPLER, key=lambda name: by_name[name]["mean"])
    diff, lo, hi = by_name[rival]["minus_cat"]
    apart = f"{diff:+.4f} nats per token [{lo:+.4f}, {hi:+.4f}]"
    if report["best"] != CAT or any(by_name[name]["minus_cat"][1] <= 0 for name in SIMPLER):
        return (
            f"These rows do not decide: {report['best']} has the least loss, and the {rival} minus "
            f"CAT is {apart}. Give more rows; until then take CAT."
        )
    return (
        f"CAT is better than every simpler merge: the loss of the best of them, the {rival}, minus "
        f"CAT's is {apart}. Take CAT."
    )


def rule(names: Sequence[str], losses: dict[str, list[np.ndarray]]) -> str:
    """Which of CAT and the plain sum for a task that needs all skills (docs/results.md, E1)."""
    told = []
    for name, part in zip(names, _above(losses[CAT], losses[SUM]), strict=True):
        _, lo, hi = _interval([part])
        told.append(f"{name}: {CAT if hi < 0 else SUM if lo > 0 else 'not told apart'}")
    asked = f"CAT or {SUM} for a task that needs all skills? By the LoRA that writes its answers"
    return f"{asked}: {'; '.join(told)} (a rule of thumb: docs/results.md)."


def estimate(model: Any, loras: Sequence[LoRA], data: Sequence[Data], batch: int) -> dict:
    """What a step of the alphas and an evaluated row take here, and the memory of the longest rows.

    Times are of rows of middle length. Returns ``step``, ``row`` (seconds) and ``bytes``.
    """
    device = next(model.parameters()).device.type
    rows = sorted((row for own in data for row in own.train), key=lambda r: len(r["input_ids"]))
    first = max(0, len(rows) // 2 - batch)
    middle = rows[first : first + 2 * batch]

    def steps(n: int, of: list[dict]) -> None:
        learn_alphas(model, loras, of, lr=0.01, max_steps=n, batch_size=batch, progress=False)

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
    check_target(target, overwrite, (target / CONFIG).is_file(), "adapter", adapters)
    known = DEFAULTS | options
    start_logits(known["normalise"], known["init"], 1, len(adapters))
    energy_share(known["rank"] if known.get("rank") is not None else 1)
    started = time.monotonic()
    model, tokenizer, info = load_base(base, dtype=dtype, device=device, four_bit=four_bit)
    model.requires_grad_(False)
    loras = [fetch_lora(str(place), model, info["name"]) for place in adapters]
    named = loras[0].base_model or info["name"]  # others may spell it another way
    loras = [LoRA(lora.modules, named, lora.provenance) for lora in loras]
    names = [Path(place).name for place in adapters]
    how = {"limit": limit, "share": share, "max_length": max_length}
    rows = [read_data(one, tokenizer, seed=options.get("seed", 0), **how) for one in data]
    train = len(balanced([own.train for own in rows]))
    batch, epochs = known["batch_size"], options.get("epochs", EPOCHS)
    one = estimate(model, loras, rows, batch)
    trials = 0 if options.get("lr") is not None else len(GRID)
    steps = (trials * min(TRIAL, epochs) + epochs) * train / batch
    told = steps * one["step"] + _evaluated(loras, rows, trials) * one["row"]
    told = f"{told / 60:.0f} min" if told > 90 else f"{told:.0f} s"
    say(f"{train} rows to learn from (as many of each skill), {len(loras)} LoRAs: about {told}, "
        f"{one['bytes'] / 1e9:.1f} GB; interrupted, the same command goes on")  # fmt: skip
    work = target.with_name(f"{target.name}.work")
    seen = hashlib.sha256(str([own.train for own in rows]).encode()).hexdigest()
    settings = {"base": info["sha256"], "adapters": [lora_digest(lora) for lora in loras],
                "rows": seen, "dtype": dtype, **options, "rank": None}  # fmt: skip
    _same_run(work, settings)
    fitted = fit(model, loras, rows, names=names, scratch=work, **options)
    seconds_taken = round(time.monotonic() - started, 1)
    report = fitted.report | {"base": info["name"], "seconds": seconds_taken,
                              "peak_bytes": one["bytes"], "local": Path(base).is_dir()}  # fmt: skip
    alphas = json_text(fitted.alphas.content(), target / "alphas.json")
    texts = {"alphas.json": alphas, "report.json": json_text(report, target / "report.json"),
             "report.html": page(report), "README.md": card(report)}  # fmt: skip
    save_lora(fitted.soup, target, overwrite=overwrite, more=texts)
    shutil.rmtree(work, ignore_errors=True)
    say(f"\n{text(report)}\n\n{out}: {fitted.soup!r}; look at report.html in it")
    del model, loras, fitted
    gc.collect()  # it is loaded anew
    return verify(target, base, say=say) if check else VERIFIED


def _same_run(work: Path, settings: dict) -> None:
    """Checkpoints of other settings go: they could not be used. SoupError for another folder."""
    note, text = work / "settings.json", json_text(settings, work)
    if work.exists() and not note.is_file():
        raise SoupError(f"no work folder of fit: {work}; move it, or choose another --out")
    if not note.is_file() or note.read_text(encoding="utf-8") != text:
        shutil.rmtree(work, ignore_errors=True)
        write_text_atomic(note, text)
