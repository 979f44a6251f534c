"""``lorasoups check``: every number of the results files, computed again from the items' verdicts.

What cannot be computed (a method without verdicts) is a finding like any other, never an error.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.paths import Folders
from lorasoups.results import stats
from lorasoups.results.file import find, read_results
from lorasoups.results.reading import Results, matrix, pair

CLOSE = 1e-9  # the same code on the same verdicts; only a library's last digits may change
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: what, whether it holds, and what the results say."""

    what: str
    ok: bool
    says: str = ""

    def __str__(self) -> str:
        return f"{'OK  ' if self.ok else 'FAIL'} {self.what}{': ' if self.says else ''}{self.says}"


def report(profile: str = "mini", root: Path | str | None = None) -> int:
    """Print every finding, failures last; exit code 0 if all hold, else 1."""
    findings = sorted(check(profile, root), key=lambda finding: not finding.ok)
    print(*findings, sep="\n")
    bad = sum(not finding.ok for finding in findings)
    print(f"{len(findings) - bad} hold, {bad} do not")
    return int(bad > 0)


def check(profile: str = "mini", root: Path | str | None = None) -> Iterator[Finding]:
    """All findings on ``data/results/<profile>/*.json`` of a project.

    Raises SoupError if there are no results.
    """
    folder = Folders(root=root).results / profile
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise SoupError(f"no results: {folder}; run `lorasoups reproduce` first")
    for path in paths:
        what = f"{path.stem}: complete, and of the schema"
        try:
            results = read_results(path)
        except SoupError as error:
            yield Finding(what, False, str(error))
            continue
        name = (results["profile"], results.get("experiment", "hard_math"))
        trouble = "" if results["complete"] else "a run that has not ended"
        if name != (profile, path.stem):
            trouble = f"it says that it is {name[1]} of profile {name[0]}"
        yield Finding(what, not trouble, trouble)
        yield from derived(path.stem, results)


def derived(name: str, results: Results) -> Iterator[Finding]:
    """Rows, comparisons with Holm's correction, and super-linearity of one (valid) file."""
    rows, comparisons = results["rows"], results["comparisons"]
    checked = {
        f"{len(rows)} rows": [text for row in rows for text in _row(results, row)],
        f"{len(comparisons)} comparisons": list(_comparisons(results)),
    }
    if results["superlinearity"]:
        checked["super-linearity"] = list(_superlinearity(results))
    for what, wrong in checked.items():
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        says = "; ".join(wrong[:SHOWN]) + more
        yield Finding(f"{name}: {what} recomputed from the verdicts", not wrong, says)


def _row(results: Results, row: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a row. Only views that the file lists are compared with the verdicts."""
    n, correct = row["n"], row["correct"]
    where = f"{row['method']} on {row['task']} ({row['view']}), seed {row['seed']}"
    if row["view"] in ("all", *results.get("views", {}).get(row["task"], {})):
        try:
            right = matrix(results, row["task"], row["method"], row["view"], [str(row["seed"])])
        except SoupError as error:
            yield str(error)
            return
        if (right.size, int(right.sum())) != (n, correct):
            yield f"{where}: {correct} of {n}, the verdicts say {int(right.sum())} of {right.size}"
    lo, hi = stats.wilson(correct, n)
    fresh = {"accuracy": correct / n, "lo": lo, "hi": hi}
    stored = {"accuracy": row["accuracy"], "lo": row["ci"][0], "hi": row["ci"][1]}
    yield from _differences(where, stored, fresh, fresh)
    if row["outcomes"] and row["outcomes"].get("ok", 0) != correct:
        yield f"{where}: {row['outcomes'].get('ok', 0)} outcomes 'ok', {correct} correct"


def _comparisons(results: Results) -> Iterator[str]:
    """What is wrong with comparisons; Holm's correction is honest only over all methods."""
    entries, ps = results["comparisons"], []
    for entry in entries:
        where = f"{entry['a']} minus {entry['b']}"
        try:
            fresh = vars(stats.paired(*pair(results, entry["task"], entry["a"], entry["b"])))
        except SoupError as error:
            yield f"{where}: {error}"
            continue
        ps.append(fresh["p"])
        names = ("diff", "lo", "hi", "p", "wins", *(t for t in ("t_lo", "t_hi") if t in entry))
        yield from _differences(where, entry, fresh, names)
    for entry, p in zip(entries, stats.holm(ps) if len(ps) == len(entries) else (), strict=False):
        where = f"{entry['a']} minus {entry['b']}"
        yield from _differences(where, entry, {"p_holm": p}, ["p_holm"])
    for task, a in dict.fromkeys((entry["task"], entry["a"]) for entry in entries):
        compared = {a, *(entry["b"] for entry in find(entries, task=task, a=a))}
        left_out = [m for m in results["items"].get(task, {}) if m not in compared]
        yield from (f"{a} minus {method}: not compared" for method in left_out)


def _superlinearity(results: Results) -> Iterator[str]:
    names = ("base", *results["config"]["skills"], "cat")
    try:
        tables = [matrix(results, results["config"]["target"], name) for name in names]
        fresh = vars(stats.superlinearity(*tables))
    except (SoupError, TypeError) as error:  # TypeError: not two skills
        yield str(error)
        return
    fields = ("gain_soup", "sum_of_gains", "diff", "lo", "hi")
    yield from _differences("soup", results["superlinearity"], fresh, fields)


def _differences(where: str, stored: Mapping, fresh: Mapping, names: Iterable) -> Iterator[str]:
    """Fields that are not what they should be; null is right where nothing can be computed."""
    for name in names:
        old, new = stored[name], fresh[name]
        same = old is new if old is None or new is None else abs(old - new) <= CLOSE
        if not same:
            yield f"{where}: {name} is {old}, computed again {new}"
