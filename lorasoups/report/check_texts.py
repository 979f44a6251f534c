"""Sentences that code wrote, in README and executed notebooks, against what it says today."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from nbformat import NotebookNode

from lorasoups.errors import SoupError
from lorasoups.paths import Folders
from lorasoups.report import ablation_claims, claims
from lorasoups.report.tables import into_readme
from lorasoups.results.check import Finding
from lorasoups.results.reading import Results
from lorasoups.run.notebook_files import read_notebook
from lorasoups.study.profile import STUDIES

Known = Mapping[str, Results]
Sentence = Callable[[Results], str | list[str]]

NOTEBOOKS = {
    "03_hard_math": "hard_math",
    "04_manual_qa": "manual_qa",
    "05_reading": "reading",
    "06_prompt_formats": "formats",
    "09_report": "hard_math",
}
"""Notebook -> the experiment that it calls ``results``."""
ABLATION_NOTEBOOK, REPORT = "07_alphas", "09_report"
_CALL = re.compile(r"(?<!\w)claims\.(\w+)\(results\)")


def _along(*curves: str, what: str) -> list[Sentence]:
    return [lambda r, c=c: ablation_claims.along(r, c, what) for c in curves]


_RATES = ("none", "softmax")
ABLATIONS: dict[str, list[Sentence]] = {
    "alphas": [ablation_claims.against_each],
    "random_loras": [ablation_claims.against_each],
    "lr_sweep": [
        *(lambda r, c=c: ablation_claims.moved(r, c) for c in _RATES),
        *_along(*_RATES, what="lr"),
    ],
    "alpha_data": [ablation_claims.against_each],
    "length": _along("cat", "sum", what="share"),
    "rank": _along("cat", "sum", what="rank"),
    "k_skills": _along("cat", "sum", what="k"),
    "three_skills": [ablation_claims.against_each],
    "surface": [ablation_claims.valley],
}
"""Ablation -> the sentences that notebook 07 makes of its results."""


def generated(folders: Folders, known: Known) -> Iterator[Finding]:
    """The README's generated block, and the sentences in the outputs of the notebooks.

    Args:
        folders: of the project.
        known: results by experiment; what needs others is passed over.
    """
    if "hard_math" in known:
        yield _readme(folders.project / "README.md", known)
    for name, experiment in NOTEBOOKS.items():
        path = folders.project / "notebooks" / f"{name}.ipynb"
        if experiment in known and path.exists():
            yield _notebook(path, lambda n, e=experiment: _called(n, e, known))
    path = folders.project / "notebooks" / f"{ABLATION_NOTEBOOK}.ipynb"
    if path.exists() and ABLATIONS.keys() & known.keys():
        yield _notebook(path, lambda _: _of_ablations(known))


def _readme(path: Path, known: Known) -> Finding:
    what = "README: the generated results are today's"
    try:
        text = path.read_text(encoding="utf-8")
        today = into_readme(text, known["hard_math"], known)
    except (OSError, SoupError) as error:
        return Finding(what, False, str(error))
    says = "" if today == text else "they are not; run `python -m lorasoups.report.tables`"
    return Finding(what, today == text, says)


def _notebook(path: Path, sentences: Callable[[NotebookNode], Iterable[str]]) -> Finding:
    what = f"{path.stem}: its sentences are today's"
    try:
        notebook = read_notebook(path)
        shown = outputs(notebook)
        if not shown.strip():
            return Finding(what, False, "it was not executed")
        stale = [text for text in sentences(notebook) if text and text not in shown]
    except SoupError as error:
        return Finding(what, False, str(error))
    except (KeyError, IndexError, ValueError, StopIteration) as error:
        return Finding(what, False, f"cannot be said of these results ({error!r})")
    more = f" (and {len(stale) - 1} more sentences)" if len(stale) > 1 else ""
    says = f"not there, but true today: {stale[0][:200]!r}{more}" if stale else ""
    return Finding(what, not stale, says)


def _called(notebook: NotebookNode, experiment: str, known: Known) -> Iterator[str]:
    """What the calls ``claims.<function>(results)`` in a notebook's cells say today."""
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for name in dict.fromkeys(_CALL.findall(source)):
        said = getattr(claims, name)(known[experiment])
        yield from [said] if isinstance(said, str) else said
    if "claims.summary(own)" in source:
        yield from (claims.summary(known[name]) for name in STUDIES if name in known)


def _of_ablations(known: Known) -> Iterator[str]:
    for name, sentences in ABLATIONS.items():
        if name in known:
            yield from (sentence(known[name]) for sentence in sentences)


def outputs(notebook: NotebookNode) -> str:
    """All text that a notebook's cells gave."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/markdown", data.get("text/plain", ""))]
    return "\n".join(texts)
