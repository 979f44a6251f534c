"""Profiles: every shipped file, files of one's own, and what options and machines change."""

import fnmatch

import pytest

from lorasoups.errors import SoupError
from lorasoups.study.methods import methods_for, methods_of
from lorasoups.study.profile import (
    CPU_LIMIT,
    CPU_NOTE,
    CPU_STEPS,
    FOLDER,
    SHIPPED,
    STUDIES,
    Profile,
    load_profile,
)
from lorasoups.study.run import adapted_profile, tasks_of
from lorasoups.tasks.judging.judges import JUDGES


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_has_tests_judges_and_its_methods(name, study):
    p = load_profile(name, study)
    assert (p.name, p.study) == (name, study)
    assert p.target in p.n_test and all(p.judge(task) in JUDGES for task in p.n_test)
    assert {"base", *p.skills, "cat"} <= {m.name for m in methods_of(p)}
    if not p.real:
        assert all(p.test_of(skill) in p.n_test for skill in p.skills)


def test_every_file_in_the_folder_is_a_shipped_profile():
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == sorted(SHIPPED)


def test_small_leaves_out_the_weaker_twins():
    names = [m.name for m in methods_of(load_profile("small"))]
    assert len(names) == 24 and "linear@factors" in names and "ties@delta/w1" in names
    assert not {"ties@delta", "ties@factors/w1", "cat_lr0", "lorahub@factors"} & set(names)
    mini, every = load_profile("mini"), methods_for(("math", "code"))
    see_target = {"target", "oracle_sum", "oracle_cat", "lorahub_target"}
    later = see_target.union(*(fnmatch.filter(every, pattern) for pattern in mini.leave_out))
    assert [m.name for m in methods_of(mini)] == [m for m in every if m not in later]
    assert see_target - {"target"} < {
        m.name for m in methods_of(load_profile("mini", "composed_more"))
    }


def test_a_study_s_table_overrides_the_profile():
    p = load_profile("smoke", "manual_qa")
    assert (p.source, p.base, p.tests) == ("pages", "data/pages", {"manual": "manual_recall"})
    assert p.training.steps == 12 and p.by_skill == {}  # smoke is smaller in every study
    mini = load_profile("mini", "manual_qa")
    assert (mini.training.lr, mini.training.steps) == (2e-3, 150)
    assert mini.training_of("manual").steps == 1000
    assert load_profile("mini", budget=3).budget == 3


@pytest.fixture
def own(tmp_path):
    """Writes a profile of one's own; returns its path."""

    def write(text, name="mine"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return write


def test_a_file_of_one_s_own_extends_a_shipped_one(own):
    p = load_profile(own('extends = "small"\nn_train = 7\nalphas = { epochs = 2 }'))
    small = load_profile("small")
    assert p.name == "mine" and p.n_train == 7 and p.target == small.target
    assert p.alphas.epochs == 2.0 and p.alphas.grid == small.alphas.grid
    other = own('extends = "mine.toml"\n[studies.hard_math]\nbudget = 5', "other")
    assert load_profile(other).n_train == 7 and load_profile(other).budget == 5


def test_a_file_without_studies_is_one_study(own):
    p = load_profile(own('target = "hard_math"\nn_test = { hard_math = 3 }'))
    assert p == Profile("mine", n_test={"hard_math": 3})


def test_skills_may_be_given_with_their_loras(own, tmp_path, monkeypatch):
    (tmp_path / "beside").mkdir()
    (tmp_path / "cwd" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    text = 'skills = {{ math = "{}", code = "", third = "org/name@v1" }}'
    p = load_profile(own(text.format("beside")))
    assert p.skills == ("math", "code", "third")
    assert p.adapters == {"math": str(tmp_path / "beside"), "third": "org/name@v1"}
    assert load_profile(own(text.format("here"))).adapters["math"].endswith("here")
    again = own('extends = "mine.toml"\nskills = ["math", "code"]', "trained")
    assert load_profile(again).adapters == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_trian = 3", "unknown key 'n_trian': mine.toml"),
        ("training = { rank = 3 }", "unknown key 'rank': mine.toml, training"),
        ("by_skill = { code = { step = 3 } }", "unknown key 'step': mine.toml, by_skill.code"),
        ('n_train = "3"', "wrong type: mine.toml, n_train is '3'; Input should be a valid int"),
        ("n_test = { math = 1.5 }", "wrong type: mine.toml, n_test.math is 1.5"),
        ('dtype = "bf16"', "wrong type: mine.toml, dtype is 'bf16'; Input should be .*'bfloat16'"),
        ("n_train = true", "mine.toml, n_train is True; Input should be a valid int"),
        ('skills = "math"', "mine.toml, skills is 'math'"),
        ("skills = { math = 3 }", "mine.toml, adapters.math is 3"),
        ("studies = 3", "wrong type: mine.toml, studies; expected tables"),
        ("[studies]\nhard_math = 3", "wrong type: mine.toml, studies; expected tables"),
        ("training = 3", "mine.toml, training is 3; Input should be an object"),
        (
            'alphas = { grid = [["none", "ones"]] }',
            "mine.toml, alphas.grid.0.2 is .*Field required",
        ),
        ("n_train = ", "cannot read the profile"),
        ('extends = "mine.toml"', "extends itself: mine.toml"),
        ('extends = "large"', "unknown profile 'large'"),
        ("[studies.cooking]\nn_train = 3", "unknown study 'hard_math': mine.toml"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_key(own, text, message):
    with pytest.raises(SoupError, match=message) as error:
        load_profile(own(text))
    assert "\n" not in str(error.value)


def test_unknown_profiles_studies_and_methods_are_refused(own):
    with pytest.raises(SoupError, match="unknown profile 'large'.*or give the path"):
        load_profile("large")
    with pytest.raises(SoupError, match="unknown study 'cooking': mini.toml"):
        load_profile("mini", "cooking")
    with pytest.raises(SoupError, match="unknown method 'tises'"):
        methods_of(load_profile("mini", leave_out=("tises",)))


# --- options and machines -----------------------------------------------------------------------


def test_a_gpu_takes_the_whole_profile_and_a_cpu_a_cut_one():
    small = load_profile("small")
    assert small.adapted() == small
    assert set(small.adapted(base="base", limit=7).n_test.values()) == {7}
    cut = small.adapted(device="cpu")
    assert cut.n_test["gsm_hard"] == CPU_LIMIT and cut.note == CPU_NOTE.format(CPU_STEPS)
    assert cut.training.steps < small.training.steps
    assert cut.training.lora_alpha == small.training.lora_alpha
    with pytest.raises(SoupError, match="--limit -1"):
        small.adapted(device="cpu", limit=-1)


def test_options_change_what_they_say():
    small = load_profile("small")
    longer = small.adapted(device="cpu", limit=7, steps=100, methods="data_mix,ties@*")
    assert longer.training.steps == 100 and longer.n_train == 400
    assert "100 training steps" in longer.note
    names = [m.name for m in methods_of(longer)]
    assert names[:5] == ["base", "math", "code", "data_mix", "cat"] and len(names) == 9
    assert len(methods_of(small.adapted(methods="all"))) == 61
    easier = small.adapted(device="cpu", tests={"mawps": "program"}, template="released")
    assert easier.extras == ("mawps",) and easier.n_test["mawps"] == CPU_LIMIT
    assert easier.judge("mawps") == "program" and easier.template == "released"
    less = small.adapted(four_bit=True, checkpointing=True, eval_batch=8)
    assert less.four_bit and less.gradient_checkpointing and less.eval_batch == 8
    assert small.adapted(gpu_bytes=80 * 2**30) == small.override(eval_batch=1280)


def test_a_test_that_is_named_twice_is_evaluated_once():
    small = load_profile("small")
    cat = methods_for(small.skills)["cat"]
    for tests in ("math", "gsm_hard,gsm8k_program", "mawps,mawps"):
        tasks = tasks_of(adapted_profile("small", "hard_math", tests), cat)
        assert len(tasks) == len(set(tasks)) and set(tests.split(",")) <= set(tasks)
    assert small.adapted(tests={"math": "words"}).n_test == small.n_test


def test_the_papers_settings():
    paper = load_profile("paper")
    t = paper.training
    assert (t.r, t.lora_alpha, t.lora_dropout, t.lr, t.batch_size) == (32, 64, 0.05, 3e-4, 16)
    assert t.target_modules == ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
    assert (paper.epochs, paper.max_length, paper.alphas.share) == (3.0, 256, 0.05)
    assert paper.base == "yahma/llama-7b-hf" and paper.n_test == {"gsm_hard": 1319, "math": 1319}
    shorter = paper.adapted(steps=50)
    assert shorter.training.steps == 50 and shorter.epochs == 0
