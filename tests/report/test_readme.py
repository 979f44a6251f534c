"""README, results, speed: their blocks are of today's results, their links lead somewhere."""

import re
from pathlib import Path

import pytest
from results_example import example_results
from write import committed, ten_rows, with_blocks

from lorasoups.errors import SoupError

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/results.md", "docs/howto/speed.md")


@pytest.mark.parametrize("name", PAGES)
def test_results_on_the_page_are_those_of_the_results_files(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert with_blocks(ROOT, committed(ROOT), name) == text, "run python docs/write.py"


@pytest.mark.parametrize("name", PAGES)
def test_relative_links_lead_to_files_of_the_repository(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)
    assert links and [x for x in links if not (ROOT / name).parent.joinpath(x).exists()] == []


def test_writing_results_again_changes_only_what_is_between_the_marks(tmp_path):
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()

    def written(text, seeds):
        page.write_text(text)
        known = {"mini": {"hard_math": example_results(seeds, n=20)}}
        return with_blocks(tmp_path, known, "docs/results.md")

    once = written("before\n<!-- results: how -->\nSTALE\n<!-- end of results -->\nafter\n", 1)
    assert once.startswith("before\n<!-- results: how -->\n### All studies")
    assert once.endswith("\n<!-- end of results -->\nafter\n") and "STALE" not in once
    assert written(once, 1) == once
    assert written(once, 2) != once
    with pytest.raises(SoupError, match="no marks <!-- results: -->.*docs/results.md"):
        written("# Results\n", 1)


def test_the_table_of_the_readme_has_at_most_ten_rows_with_intervals():
    frame = ten_rows(example_results(2, n=40))
    columns = ["method", "solved, %", "95 % interval", "math, %", "code, %"]
    assert 9 <= len(frame) <= 10 and list(frame.columns) == columns  # 9: the best TIES has a row
    assert {"CAT (learned alphas)", "plain sum", "base"} <= set(frame["method"])
    assert frame["95 % interval"].str.startswith("[").all()
