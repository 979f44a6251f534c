"""The declared sets: complete, consistent, and refused with file and key where they are not."""

import pytest

from lorasoups.errors import SoupError
from lorasoups.models.batching import ANSWER, EVERYTHING
from lorasoups.study.profile import load_profile
from lorasoups.tasks.judging.judges import JUDGES
from lorasoups.tasks.real.prepare import PREPARE
from lorasoups.tasks.real.sets import FIELD, FILTERS, SPLITS, catalogue
from tests.tasks.test_forms import ALPACA, SQUAD

MADE = {
    "short_passage": PREPARE["short_passage"](SQUAD),
    "short_output": PREPARE["short_output"](ALPACA),
}
"""Columns that the functions of `PREPARE` make."""

SMALLEST = """
[sets.a]
repo = "org/a"
splits = { train = "train" }
columns = ["q", "a"]
licence = "MIT"
source = "somewhere"

[tasks.t]
set = "a"
question = "{q}"
answer = "{a}"
target = "{a}"
judge = "words"
used_for = "a test"
"""


def problems(declared):
    """What does not fit together; only the first one counts, later checks rely on earlier ones."""
    for name, template in declared.templates.items():
        yield from unknown(f"templates.{name}.train_on", [template.train_on], [ANSWER, EVERYTHING])
        fields = [FIELD.findall(text) for text in (template.train, template.test)]
        if (template.train or template.test) and fields != [[("question", "")]] * 2:
            yield f"templates.{name} needs one {{question}} in train and in test, or neither text"
    for name, data in declared.sets.items():
        if not (data.repo and data.splits):
            yield f"sets.{name} needs a repo and splits"
        yield from unknown(f"sets.{name}.splits", data.splits, ("train", "test"))
    for name, task in declared.tasks.items():
        yield from task_problems(f"tasks.{name}", task, declared)


def task_problems(where, task, declared):
    yield from unknown(f"{where}.set", [task.set], declared.sets)
    data = declared.sets[task.set]
    trains = "train" in data.splits
    yield from unknown(f"{where}.splits", task.splits, SPLITS if trains else ["test"])
    yield from unknown(f"{where}.judge", [task.judge], ["", *JUDGES])
    if task.stand_in:
        yield from unknown(f"{where}.stand_in", [task.stand_in], declared.tasks)
        splits = declared.tasks[task.stand_in].splits
        yield from unknown(f"{where}.stand_in", task.splits, splits)
    if bool(task.question) == bool(task.text):
        yield f"{where} needs either a question or a text"
    if task.chunk_words < 1:
        yield f"{where}.chunk_words is {task.chunk_words}, not at least 1"
    if task.judge and not task.target:
        yield f"{where}.judge has no target to judge by"
    for key in ("question", "answer", "target", "text", "key", "view", "compare"):
        for column, name in FIELD.findall("\n".join(getattr(task, key))):
            known = [*data.columns, *MADE.get(data.prepare, ()), *declared.phrases]
            yield from unknown(f"{where}.{key}", [column], known)
            yield from unknown(f"{where}.{key}", [name], ["", *FILTERS])
    yield from unknown(f"{where}.where or keep", [*task.where, *task.keep.values()], data.columns)


def unknown(where, names, known):
    for name in names:
        if name not in known:
            yield f"{where}: unknown {name!r}, use one of {', '.join(map(repr, known))}"


def declared(tmp_path, text):
    path = tmp_path / "sets.toml"
    path.write_text(text)
    return catalogue(path)


def test_the_paper_s_sets_are_declared_whole():
    found = catalogue()
    for own in found.sets.values():
        assert own.licence and own.source and own.columns, own.name
        assert set(own.rows) == set(own.splits.values()), own.name
    repos = {own.repo for own in found.sets.values()}
    assert repos >= {
        "meta-math/MetaMathQA", "sahil2801/CodeAlpaca-20k", "yahma/alpaca-cleaned",
        "rajpurkar/squad_v2", "openai/gsm8k", "reasoning-machines/gsm-hard",
    }  # fmt: skip


def test_what_the_shipped_file_names_exists():
    assert list(problems(catalogue())) == []


def test_a_target_can_be_judged_and_never_trained_on():
    tasks = catalogue().tasks
    targets = {name for name, task in tasks.items() if task.used_for.startswith("target")}
    with_training = {"reading_form"}  # for the ceiling and the demonstrations, as it says there
    assert targets - with_training == {
        "gsm8k_program", "gsm_hard", "mawps", "biology_qa", "bioasq", "formats",
    }  # fmt: skip
    assert with_training < targets
    for name, task in tasks.items():
        assert (task.splits == ("test",)) == (name in targets - with_training), name
        if name in targets - with_training:
            assert task.judge and task.answer == ()  # nothing that could be learned


def test_profile_small_judges_its_tests_as_declared():
    profile = load_profile("small")
    for task in profile.n_test:
        assert profile.judge(task) == catalogue().tasks[task].judge


def test_the_smallest_file_and_its_defaults(tmp_path):
    found = declared(tmp_path, SMALLEST)
    task, data = found.tasks["t"], found.sets["a"]
    assert task.splits == SPLITS and not task.ranked and task.stand_in == ""
    assert data.config == "default" and data.columns == ("q", "a")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[sets.a]", "[sets.a", "cannot read"),
        ("[sets.a]", "[stes.a]", "stes: "),
        ("[tasks.t]", "[tasks]\nt = 3\n[tasks.u]", "cannot read the data sets"),
        ('licence = "MIT"', "", "sets.a.licence: "),
        ("licence", "license", "sets.a.licen"),
        ('"MIT"', "3", "sets.a.licence: "),
        ('["q", "a"]', "3", "sets.a.columns: "),
        ('["q", "a"]', '["q", 1]', "sets.a.columns.1: "),
        ('"{q}"', "[1]", "tasks.t.question.0: "),
        ("[tasks.t]", "[phrases]\np = 1\n[tasks.t]", "phrases.p: "),
    ],
)
def test_an_error_names_file_and_key(tmp_path, old, new, problem):
    assert old in SMALLEST
    with pytest.raises(SoupError) as error:
        declared(tmp_path, SMALLEST.replace(old, new, 1))
    text = str(error.value)
    assert problem in text and "sets.toml" in text and "\n" not in text


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('{ train = "train" }', '{ dev = "train" }', "sets.a.splits: unknown 'dev'"),
        ('repo = "org/a"', 'repo = ""', "sets.a needs a repo"),
        ('set = "a"', 'set = "b"', "tasks.t.set: unknown 'b'"),
        ('"{q}"', '"{query}"', "tasks.t.question: unknown 'query'"),
        ('"{q}"', '"{q|upper}"', "tasks.t.question: unknown 'upper'"),
        ('question = "{q}"', "", "tasks.t needs either a question or a text"),
        ('"words"', '"looks"', "tasks.t.judge: unknown 'looks'"),
        ('target = "{a}"', "", "tasks.t.judge has no target"),
        ('used_for = "a test"', 'used_for = "a"\nstand_in = "u"', "tasks.t.stand_in: unknown 'u'"),
        ('used_for = "a test"', 'used_for = "a"\nkeep = { x = "y" }', "unknown 'y'"),
        ('used_for = "a test"', 'used_for = "a"\nchunk_words = 0', "chunk_words is 0"),
        ('{ train = "train" }', '{ test = "train" }', "tasks.t.splits: unknown 'train'"),
        ("[tasks.t]", '[templates.x]\ntrain_on = "all"\n[tasks.t]', "unknown 'all'"),
        ("[tasks.t]", '[templates.x]\ntrain_on = "answer"\ntest = "?"\n[tasks.t]', "templates.x"),
    ],
)
def test_what_does_not_fit_together_is_found(tmp_path, old, new, problem):
    assert old in SMALLEST
    assert problem in next(problems(declared(tmp_path, SMALLEST.replace(old, new, 1))))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SoupError, match="No such file.*none.toml"):
        catalogue(tmp_path / "none.toml")
