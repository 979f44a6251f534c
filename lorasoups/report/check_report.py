"""``lorasoups check``: everything that is said must follow from the results files of today.

Three kinds of things are checked. The files (`check_results`): rows, comparisons, Holm's
correction and super-linearity are computed again from the verdicts of the single items. The
generated sentences (`check_texts`): the README's block and the sentences in the executed notebooks
must be what the results give. The written sentences (`check_claims`): ``data/claims.json`` names
each with the relation it asserts.
"""

from collections.abc import Iterator
from pathlib import Path

from lorasoups.errors import SoupError
from lorasoups.paths import Folders
from lorasoups.report.check_claims import written
from lorasoups.report.check_texts import generated
from lorasoups.results.check import Finding, derived
from lorasoups.results.file import read_results
from lorasoups.results.reading import Results

SAID_OF = "mini"  # the profile that README, notebooks and claims speak of


def report(profile: str = "mini", root: Path | str | None = None) -> int:
    """Print every finding, failures last; exit code 0 if all hold, else 1."""
    found = list(check(profile, root))
    for finding in sorted(found, key=lambda f: not f.ok):
        print(finding)
    bad = sum(not finding.ok for finding in found)
    print(f"{len(found) - bad} hold, {bad} do not")
    return int(bad > 0)


def check(profile: str = "mini", root: Path | str | None = None) -> Iterator[Finding]:
    """All findings of a profile; sentences only for ``mini``, of which they speak.

    Args:
        profile: its files are ``data/results/<profile>/*.json``.
        root: the project; default where we are.

    Raises:
        SoupError: there are no results.
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
        trouble = _not_whole(path.stem, profile, results)
        yield Finding(what, not trouble, trouble)
        yield from derived(path.stem, results)
    if profile == SAID_OF:
        yield from generated(folders, known)
        yield from written(folders, known)


def _not_whole(name: str, profile: str, results: Results) -> str:
    told = (results["profile"], results.get("experiment", "hard_math"))
    if told != (profile, name):
        return f"it says that it is {told[1]} of profile {told[0]}"
    return "" if results["complete"] else "a run that has not ended"
