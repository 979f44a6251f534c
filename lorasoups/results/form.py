"""The form of a results file: its fields, their types, and what must agree within it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.results.verdicts import unpack_verdicts

SCHEMA = 1

NUMBER = (int, float)
MAYBE = (int, float, type(None))  # null: could not be computed, e.g. from a single seed
TEXT = (str,)
MAYBE_TEXT = (str, type(None))
ANYTHING = (object,)

_TOP = {
    "schema": (int,),
    "profile": TEXT,
    "created": TEXT,
    "complete": (bool,),
    "provenance": (dict,),
    "config": (dict,),
    "rows": (list,),
    "items": (dict,),
    "comparisons": (list,),
    "superlinearity": (dict,),
    "alphas": (list,),
    "curves": (list,),
    "sweep": (list,),
    "skills": (list,),
    "timings": (dict,),
}
_OPTIONAL = {
    "experiment": TEXT,  # absent: hard_math
    "artifacts": (dict,),  # whatever names them -> short sha256
    "decontamination": (dict,),  # what training and test items share, see decontamination.report
    "views": (dict,),  # task -> view -> which items belong to it, packed like verdicts
}
_LISTS = {
    "rows": {
        "task": TEXT,
        "view": TEXT,
        "method": TEXT,
        "on": MAYBE_TEXT,
        "weights": ANYTHING,
        "seed": (int, type(None)),
        "n": (int,),
        "correct": (int,),
        "accuracy": NUMBER,
        "ci": (list,),
        "outcomes": (dict,),
        "extra": (dict,),
    },
    "comparisons": {
        "task": TEXT,
        "a": TEXT,
        "b": TEXT,
        "diff": NUMBER,
        "lo": MAYBE,
        "hi": MAYBE,
        "p": MAYBE,
        "p_holm": MAYBE,
        "wins": ANYTHING,
    },
    "alphas": {
        "seed": (int,),
        "preset": TEXT,
        "normalise": TEXT,
        "module": TEXT,
        "values": (list,),
    },
    "curves": {
        "seed": (int,),
        "preset": TEXT,
        "step": (int,),
        "loss": NUMBER,
        "alpha_mean": (list,),
        "alpha_moved": NUMBER,
    },
    "sweep": {
        "seed": (int,),
        "normalise": TEXT,
        "init": TEXT,
        "lr": NUMBER,
        "heldout_loss": NUMBER,
        "chosen": (bool,),
    },
    "skills": {
        "seed": (int,),
        "name": TEXT,
        "steps": (int,),
        "loss": NUMBER,
        "seconds": NUMBER,
        "tokens_per_s": NUMBER,
    },
}
_SUPERLINEARITY = {
    "gain_soup": NUMBER,
    "sum_of_gains": NUMBER,
    "diff": NUMBER,
    "lo": MAYBE,
    "hi": MAYBE,
}
_PROVENANCE = {
    "versions": (dict,),
    "device": TEXT,
    "cpu": TEXT,
    "git": (dict, type(None)),
    "base_sha256": MAYBE_TEXT,
    "world_version": ANYTHING,
    "wall_s": MAYBE,
}


def validate(results: Any, where: str = "results") -> dict[str, Any]:
    """Check a results file's content; returns it.

    ``experiment``, ``artifacts`` and ``views`` may be absent. Besides presence and types of the
    fields of the schema: ``accuracy == correct / n``, outcome counts that sum to ``n``, intervals
    around the accuracy, and verdict bit strings in ``items`` with as many ones as the row of the
    same task, method and seed has correct answers.

    Args:
        results: the parsed JSON.
        where: what error messages call it (a file name).

    Raises:
        SoupError: naming the field, e.g. ``rows[3].ci``.
    """
    _check_fields(results, _TOP, where, "")
    given = {name: types for name, types in _OPTIONAL.items() if name in results}
    _check_fields(results, given, where, "")
    if results["schema"] != SCHEMA:
        raise SoupError(
            f"schema {results['schema']}, this version reads {SCHEMA}: {where}; "
            "make the file again with `lorasoups reproduce`"
        )
    _check_fields(results["provenance"], _PROVENANCE, where, "provenance.")
    if results["superlinearity"]:
        _check_fields(results["superlinearity"], _SUPERLINEARITY, where, "superlinearity.")
    for name, fields in _LISTS.items():
        for index, entry in enumerate(results[name]):
            _check_fields(entry, fields, where, f"{name}[{index}].")
    for index, row in enumerate(results["rows"]):
        _check_row(row, where, f"rows[{index}]")
    _check_items(results, where)
    if results["complete"] and not results["rows"]:
        raise SoupError(f"marked complete without rows: {where}; run the notebooks again")
    return results


def _fail(what: str, where: str, field: str) -> None:
    raise SoupError(f"{what}: {where}, field {field}; make the file again or correct its writer")


def _check_fields(value: Any, fields: Mapping[str, tuple], where: str, prefix: str) -> None:
    if not isinstance(value, dict):
        _fail("not a JSON object", where, prefix.rstrip(".") or "(top level)")
    for name, types in fields.items():
        field = prefix + name
        if name not in value:
            _fail("missing field", where, field)
        item = value[name]
        is_bool_as_number = isinstance(item, bool) and bool not in types and types != ANYTHING
        if not isinstance(item, types) or is_bool_as_number:
            names = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            _fail(f"{type(item).__name__} instead of {names}", where, field)
        if isinstance(item, float) and not math.isfinite(item):
            _fail("not a finite number (write null)", where, field)


def _check_row(row: Mapping[str, Any], where: str, field: str) -> None:
    n, correct, ci = row["n"], row["correct"], row["ci"]
    if n <= 0 or not 0 <= correct <= n:
        _fail(f"{correct} correct of {n}", where, f"{field}.correct")
    if abs(row["accuracy"] - correct / n) > 1e-6:
        _fail(f"accuracy {row['accuracy']} is not {correct}/{n}", where, f"{field}.accuracy")
    numbers = all(isinstance(end, NUMBER) and not isinstance(end, bool) for end in ci)
    if len(ci) != 2 or not numbers or not ci[0] - 1e-6 <= row["accuracy"] <= ci[1] + 1e-6:
        _fail("no interval [lo, hi] around the accuracy", where, f"{field}.ci")
    if row["outcomes"] and sum(row["outcomes"].values()) != n:
        _fail(f"outcome counts do not sum to n = {n}", where, f"{field}.outcomes")
    _check_fields(row["extra"], dict.fromkeys(row["extra"], MAYBE), where, f"{field}.extra.")


def _check_items(results: Mapping[str, Any], where: str) -> None:
    rows = {
        (row["task"], row["method"], str(row["seed"])): row
        for row in results["rows"]
        if row["view"] == "all"
    }
    for task, methods in results["items"].items():
        _check_fields(methods, dict.fromkeys(methods, (dict,)), where, f"items.{task}.")
        for method, seeds in methods.items():
            for seed, text in seeds.items():
                field = f"items.{task}.{method}.{seed}"
                row = rows.get((task, method, seed))
                if row is None:
                    _fail("verdicts without a row of view 'all'", where, field)
                try:
                    ones = int(unpack_verdicts(text, row["n"]).sum())
                except SoupError as error:
                    _fail(str(error).split(";")[0], where, field)
                if ones != row["correct"]:
                    _fail(f"{ones} verdicts, {row['correct']} correct in its row", where, field)
