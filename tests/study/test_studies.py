"""Studies, recipes and ablations: what runs, and that everything in them is comparable."""

import pytest

from lorasoups.errors import SoupError
from lorasoups.results.file import load_results
from lorasoups.study.ablate import run
from lorasoups.study.ablations import ABLATIONS
from lorasoups.study.ablations.sizes import with_length, with_rank
from lorasoups.study.profiles import get_profile
from lorasoups.study.recipes import GROUPS, recipes_for
from lorasoups.study.run import recipes_of, tasks_of
from lorasoups.study.soups import with_demos
from lorasoups.study.stages import Experiment
from lorasoups.study.studies import STUDIES
from lorasoups.tasks.judging.judges import JUDGES


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return Experiment("smoke", 1, tmp_path_factory.mktemp("smoke"))


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("profile", ["smoke", "mini"])
def test_every_study_has_tests_judges_and_all_baselines(study, profile):
    p = get_profile(profile, study)
    assert p.target in p.n_test and all(p.test_of(skill) in p.n_test for skill in p.skills)
    assert all(p.judge(task) in JUDGES for task in p.n_test)
    recipes = recipes_for(p.skills)
    baselines = "data_mix data_mix_2r few_shot fresh xlora lorahub@delta lorahub@factors"
    assert {"cat", "knots@delta", "lego@delta", *baselines.split(), *p.skills} <= recipes.keys()
    assert all(recipe.group in GROUPS for recipe in recipes.values())


def test_unknown_studies_and_sizes_are_refused(monkeypatch):
    with pytest.raises(SoupError, match="unknown study"):
        get_profile("mini", "cooking")
    monkeypatch.setitem(STUDIES, "formats", {"mini": {}})
    with pytest.raises(SoupError, match="has no profile 'small'"):
        get_profile("small", "formats")


def test_main_methods_take_the_skills_tests_too():
    experiment = Experiment("mini", 1, study="manual_qa")
    taken = {r.name: tasks_of(experiment, r) for r in recipes_of(experiment)}
    assert taken["ties@delta"] == ["manual_qa"]
    assert taken["cat"] == ["manual_qa", "answering", "manual_recall", "manual_qa_unseen"]


def test_demonstrations_come_from_the_skills_and_fit(smoke):
    plain, shown = smoke.items("hard_math"), with_demos(smoke, "hard_math", 0)
    longest = smoke.source.model.config.max_position_embeddings - smoke.profile.max_new_tokens
    for a, b in zip(plain, shown, strict=True):
        assert b["prompt"].endswith(a["prompt"]) and a["target"] == b["target"]
        assert len(smoke.source.tokenizer(b["prompt"]).input_ids) <= longest
    assert len(shown[0]["prompt"]) > len(plain[0]["prompt"])
    assert with_demos(smoke, "hard_math", 1) != shown


def test_data_mix_repeats_the_rows_of_skills_that_train_longer():
    experiment = Experiment("mini", 1, study="manual_qa")
    seen = {}
    experiment._trained = lambda name, rows, config, seed: seen.update(rows=rows, config=config)
    experiment.skill("data_mix", 0)
    own = [len(experiment.encoded(skill)) for skill in ("answering", "manual")]
    assert len(seen["rows"]) == own[0] + 6 * own[1]  # 150 and 1,000 steps
    assert seen["config"].steps == 1150


def test_sizes_change_what_they_say_and_keep_the_scale(smoke):
    smoke.sweep = [{"chosen": True}]
    p = with_rank(smoke, 2).profile.training
    assert (p.r, p.lora_alpha) == (2, 4)
    assert with_length(smoke, 0.5).profile.training.steps == smoke.profile.training.steps // 2
    del smoke.sweep


@pytest.mark.parametrize("name", ["alphas", "random_loras"])
def test_an_ablation_writes_comparable_results(smoke, name):
    results = run(smoke, name, progress=False)
    assert results == load_results("smoke", name, smoke.folders.base)
    methods = {row["method"] for row in results["rows"]}
    assert "cat" in methods and methods == set(results["config"]["labels"])
    assert {e["b"] for e in results["comparisons"]} == methods - {"cat"}
    assert len({row["n"] for row in results["rows"]}) == 1
    again = run(smoke, name, progress=False)
    assert again["items"] == results["items"]


def test_unknown_ablation_is_refused(smoke):
    with pytest.raises(SoupError, match="unknown ablation"):
        run(smoke, "cooking")
    assert all(name == ablation.name for name, ablation in ABLATIONS.items())
