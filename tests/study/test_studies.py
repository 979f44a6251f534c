"""Stages, methods and ablations: what runs, and that everything in them is comparable."""

import json
from dataclasses import replace

import pytest

from lorasoups import merge, save_lora
from lorasoups.errors import Diverged, SoupError
from lorasoups.lora import methods as merge_methods
from lorasoups.lora.lora import LoRA
from lorasoups.report.showing import study_results
from lorasoups.results.file import load_results, results_path
from lorasoups.results.reading import GROUPS, against
from lorasoups.study import methods as methods_module
from lorasoups.study.ablations import ABLATIONS, learned, run_ablation, with_length, with_rank
from lorasoups.study.methods import methods_for, methods_of
from lorasoups.study.profile import load_profile
from lorasoups.study.run import jobs_of, run_study, tasks_of
from lorasoups.study.stages import Stages


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return Stages("smoke", 1, tmp_path_factory.mktemp("smoke"))


# --- methods of the table -----------------------------------------------------------------------


def test_the_table_has_all_baselines_in_known_groups():
    methods = methods_for(("math", "code"))
    baselines = "data_mix data_mix_2r fresh xlora lorahub@delta lorahub@factors"
    wanted = {"cat", "knots@delta", "lego@delta", *baselines.split(), "math", "code"}
    assert wanted <= methods.keys()
    assert all(method.group in GROUPS for method in methods.values())
    static = [m.name for m in methods.values() if m.group == "static merges"]
    assert len(static) == 32 and static[:4] == [
        "linear@delta", "linear@delta/w1", "linear@factors", "linear@factors/w1",
    ]  # fmt: skip
    only_delta = ("svd", "knots", "lego", "tsv", "iso_c", "core_space")
    assert static[-12:] == [f"{m}@delta{w}" for m in only_delta for w in ("", "/w1")]
    assert methods["ties@delta/w1"].label == "ties (delta, 1.0)"


def test_main_methods_take_the_skills_tests_too():
    p = load_profile("mini", "manual_qa")
    taken = {method.name: tasks_of(p, method) for method in methods_of(p)}
    assert taken["ties@delta"] == ["manual_qa"]
    assert taken["cat"] == ["manual_qa", "answering", "manual_recall", "manual_qa_unseen"]


def test_a_new_merge_method_is_in_the_api_and_in_every_study(smoke, monkeypatch):
    def first(loras, weights, *, on):
        return loras[0].modules

    method = replace(merge_methods.METHODS["svd"], name="first", fn=first, options={})
    monkeypatch.setitem(merge_methods.METHODS, "first", method)
    loras = smoke.loras(0)
    assert merge(loras, "first").modules == loras[0].modules
    new = {"first@delta", "first@delta/w1"}
    assert new <= methods_for(("math", "code")).keys()
    for name in ("mini", "small"):
        assert new <= {method.name for method, _ in jobs_of(load_profile(name))}
    first = methods_for(("math", "code"))["first@delta"]
    assert smoke.answers("hard_math", *first.model(smoke, 0))


def test_a_static_merge_is_computed_once_on_a_first_run(smoke, monkeypatch):
    calls = []

    def counted(loras, method, **options):
        calls.append(method)
        return merge(loras, method, **options)

    monkeypatch.setattr(methods_module, "merge", counted)
    method = methods_for(smoke.profile.skills)["linear@delta"]
    for task in tasks_of(smoke.profile, method):
        smoke.answers(task, *method.model(smoke, 0))
    assert calls == ["linear"]
    again = Stages("smoke", 1, smoke.folders.out)
    again.answers("hard_math", *method.model(again, 0))
    assert calls == ["linear"]  # a second run need not merge at all


def test_methods_without_adapter_say_so(smoke):
    with pytest.raises(SoupError, match="'xlora'"):
        methods_for(smoke.profile.skills)["xlora"].adapter(smoke, 0)


# --- stages -------------------------------------------------------------------------------------


def test_data_mix_repeats_the_rows_of_skills_that_train_longer():
    experiment = Stages("mini", 1, study="manual_qa")
    seen = {}
    experiment._trained = lambda name, rows, config, seed, start: seen.update(
        rows=rows, config=config
    )
    experiment.data_mix("data_mix", 0)
    rows = [len(experiment.encoded(skill)) for skill in ("answering", "manual")]
    assert len(seen["rows"]) == rows[0] + 6 * rows[1]  # 150 and 1,000 steps
    assert seen["config"].steps == 1150


def test_training_rows_are_cut_at_the_profile_s_length(smoke):
    short = smoke.variant(max_length=9)
    assert max(len(row["input_ids"]) for row in short.encoded("math")) == 9
    assert max(len(row["input_ids"]) for row in smoke.encoded("math")) > 9


@pytest.fixture(scope="module")
def folder_of_math(smoke, tmp_path_factory):
    """The smoke run's own math LoRA, as a PEFT folder somebody else could have made."""
    folder = tmp_path_factory.mktemp("skills") / "math-lora"
    save_lora(smoke.skill("math", 0).lora, folder)
    return folder


def own_profile(folder, **more):
    path = folder.parent / "mine.toml"
    path.write_text(f'extends = "smoke"\nskills = {{ math = "{folder.name}", code = "" }}')
    return load_profile(path, **more)


def test_a_study_with_a_skill_from_a_folder(smoke, folder_of_math, tmp_path):
    profile = own_profile(folder_of_math, methods=("data_mix", "linear@delta"))
    experiment = Stages(profile, 1, tmp_path)
    results = run_study(experiment, progress=False)
    assert results == load_results("mine", "hard_math", tmp_path)
    assert {e["name"] for e in results["skills"]} == {"code", "data_mix"}  # math is not trained
    assert results["config"]["adapters"] == {"math": "math-lora"}
    assert str(tmp_path.parent) not in json.dumps(results)
    usual = Stages("smoke", 1, smoke.folders.out)
    for name in ("math", "cat", "data_mix"):  # the same LoRA gives the same numbers
        method = methods_for(profile.skills)[name]
        ours, theirs = (stages.answers("hard_math", *method.model(stages, 0))
                        for stages in (experiment, usual))  # fmt: skip
        assert [v["text"] for v in ours] == [v["text"] for v in theirs]


def test_a_part_of_a_study_is_measured_and_its_file_left_alone(smoke):
    path = results_path("smoke", "hard_math", smoke.folders.base)
    before = path.exists() and path.read_bytes()
    results = study_results(smoke, train=True, only=["linear@delta/w1"])
    assert set(results["items"]["hard_math"]) == {*"base math code cat linear@delta/w1".split()}
    assert (path.exists() and path.read_bytes()) == before


def test_a_skill_that_does_not_fit_the_base_is_refused(smoke, folder_of_math, tmp_path):
    experiment = Stages(own_profile(folder_of_math), 1, tmp_path)
    experiment.source = smoke.source
    lora = smoke.skill("math", 0).lora
    first = next(iter(lora.modules))
    wrong = {
        "trained on other/model.*LoRA": replace(lora, base_model="other/model"),
        "no module 'model.layers.99'.*LoRA": LoRA({"model.layers.99": lora.modules[first]}),
        "in the base, .* in the adapter.*LoRA": LoRA(
            {first: replace(lora.modules[first], B=lora.modules[first].B[1:])}
        ),
    }
    for message, bad in wrong.items():
        save_lora(bad, folder_of_math, overwrite=True)
        with pytest.raises(SoupError, match=message):
            experiment.skill("math", 0)
    save_lora(lora, folder_of_math, overwrite=True)


def test_a_skill_that_is_nowhere_is_told(smoke, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    profile = smoke.profile.override(adapters={"math": "nobody/no-such-lora"})
    experiment = Stages(profile, 1, tmp_path)
    experiment.source = smoke.source
    with pytest.raises(SoupError, match="LoRA nobody/no-such-lora"):
        experiment.skill("math", 0)


# --- ablations ----------------------------------------------------------------------------------


def test_sizes_change_what_they_say_and_keep_the_scale(smoke):
    own = Stages("smoke", 1, smoke.folders.out)
    own.source, own.grid = smoke.source, [{"chosen": True}]
    training = with_rank(own, 2).profile.training
    assert (training.r, training.lora_alpha) == (2, 4)
    assert with_length(own, 0.5).profile.training.steps == smoke.profile.training.steps // 2
    whole = Stages("mini", 1, smoke.folders.out)  # its code skill has steps of its own
    whole.grid = [{"chosen": True}]
    half = with_length(whole, 0.5).profile
    assert [half.training_of(skill).steps for skill in half.skills] == [200, 300]


@pytest.mark.parametrize("name", ["alphas", "random_loras"])
def test_an_ablation_writes_comparable_results(smoke, name):
    results = run_ablation(smoke, name, progress=False)
    assert results == load_results("smoke", name, smoke.folders.base)
    methods = {row["method"] for row in results["rows"]}
    assert "cat" in methods and methods == set(results["config"]["labels"])
    assert set(against(results)) == methods - {"cat"}
    assert len({row["n"] for row in results["rows"]}) == 1
    again = run_ablation(smoke, name, progress=False)
    assert again["items"] == results["items"]


def test_only_a_diverged_training_counts_as_wrong(smoke, monkeypatch):
    def fails(error):
        def learn(*_):
            raise error

        monkeypatch.setattr(smoke, "learn", learn)
        return learned(smoke, 0)

    assert fails(Diverged("went to infinity")).lora is None
    with pytest.raises(SoupError, match="loss is"):
        fails(SoupError("the loss is not the problem, the disk is full"))


def test_unknown_ablation_is_refused(smoke):
    with pytest.raises(SoupError, match="unknown ablation"):
        run_ablation(smoke, "cooking")
    assert all(name == ablation.name for name, ablation in ABLATIONS.items())
