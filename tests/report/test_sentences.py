"""Tables and sentences: they say what the results file says, whichever way it falls."""

import copy

import pytest
from results_example import example_results

from lorasoups.report import sentences, tables
from lorasoups.results import reading, stats
from lorasoups.study.methods import methods_for

METHODS = methods_for(("math", "code"))
STATIC = [name for name, m in METHODS.items() if m.group == reading.STATIC]
FEW = ("base", "math", "code", "data_mix", "cat", "linear@delta")


@pytest.fixture(scope="module")
def good():
    """CAT is far above everything else."""
    return example_results(3, n=100)


@pytest.fixture(scope="module")
def bad():
    """CAT is the worst of all."""
    return example_results(5, n=100, chances={"cat": 0.01, "base": 0.4, "math": 0.4})


def test_every_method_has_one_group_and_none_is_lost(good):
    grouped = reading.methods(good)
    assert list(grouped) == list(reading.GROUPS)
    assert sorted(m for members in grouped.values() for m in members) == sorted(METHODS)
    assert grouped[reading.STATIC] == list(STATIC)


def test_estimate_of_one_seed_is_wilsons_interval():
    found = reading.estimate(example_results(1, FEW, n=50), "cat")
    assert (found.lo, found.hi) == stats.wilson(round(found.mean * 50), 50)


def test_estimate_over_seeds_is_around_the_mean_of_the_seeds(good):
    found = reading.estimate(good, "cat")
    assert found.mean == pytest.approx(sum(found.per_seed) / 3)
    assert found.lo < found.mean < found.hi
    assert found.hi - found.lo < 0.25


def test_nothing_right_in_any_seed_still_has_an_interval():
    found = reading.estimate(example_results(3, FEW, n=20, chances={"base": 0.0}), "base")
    assert found.lo == 0 and found.hi == pytest.approx(stats.wilson(0, 20)[1])


def test_what_was_not_evaluated_has_no_estimate(good):
    assert reading.estimate(good, "cat", "another task") is None


@pytest.mark.parametrize(
    "lo, hi, expected",
    [(0.01, 0.2, sentences.ABOVE), (-0.2, -0.01, sentences.BELOW), (-0.1, 0.1, sentences.OPEN),
     (0.0, 0.1, sentences.OPEN)],
)  # fmt: skip
def test_verdict_needs_an_interval_without_zero(lo, hi, expected):
    assert sentences.verdict(stats.Paired(diff=0.0, lo=lo, hi=hi, p=1.0, wins=0)) == expected


def test_a_soup_above_everything_is_told_so(good):
    contrasts = reading.primary(good)
    assert [c.pair.diff > 0 for c in contrasts] == [True] * 4
    assert sentences.primary_verdict(contrasts[0]) == sentences.ABOVE
    assert sentences.summary(good).startswith("CAT solves 7")
    assert "above the mean of the paper's baselines (5), sum, one tuned weight" in (
        sentences.summary(good)
    )
    assert "below 0. The best of them" in sentences.against_static(good)
    assert sentences.super_linear(good).startswith("Super-linear")


def test_a_soup_below_everything_is_told_as_plainly(bad):
    contrasts = reading.primary(bad)
    assert [c.pair.diff < 0 for c in contrasts] == [True] * 4
    assert sentences.primary_verdict(contrasts[0]) == sentences.BELOW
    assert "above" not in sentences.summary(bad) and "below" in sentences.summary(bad)
    assert sentences.verdict(reading.against(bad, ["base"])["base"]) == sentences.BELOW
    assert f"below {len(STATIC)} (" in sentences.against_static(bad)
    assert sentences.super_linear(bad).startswith("Sub-linear")
    assert "(CAT is below it)" in sentences.floors(bad)


def test_primary_contrasts_are_corrected_for_their_number(good):
    contrasts = reading.primary(good)
    assert [c.p_holm for c in contrasts] == stats.holm([c.pair.p for c in contrasts])
    mean = sum(reading.estimate(good, m).mean for m in reading.PAPER) / len(reading.PAPER)
    assert contrasts[0].pair.diff == pytest.approx(reading.estimate(good, "cat").mean - mean)
    without = copy.deepcopy(good)
    del without["items"]["hard_math"]["tuned_sum"]
    assert reading.primary(without)[1].name == "plain sum"


def test_what_was_not_compared_is_not_claimed():
    results = example_results(1, ("base", "math", "code", "cat"))
    assert [c.name for c in reading.primary(results)] == ["code LoRA"]
    assert sentences.against_static(results) == "No static merge was evaluated."


def test_form_and_content_multiply_to_what_is_solved(good):
    formed, right = reading.form(good, "cat")
    assert formed * right == pytest.approx(reading.estimate(good, "cat").mean)
    counts = {"ok": 3, "wrong": 1, "wrong_form": 4}
    row = good["rows"][0] | {"method": "x", "outcomes": counts, "n": 8}
    assert reading.form({**good, "rows": [row]}, "x") == (0.5, 0.75)


def test_what_is_kept_of_the_skills_and_the_front(good):
    of_skills = [reading.estimate(good, m, s).mean for s in ("math", "code") for m in ("cat", s)]
    expected = [of_skills[0] / of_skills[1], of_skills[2] / of_skills[3]]
    assert reading.kept(good, "cat") == pytest.approx(expected)
    assert reading.kept(good, "ties@delta") == []  # it did not take the skills' tests
    points = {"a": (0.5, 0.5), "b": (0.6, 0.4), "c": (0.4, 0.4), "d": (0.5, 0.3)}
    assert reading.front(points) == ["a", "b"]
    frame = tables.parts(good)
    assert "yes" in set(frame["front"]) and len(frame) == len(METHODS)


@pytest.fixture
def ablation():
    """Variants that no recipe knows, without skills, merges or mixes; three skills in the soup."""
    drawn = ("base", "math", "code", "cat", "cat_k3", "sum_k3")
    found = copy.deepcopy(example_results(2, drawn, n=40))
    labels = {"cat": "CAT (learned alphas)", "cat_k3": "CAT, k = 3"}
    skills = ["math", "code", "line"]
    found["config"] |= {"skills": skills, "labels": labels, "ablation": "more LoRAs"}
    own = ("cat", "cat_k3", "sum_k3")
    found["rows"] = [r for r in found["rows"] if r["task"] == "hard_math" and r["method"] in own]
    items = {m: v for m, v in found["items"]["hard_math"].items() if m in own}
    return found | {"items": {"hard_math": items}, "skills": [], "sweep": []}


def test_methods_of_ablations_are_called_what_their_file_calls_them(ablation, good):
    names = list(tables.comparisons(ablation)["CAT minus"])
    assert names == ["CAT, k = 3", "sum_k3"]
    assert list(tables.headline(ablation)["method"]) == ["CAT (learned alphas)", "CAT, k = 3",
                                                         "sum_k3"]  # fmt: skip
    assert reading.label("cat_k3", good) == "cat_k3"


def test_sentences_and_tables_can_be_made_of_any_experiment(ablation):
    assert "No control was evaluated." in sentences.all_sentences(ablation)
    assert sentences.summary(ablation) == "The paper's claim is not tested in this experiment."
    assert sentences.super_linear(ablation) == "Super-linearity is defined for two skills only."
    two = ablation | {"config": ablation["config"] | {"skills": ["math", "code"]}}
    assert sentences.super_linear(two) == "Super-linearity was not measured."
    for table in (tables.training, tables.sweep, tables.views, tables.tasks, tables.short):
        tables.markdown(table(ablation))
    assert tables.training(ablation).empty and tables.studies({"rank": ablation}).empty


def test_a_map_without_the_soup_claims_nothing(ablation):
    none = ablation | {"rows": [r for r in ablation["rows"] if r["method"] != "cat"]}
    assert sentences.summary(none) == "The paper's claim is not tested in this experiment."


def test_numbers_in_sentences_are_those_of_the_file(good):
    pair = reading.against(good, ["math"])["math"]
    expected = f"{100 * pair.diff:+.1f} [{100 * pair.lo:+.1f}, "
    assert expected in sentences.against_each(good)
    assert f"{100 * reading.estimate(good, 'cat').mean:.1f} % of 100" in sentences.summary(good)


def test_caveats_name_few_seeds_few_problems_and_smoke(good):
    assert any("seeds" in c for c in sentences.caveats(good))
    assert any("Only 100 problems" in c for c in sentences.caveats(good))
    smoke = example_results(1, FEW, n=8) | {"profile": "smoke"}
    assert any("numbers mean nothing" in c for c in sentences.caveats(smoke))


def test_headline_table_has_every_method_with_its_mean(good):
    frame = tables.headline(good)
    assert sorted(frame["method"]) == sorted(reading.label(m, good) for m in METHODS)
    row = frame[frame["method"] == "code LoRA"].iloc[0]
    assert row["solved, %"] == f"{100 * reading.estimate(good, 'code').mean:.1f}"
    assert row["seeds"] == 3


def test_tasks_table_lists_the_methods_with_several_tests(good):
    frame = tables.tasks(good)
    assert list(frame["method"]) == [
        reading.label(m, good) for m in ("base", "math", "code", "cat")
    ]
    assert list(frame.columns) == ["method", "hard_math", "math", "code"]


def test_sweep_table_puts_the_lowest_loss_first(good):
    frame = tables.sweep(good)
    assert list(frame["normalise"]) == ["none", "softmax"] and frame["chosen"][0] == "yes"


def test_markdown_table_has_a_line_per_row(good):
    text = tables.markdown(tables.comparisons(good)).splitlines()
    assert len(text) == 2 + len(METHODS) - 1
    assert {line.count("|") for line in text} == {6}


def test_paper_table_stars_what_is_only_of_medium_reliability(good):
    config = {
        "training": {"r": 8, "lora_alpha": 16, "lr": 1e-3, "target_modules": ["q_proj"]},
        "alphas": {"share": 0.05, "epochs": 3, "grid": [1, 2]}, "source": "world",
        "base": "data/mini", "n_test": {"hard_math": 100}, "density": 0.75,
    }  # fmt: skip
    frame = tables.against_paper(good | {"config": good["config"] | config})
    paper = dict(zip(frame["what"], frame["paper"], strict=True))
    assert paper["CAT (learned alphas), % solved"] == "21.11*"
    own = dict(zip(frame["what"], frame["this kit"], strict=True))
    assert own["code LoRA, % solved"].startswith(
        reading.percent(reading.estimate(good, "code").mean)
    )
