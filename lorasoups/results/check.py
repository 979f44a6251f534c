"""``lorasoups check``: every row of the results files, computed again from the items' verdicts.

Comparisons are not stored: tables and sentences compute them from the verdicts. What cannot be
computed (a method without verdicts) is a finding like any other, never an error.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasoups.errors import SoupError
from lorasoups.paths import Folders
from lorasoups.results import stats
from lorasoups.results.file import read_results
from lorasoups.results.reading import Results, matrix

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
    """All findings on ``data/results/<profile>/*.json`` of a project; SoupError without any."""
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
    """The rows of one (valid) file."""
    wrong = [text for row in results["rows"] for text in _row(results, row)]
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    what = f"{name}: {len(results['rows'])} rows recomputed from the verdicts"
    yield Finding(what, not wrong, "; ".join(wrong[:SHOWN]) + more)


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
    stored, fresh = (row["accuracy"], *row["ci"]), (correct / n, lo, hi)
    for field, old, new in zip(("accuracy", "lo", "hi"), stored, fresh, strict=True):
        if abs(old - new) > CLOSE:
            yield f"{where}: {field} is {old}, computed again {new}"
    if row["outcomes"] and row["outcomes"].get("ok", 0) != correct:
        yield f"{where}: {row['outcomes'].get('ok', 0)} outcomes 'ok', {correct} correct"
