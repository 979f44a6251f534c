"""Writes today's results into README.md and pages of docs: ``python docs/write.py``."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lorasoups.errors import SoupError
from lorasoups.files import read_json, write_text_atomic
from lorasoups.paths import Folders
from lorasoups.report import sentences
from lorasoups.report.map import (
    PLANNED,
    cells,
    foreseen,
    foretold,
    hypotheses,
    known_before,
)
from lorasoups.report.tables import (
    Known,
    best_merges,
    comparisons,
    markdown,
    short,
    studies,
    tasks,
)
from lorasoups.results import reading
from lorasoups.results.file import read_results
from lorasoups.results.reading import SUM, Results, estimate, interval, label, percent
from lorasoups.study.profile import STUDIES

All = Mapping[str, Known]  # profile -> experiment -> results


def ten_rows(results: Results) -> pd.DataFrame:
    """CAT beside its main rivals, on the target and on each skill's own test, for the README."""
    present = reading.order(results)
    pruned = best_merges(results, [m for m in present if m.startswith(("ties", "dare"))])
    searched = best_merges(results, [m for m in present if m in (reading.LORAHUB, "xlora")])
    names = {m: label(m, results) for m in (SUM, reading.AVERAGE)}
    names |= {"ties@factors/w1": "TIES on A and B apart, weights 1 (as in the paper)"}
    names |= {m: f"best of TIES and DARE: {label(m, results)}" for m in pruned}
    learned = [*searched, "cat"]
    if "target" in present:  # a study with a ceiling and a tuned sum: they replace two rows
        learned = ["tuned_sum", "cat", "target"]
        del names[reading.AVERAGE]
    wanted = ["base", *reading.skills(results), "data_mix", *names, *learned]
    tests = {f"{s}, %": reading.test_of(results, s) for s in reading.skills(results)}
    return pd.DataFrame(
        {"method": names.get(m, label(m, results)), "solved, %": percent(e.mean),
         "95 % interval": interval(e.lo, e.hi)}
        | {skill: percent(t.mean) if t else "-"
           for skill, test in tests.items() for t in [estimate(results, m, test)]}
        for m in wanted if m in present for e in [estimate(results, m)]
    )  # fmt: skip


def _intro(results: reading.Results) -> str:
    """What a block is about."""
    n, seeds = reading.rows(results)[0]["n"], reading.seeds_text(results)
    return INTRO[results["experiment"]].format(n=n, seeds=seeds)


def _headline(results: reading.Results) -> list[str]:
    return [_intro(results), markdown(ten_rows(results)), sentences.primary(results)]


def _headline_block(known: All) -> list[str]:
    return _headline(known["mini"]["hard_math"])


def _map_block(known: All) -> list[str]:
    results, real = known["mini"]["composed"], known.get("small", {}).get("reading_form")
    names = sorted(n for n in known["mini"] if n == "composed" or n.startswith("map_"))
    of_cells = {name: known["mini"][name] for name in names}
    tables = [hypotheses(of_cells, real, PLANNED), cells(of_cells), known_before(of_cells),
              foretold(of_cells)]  # fmt: skip
    told = [_intro(results), markdown(ten_rows(results)), sentences.all_sentences(results)]
    return told + [markdown(table) for table in tables]


def _results_block(known: All) -> list[str]:
    mini = known["mini"]
    results, present = mini["hard_math"], [name for name in STUDIES if name in mini]
    return [
        "### All studies",
        "\n".join(f"- **{n.replace('_', ' ')}**: {sentences.summary(mini[n])}" for n in present),
        markdown(studies(mini)),
        "### Hard math in detail",
        markdown(short(results)),
        f"Of {len(sentences.static_merges(results))} static merges the best three are shown; all "
        "are in the [report](../notebooks/10_report.ipynb).",
        sentences.all_sentences(results),
    ]


def _real_block(known: All) -> list[str]:
    results = known["small"]["hard_math"]
    config = results["config"]
    device = results["provenance"]["device"]
    note = f"{config['base']}, {device}. {config['note'] or 'Whole profile'}."
    return [note, markdown(tasks(results))]


def _form_block(known: All) -> list[str]:
    return _headline(known["small"]["reading_form"])


def _speed_block(known: All) -> list[str]:
    """Every figure on every machine, with the goal; a star where it is missed."""
    machines = known["speed"].values()
    labels = {n: f["label"] for found in machines for n, f in found["figures"].items()}
    table = {"figure": labels}
    for found in machines:
        figures = found["figures"].items()
        goal = "goal" if found["on_cpu"] else "goal on a GPU"
        table[goal] = table.get(goal, {}) | {n: f"{f['goal']:g}" for n, f in figures}
        table[f"{found['device']}, {found['cores']} cores"] = {
            n: f"{f['value']:.3g}{'' if f['met'] else ' *'}" for n, f in figures
        }
    return [markdown(pd.DataFrame(table).fillna("-"))]


def _form_results_block(known: All) -> list[str]:
    results = known["small"]["reading_form"]
    told = [_intro(results), markdown(short(results)), sentences.all_sentences(results)]
    for name in ("reversed", "shown", "more"):
        if other := known["small"].get(f"reading_form_{name}"):
            told += [_intro(other), markdown(short(other, best=6))]
            if name == "more":
                solving = [m for m in reading.order(other) if estimate(other, m).mean > 0.02]
                frame, names = comparisons(other), [label(m, other) for m in solving]
                told += ["Against those of them that solve more than 2 %:",
                         markdown(frame[frame["CAT minus"].isin(names)])]  # fmt: skip
            else:
                told += [sentences.primary(other), sentences.form_and_content(other)]
                told += [markdown(foreseen(other, results))]
    return told


INTRO = {
    "hard_math": "Hard math, {n} problems, {seeds}; intervals are over new seeds and new problems.",
    "reading_form": "Reading in an unknown form, SmolLM2-135M, {n} problems, {seeds}.",
    "reading_form_reversed": "**Reversed**: form is trained four times as long, reading a quarter; "
    "{n} problems, {seeds}, weights in bfloat16.",
    "reading_form_shown": "**Shown**: two solved problems of the asked form in every prompt of the "
    "target; {n} problems, {seeds}, weights in bfloat16.",
    "reading_form_more": "**The other rows**: {n} problems, {seeds}, weights in bfloat16.",
    "composed": "Hard math after two solved examples, three forms a skill; {n} problems, {seeds}.",
}
BLOCKS = {
    ("README.md", "real headline"): ("small", "reading_form", _form_block),
    ("README.md", "headline"): ("mini", "hard_math", _headline_block),
    ("docs/results.md", "map"): ("mini", "composed", _map_block),
    ("docs/results.md", "results"): ("mini", "hard_math", _results_block),
    ("docs/results.md", "form results"): ("small", "reading_form", _form_results_block),
    ("docs/results.md", "real results"): ("small", "hard_math", _real_block),
    ("docs/howto/speed.md", "speed"): ("speed", "amd-epyc", _speed_block),
}
"""File and name of a block -> the profile it tells of, the study it needs, and its writer."""


def with_blocks(project: Path, known: All, page: str) -> str:
    """The text of a page with today's results in its blocks; one without results stays as it is.

    A block lies between ``<!-- name: ... -->`` and ``<!-- end of name -->``; ``known``: profile ->
    experiment -> results. Raises SoupError if a mark is missing.
    """
    text = (project / page).read_text(encoding="utf-8")
    for (where, name), (profile, needed, write) in BLOCKS.items():
        if where != page or needed not in known.get(profile, {}):
            continue
        marks = re.search(rf"<!-- {name}:[^\n]*-->\n(.*?)<!-- end of {name} -->", text, re.S)
        if not marks:
            missing = f"<!-- {name}: --> and <!-- end of {name} -->"
            raise SoupError(f"no marks {missing}: {page}; add them")
        block = "\n\n".join(write(known))
        text = f"{text[: marks.start(1)]}{block}\n{text[marks.end(1) :]}"
    return text


def committed(project: Path) -> All:
    """All results of a project; with them, as "speed", the figures of each machine."""
    folder = project / "data" / "results"
    known = {
        profile: {path.stem: read_results(path) for path in (folder / profile).glob("*.json")}
        for profile in ("mini", "small")
    }
    measured = {
        path.stem: read_json(path, "restore it from git")
        for path in sorted((folder / "speed").glob("*.json"))
    }
    return known | {"speed": {name: m for name, m in measured.items() if "figures" in m}}


def write_blocks(project: Path) -> None:
    """Write today's results into the README and the pages."""
    known = committed(project)
    for page in dict.fromkeys(page for page, _ in BLOCKS):
        write_text_atomic(project / page, with_blocks(project, known, page))


if __name__ == "__main__":
    write_blocks(Folders().project)
