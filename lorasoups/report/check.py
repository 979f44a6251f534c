"""``lorasoups check``: everything that is said must follow from the results files of today.

The numbers of every file are computed again from the verdicts of the single items
(`results.check`). The blocks of results in the README and docs/results.md, and the sentences in the
outputs of the executed notebooks, must be what the results give.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from lorasoups.errors import SoupError
from lorasoups.paths import Folders
from lorasoups.report import sentences, tables
from lorasoups.report.tables import Known
from lorasoups.results.check import Finding, derived
from lorasoups.results.file import read_results
from lorasoups.results.reading import Results
from lorasoups.study.profile import STUDIES

SAID_OF = "mini"  # the profile that most notebooks speak of

STUDY_NOTEBOOKS = {
    "03_hard_math": "hard_math", "04_manual_qa": "manual_qa", "05_reading": "reading",
    "06_prompt_formats": "formats", "09_report": "hard_math",
}  # fmt: skip
ALONG = {"length": "share", "rank": "rank", "k_skills": "k"}  # ablation -> what is varied


def report(profile: str = SAID_OF, root: Path | str | None = None) -> int:
    """Print every finding, failures last; exit code 0 if all hold, else 1."""
    findings = sorted(check(profile, root), key=lambda finding: not finding.ok)
    print(*findings, sep="\n")
    bad = sum(not finding.ok for finding in findings)
    print(f"{len(findings) - bad} hold, {bad} do not")
    return int(bad > 0)


def check(profile: str = SAID_OF, root: Path | str | None = None) -> Iterator[Finding]:
    """All findings on ``data/results/<profile>/*.json`` of a project and on what is said of them.

    Raises SoupError if there are no results.
    """
    folders = Folders(root=root)
    paths = sorted((folders.results / profile).glob("*.json"))
    if not paths:
        raise SoupError(f"no results: {folders.results / profile}; run `lorasoups reproduce` first")
    known: dict[str, Results] = {}
    for path in paths:
        what = f"{path.stem}: complete, and of the schema"
        try:
            known[path.stem] = results = read_results(path)
        except SoupError as error:
            yield Finding(what, False, str(error))
            continue
        name = (results["profile"], results.get("experiment", "hard_math"))
        trouble = "" if results["complete"] else "a run that has not ended"
        if name != (profile, path.stem):
            trouble = f"it says that it is {name[1]} of profile {name[0]}"
        yield Finding(what, not trouble, trouble)
        yield from derived(path.stem, results)
    yield from said(folders.project, profile, known)


def said(project: Path, profile: str, known: Known) -> Iterator[Finding]:
    """Blocks and notebooks against today's results of a profile, by experiment."""
    names = {name for (name, _), (of, _) in tables.BLOCKS.items() if of == profile}
    for name in sorted(names) if "hard_math" in known else ():
        what = f"{name}: its results are today's"
        try:
            fresh = tables.with_blocks(project, {profile: known}, name)
            same = fresh == (project / name).read_text(encoding="utf-8")
        except SoupError as error:
            yield Finding(what, False, str(error))
            continue
        yield Finding(what, same, "" if same else "run `python -m lorasoups.report.tables`")
    if profile == SAID_OF:
        for name, experiment in STUDY_NOTEBOOKS.items():
            if experiment in known:
                yield from _notebook(project, name, _of_study(known, name, experiment))
        ablations = {name: r for name, r in known.items() if "ablation" in r["config"]}
        said_of_each = (text for name, r in ablations.items() for text in of_ablation(name, r))
        yield from _notebook(project, "07_alphas", said_of_each)
    elif profile == "small" and "hard_math" in known:
        yield from _notebook(project, "08_real_models", _of_real_model(known))


def _of_study(known: Known, notebook: str, experiment: str) -> Iterator[str]:
    results = known[experiment]
    yield from (say(results) for say in sentences.STUDY)
    yield from sentences.caveats(results)
    if notebook == "09_report":
        yield from (sentences.summary(known[name]) for name in STUDIES if name in known)
    else:
        yield sentences.objective_and_target(results)


def of_ablation(name: str, results: Results) -> list[str]:
    """What notebook 07 says of one ablation."""
    if name in ALONG:
        return [sentences.along(results, curve, ALONG[name]) for curve in ("cat", "sum")]
    if name == "lr_sweep":
        curves = ("none", "softmax")
        ends = [sentences.along(results, curve, "lr") for curve in curves]
        return ends + [sentences.moved(results, curve) for curve in curves]
    return [sentences.valley(results) if name == "surface" else sentences.against_each(results)]


def _of_real_model(known: Known) -> Iterator[str]:
    results = known["hard_math"]
    for task in sentences.composed_tests(results):
        yield from (sentences.on_test(results, task), sentences.gains(results, task))
    yield sentences.legible(results)


def _notebook(project: Path, name: str, true_today: Iterable[str]) -> Iterator[Finding]:
    """Whether a notebook's outputs hold these sentences; nothing if there is no such notebook."""
    what, path = f"{name}: its sentences are today's", project / "notebooks" / f"{name}.ipynb"
    if not path.exists():
        return
    try:
        shown = outputs(path)
        missing = [text for text in true_today if text and text not in shown]
    except (SoupError, KeyError, IndexError, ValueError, StopIteration) as error:
        yield Finding(what, False, f"cannot be said of these results ({error!r})")
        return
    if not shown.strip():
        yield Finding(what, False, "it was not executed")
        return
    more = f" (and {len(missing) - 1} more sentences)" if len(missing) > 1 else ""
    says = f"not there, but true today: {missing[0][:200]!r}{more}" if missing else ""
    yield Finding(what, not missing, says)


def outputs(path: Path) -> str:
    """All text in the outputs of a notebook. Raises SoupError if the file is no notebook."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SoupError(f"not a readable notebook: {path}; restore it from git") from error
    texts = []
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        texts += [output.get("text", ""), data.get("text/markdown", data.get("text/plain", ""))]
    return "\n".join("".join(text) for text in texts)
