"""``lorasoups check``: everything that is said must follow from the results files of today.

Three kinds of things are checked. The files: accuracies, comparisons, Holm's correction and
super-linearity are computed again from the verdicts of the single items. The generated sentences:
the README's block and the sentences in the executed notebooks must be what the results give. The
written sentences: ``data/claims.json`` names each with the relation it asserts.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorasoups import claims, stats
from lorasoups.errors import SoupError
from lorasoups.notebook_files import read_notebook
from lorasoups.paths import Folders
from lorasoups.reading import Results, label
from lorasoups.results import find, read_results, unpack_verdicts
from lorasoups.tables import into_readme

CLOSE = 1e-9
STUDY_NOTEBOOKS = {
    "hard_math": "03_hard_math",
    "manual_qa": "04_manual_qa",
    "reading": "05_reading",
    "formats": "06_prompt_formats",
}
SENTENCES: tuple[Callable[[Results], str], ...] = (
    claims.summary,
    claims.against_skills,
    claims.against_static,
    claims.against_data_mix,
    claims.against_searched,
    claims.super_linear,
    claims.controls,
)


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
    found = list(check(profile, root))
    for finding in sorted(found, key=lambda f: not f.ok):
        print(finding)
    bad = sum(not finding.ok for finding in found)
    print(f"{len(found) - bad} hold, {bad} do not")
    return int(bad > 0)


def check(profile: str = "mini", root: Path | str | None = None) -> Iterator[Finding]:
    """All findings of a profile.

    Args:
        profile: its files are ``data/results/<profile>/*.json``.
        root: the project; default where we are.

    Raises:
        SoupError: there are no results, or ``data/claims.json`` cannot be read.
    """
    folders = Folders(root=root)
    paths = sorted((folders.results / profile).glob("*.json"))
    if not paths:
        raise SoupError(f"no results: {folders.results / profile}; run `lorasoups reproduce` first")
    known: dict[str, Results] = {}
    for path in paths:
        try:
            known[path.stem] = read_results(path)
        except SoupError as error:
            yield Finding(f"{path.name} can be read", False, str(error))
            continue
        yield from derived(path.stem, known[path.stem])
    if profile == "mini":
        yield from _generated(folders, known)
        yield from _written(folders, known)


# --- the files ----------------------------------------------------------------------------------


def matrix(results: Results, task: str, method: str) -> np.ndarray:
    """Verdicts [seeds, items], bool, from the packed items. KeyError where there are none."""
    seeds = results["items"][task][method]
    n = find(results["rows"], task=task, method=method, view="all")[0]["n"]
    return np.stack([unpack_verdicts(text, n) for _, text in sorted(seeds.items())])


def derived(name: str, results: Results) -> Iterator[Finding]:
    """Comparisons and super-linearity of one file, computed again."""
    wrong = []
    for entry in results["comparisons"]:
        pair = stats.paired(*(matrix(results, entry["task"], entry[s]) for s in ("a", "b")))
        if not _same(entry, vars(pair), ("diff", "lo", "hi", "p", "wins")):
            wrong.append(entry["b"])
    corrected = stats.holm([e["p"] for e in results["comparisons"]])
    wrong += [
        f"{e['b']} (Holm)"
        for e, p in zip(results["comparisons"], corrected, strict=True)
        if abs(e["p_holm"] - p) > CLOSE
    ]
    n = len(results["comparisons"])
    yield Finding(f"{name}: {n} comparisons follow from the verdicts", not wrong, ", ".join(wrong))
    if results["superlinearity"]:
        config = results["config"]
        names = ("base", *config["skills"], "cat")
        found = stats.superlinearity(*(matrix(results, config["target"], m) for m in names))
        same = _same(results["superlinearity"], vars(found), ("diff", "lo", "hi"))
        yield Finding(f"{name}: super-linearity follows from the verdicts", same)


def _same(stored: Mapping, fresh: Mapping, names: tuple[str, ...]) -> bool:
    return all(abs(stored[name] - fresh[name]) <= CLOSE for name in names)


# --- sentences that code wrote ------------------------------------------------------------------


def _generated(folders: Folders, known: Mapping[str, Results]) -> Iterator[Finding]:
    readme = (folders.project / "README.md").read_text(encoding="utf-8")
    if "hard_math" in known:
        try:
            today = into_readme(readme, known["hard_math"], known)
        except SoupError as error:
            yield Finding("README: generated results", False, str(error))
        else:
            yield Finding("README: generated results are today's", today == readme)
    for experiment, notebook in STUDY_NOTEBOOKS.items():
        path = folders.project / "notebooks" / f"{notebook}.ipynb"
        if experiment not in known or not path.exists():
            continue
        shown = _outputs(path)
        stale = [
            fn.__name__
            for fn in SENTENCES
            if fn(known[experiment]) and fn(known[experiment]) not in shown
        ]
        yield Finding(f"{notebook}: its sentences are today's", not stale, ", ".join(stale))


def _outputs(path: Path) -> str:
    """All text that a notebook's cells gave."""
    texts = []
    for cell in read_notebook(path).cells:
        for output in cell.get("outputs", []):
            texts.append(output.get("text", ""))
            data = output.get("data", {})
            texts.append(data.get("text/markdown", data.get("text/plain", "")))
    return "\n".join("".join(t) if isinstance(t, list) else t for t in texts)


# --- sentences that people wrote ----------------------------------------------------------------


def _written(folders: Folders, known: Mapping[str, Results]) -> Iterator[Finding]:
    path = folders.data / "claims.json"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SoupError(f"claims cannot be read ({error}): {path}; restore it from git") from error
    for claim in listed:
        yield _claim(folders, known, claim)


def _claim(folders: Folders, known: Mapping[str, Results], claim: Mapping[str, Any]) -> Finding:
    where = folders.project / claim["where"]
    what = f"{claim['id']} ({claim['where']})"
    try:
        text = " ".join(_prose(where).split())
    except (OSError, SoupError) as error:
        return Finding(what, False, f"cannot be read: {error}")
    if " ".join(claim["text"].split()) not in text:
        return Finding(what, False, f"the sentence is not there: {claim['text']!r}")
    if claim["experiment"] not in known:
        return Finding(what, False, f"no results of {claim['experiment']}")
    return _relation(what, known[claim["experiment"]], claim)


def _prose(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n".join(c.source for c in read_notebook(path).cells if c.cell_type == "markdown")


def _relation(what: str, results: Results, claim: Mapping[str, Any]) -> Finding:
    """Whether method a is ``above``, ``below`` or ``open`` (not told apart from) method b."""
    task = claim.get("task", results["config"]["target"])
    try:
        pair = stats.paired(*(matrix(results, task, claim[side]) for side in ("a", "b")))
    except KeyError:
        return Finding(what, False, f"{claim['a']} or {claim['b']} was not evaluated on {task}")
    relation = "above" if pair.lo > 0 else "below" if pair.hi < 0 else "open"
    a, b = (label(claim[side], results) for side in ("a", "b"))
    sign = {"above": ">", "below": "<", "open": "not told apart from"}[relation]
    seeds = len(results["items"][task][claim["a"]])
    says = (
        f"{a} {sign} {b} on {task} in {pair.wins} of {seeds} seeds, {100 * pair.diff:+.1f} points "
        f"[{100 * pair.lo:+.1f}, {100 * pair.hi:+.1f}]"
    )
    return Finding(what, relation == claim["says"], says)
