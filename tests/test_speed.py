"""Speed figures: goals, the file, the table, the picture."""

import pytest

from lorasoups import speed
from lorasoups.errors import SoupError
from lorasoups.figures import speed as drawing

FOUND = {
    "device": "Some CPU",
    "on_cpu": True,
    "figures": {
        "alpha_step": {"value": 1.1, "low": 1.05, "high": 1.2, "note": "n"},
        "evaluation": {"value": 5.0},
        "merge_seconds": {"value": 60.0},
    },
}


def test_a_goal_knows_its_side_and_its_device():
    assert speed.GOALS["alpha_step"].met(1.15, True) and not speed.GOALS["alpha_step"].met(
        1.2, True
    )
    assert speed.GOALS["evaluation"].met(5, on_cpu=True)
    assert not speed.GOALS["evaluation"].met(5, on_cpu=False)


def test_the_table_says_what_is_met_and_what_is_not():
    rows = {row["figure"]: row for row in speed.table(FOUND)}
    assert [row["met"] for row in rows.values()] == ["yes", "yes", "NO"]
    assert rows[speed.GOALS["merge_seconds"].label]["measured"] == "60 s"
    assert rows[speed.GOALS["evaluation"].label]["goal"] == ">= 4"


def test_one_file_per_machine_and_no_unknown_figures(tmp_path):
    path = speed.save(FOUND, tmp_path)
    assert path.name == "some-cpu.json"
    with pytest.raises(SoupError, match="no such speed figure: magic"):
        speed.save(FOUND | {"figures": {"magic": {"value": 1}}}, tmp_path)


def test_the_picture_has_a_mark_per_figure_on_the_right_side_of_the_line():
    ax = drawing.draw([FOUND]).axes[0]
    marks = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert [mark > 1 for mark in marks] == [True, True, False]
    texts = [text.get_text() for text in ax.texts]
    assert any("60 s" in text and "<= 10" in text for text in texts)
