"""The declared sets: complete, consistent, and refused with file and key where they are not."""

import pytest

from lorasoups.errors import SoupError
from lorasoups.study.profile import load_profile
from lorasoups.tasks.judging.judges import JUDGES
from lorasoups.tasks.real.sets import FILE, SPLITS, catalogue
from lorasoups.tasks.real.sets import JUDGES as KNOWN_JUDGES

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


def declared(tmp_path, text):
    path = tmp_path / "sets.toml"
    path.write_text(text)
    return catalogue(path)


def test_the_paper_s_sets_are_declared_whole():
    found = catalogue()
    for own in found.sets.values():
        assert own.licence and own.source and own.columns, own.name
        assert own.file or set(own.rows) == set(own.splits.values()), own.name
    repos = {own.repo for own in found.sets.values()}
    assert repos >= {
        "meta-math/MetaMathQA", "sahil2801/CodeAlpaca-20k", "yahma/alpaca-cleaned",
        "rajpurkar/squad_v2", "openai/gsm8k", "reasoning-machines/gsm-hard",
    }  # fmt: skip


def test_judges_are_those_that_there_are():
    assert set(KNOWN_JUDGES) == {"", *JUDGES}


def test_every_target_of_a_study_can_be_judged_and_never_trained_on():
    found = catalogue()
    assert set(found.studies) == {"hard_math", "manual_qa", "reading", "formats"}
    for study in found.studies.values():
        for task in study.targets:
            assert found.tasks[task].judge and found.tasks[task].splits == ("test",)
            assert found.tasks[task].answer == ""  # nothing that could be learned
        for skill in study.skills:
            assert set(found.tasks[skill].splits) >= {"train", "validation"}


def test_profile_small_judges_its_tests_as_declared():
    profile = load_profile("small")
    for task in profile.n_test:
        assert profile.judge(task) == catalogue().tasks[task].judge


def test_the_smallest_file_and_its_defaults(tmp_path):
    found = declared(tmp_path, SMALLEST)
    task = found.tasks["t"]
    assert task.splits == SPLITS and not task.ranked and task.stand_in == ""
    assert found.set_of("t").config == "default" and found.set_of("t").columns == ("q", "a")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[sets.a]", "[sets.a", "no TOML"),
        ("[sets.a]", "[stes.a]", "unknown table 'stes'"),
        ('licence = "MIT"', "", "missing key sets.a.licence"),
        ("licence", "license", "unknown key sets.a.license"),
        ('"MIT"', "3", "sets.a.licence is 3"),
        ('["q", "a"]', '["q", 1]', "sets.a.columns is"),
        ('["q", "a"]', "[]", "sets.a.columns is"),
        ('{ train = "train" }', '{ dev = "train" }', "unknown split 'dev' in sets.a.splits"),
        ('repo = "org/a"', "", "sets.a needs a repo"),
        ('set = "a"', 'set = "b"', "unknown set 'b' in tasks.t.set"),
        ('"{q}"', '"{query}"', "unknown column 'query' in tasks.t.question"),
        ('"{q}"', '"{q|upper}"', "unknown filter 'upper' in tasks.t.question"),
        ('question = "{q}"', "", "tasks.t needs either a question or a text"),
        ('"words"', '"looks"', "unknown judge 'looks'"),
        ('target = "{a}"', "", "tasks.t.judge has no target"),
        ('used_for = "a test"', 'used_for = "a"\nstand_in = "u"', "unknown task 'u'"),
        ('used_for = "a test"', 'used_for = "a"\nkeep = { x = "y" }', "unknown column 'y'"),
        ('used_for = "a test"', 'used_for = "a"\nchunk_words = 0', "chunk_words is 0"),
        ('{ train = "train" }', '{ test = "train" }', "set a has no train"),
        ("[tasks.t]", '[templates.x]\ntrain_on = "all"\n[tasks.t]', "unknown value 'all'"),
        ("[tasks.t]", '[templates.x]\ntrain_on = "answer"\ntest = "?"\n[tasks.t]', "test alone"),
        ("[tasks.t]", "[phrases]\np = 1\n[tasks.t]", "phrases.p is no text"),
        (
            "[tasks.t]",
            '[studies.s]\nskills = ["v"]\ntargets = ["t"]\n[tasks.t]',
            "unknown task 'v'",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(tmp_path, old, new, told):
    assert old in SMALLEST
    with pytest.raises(SoupError) as error:
        declared(tmp_path, SMALLEST.replace(old, new, 1))
    text = str(error.value)
    assert told in text and "sets.toml" in text and "\n" not in text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SoupError, match="no such file: .*none.toml"):
        catalogue(tmp_path / "none.toml")


def test_the_file_is_packaged_next_to_the_code():
    assert FILE.is_file() and FILE.parent.name == "lorasoups"
