"""The README: its results are those of the results file, and its links lead somewhere."""

import re
from pathlib import Path

import pytest
from results_example import example_results

from lorasoups.errors import SoupError
from lorasoups.report import real_text
from lorasoups.report.tables import into_readme
from lorasoups.results.file import load_results, read_results

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_results_in_the_readme_are_those_of_the_results_file():
    known = {p.stem: read_results(p) for p in (ROOT / "data/results/mini").glob("*.json")}
    fresh = into_readme(TEXT, load_results("mini", root=ROOT), known)
    assert fresh == TEXT, "run python -m lorasoups.report.tables"


def test_results_of_a_real_model_in_the_readme_are_those_of_its_file():
    fresh = real_text.into_readme(TEXT, load_results("small", root=ROOT))
    assert fresh == TEXT, "run python -m lorasoups.report.real_text"
    with pytest.raises(SoupError, match="no place for a real model"):
        real_text.into_readme("# LoRA Soups\n", load_results("small", root=ROOT))


def test_relative_links_lead_to_files_of_the_repository():
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", TEXT)
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_writing_results_again_changes_only_what_is_between_the_marks():
    text = "before\n<!-- results: how -->\nSTALE\n<!-- end of results -->\nafter\n"
    once = into_readme(text, example_results(1, n=20))
    assert once.startswith("before\n<!-- results: how -->\n### All studies")
    assert once.endswith("\n<!-- end of results -->\nafter\n") and "STALE" not in once
    assert into_readme(once, example_results(1, n=20)) == once
    assert into_readme(once, example_results(2, n=20)) != once


def test_readme_without_marks_is_one_clear_error():
    with pytest.raises(SoupError, match="no place for the results"):
        into_readme("# LoRA Soups\n", example_results(1, n=20))
