"""The commands ``data`` and ``decontaminate``."""

import json

import pytest
from mirrors import CODE, GSM8K, HARD, write_split, write_whole_mirror

from lorasoups import cli
from lorasoups.hub import MIRROR_VARIABLE
from lorasoups.profiles import get_profile
from lorasoups.real_rows import MANUAL_VARIABLE
from lorasoups.real_sets import catalogue


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return write_whole_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, "")  # put back what the command line sets
    monkeypatch.setenv(MANUAL_VARIABLE, "")


def run(*words):
    return cli.main([str(word) for word in words])


def listed(out):
    return {line.split("  ")[0]: line for line in out.splitlines()}


def test_data_lists_every_set_with_what_the_mirror_has(mirror, capsys):
    assert run("data", "--hub-mirror", mirror) == 0
    out = capsys.readouterr().out
    lines = listed(out)
    assert len(out.splitlines()) == 1 + len(catalogue().sets)
    assert "395,000" in lines["meta-math/MetaMathQA"]
    assert "not here" in lines["meta-math/MetaMathQA"]
    assert "stand-in openai/gsm8k (math)" in lines["meta-math/MetaMathQA"]
    assert "STAND-IN: 120 rows" in lines[CODE[0]] and "CC BY-NC 4.0" in lines[CODE[0]]
    assert "mirror, in part" in out and "SUBSET" in lines["tatsu-lab/alpaca"]
    assert "mirror" in lines[GSM8K[0]] and "stand-in" not in lines[GSM8K[0]]


def test_data_without_a_mirror_looks_into_the_caches(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    (tmp_path / "openai___gsm8k").mkdir()
    assert run("data") == 0
    lines = listed(capsys.readouterr().out)
    assert "cache" in lines[GSM8K[0]] and "Hub" in lines[HARD[0]]
    assert "not here" in lines["local/bioasq-rc"]


def test_decontaminate_prints_and_writes_the_report(mirror, tmp_path, capsys):
    leak = "Ann has 3 and 3 hens. How many ? She also has a dog and two cats."
    rows = [{"question": leak, "answer": "7+7=<<7+7=14>>14\n#### 14"}]
    rows += [{"question": f"Nothing {i}", "answer": "#### 1"} for i in range(60)]
    file = tmp_path / "report.json"
    own = write_whole_mirror(tmp_path / "mirror")
    write_split(own, GSM8K, "train", rows)
    options = ["--skills", "math", "metamath", "--tests", "mawps", "gsm_hard", "--n", 5]
    assert run("decontaminate", "--hub-mirror", own, *options, "--json", file) == 0
    out = capsys.readouterr().out
    assert "stand-in for meta-math/MetaMathQA: openai/gsm8k train" in out
    report = json.loads(file.read_text())
    pair = next(p for p in report["pairs"] if (p["train"], p["test"]) == ("math", "mawps"))
    assert pair["numbers_masked"]["items"] == 5 and pair["as_it_is"]["items"] == 1
    assert report["n"] == 5 and {d["repo"] for d in report["data"]} >= {GSM8K[0], HARD[0]}


def test_decontaminate_takes_sets_from_profile_or_study(mirror, capsys):
    assert run("decontaminate", "--profile", "small", "--hub-mirror", mirror) == 0
    lines = capsys.readouterr().out.splitlines()
    tests = get_profile("small").n_test
    assert [(line.split()[0], line.split()[2]) for line in lines[1 : 1 + 2 * len(tests)]] == [
        (skill, test) for test in tests for skill in ("math", "code")
    ]
    assert run("decontaminate", "--study", "formats", "--hub-mirror", mirror) == 0
    assert capsys.readouterr().out.count("formats") == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["decontaminate", "--profile", "mini"], "generated data"),
        (["decontaminate", "--study", "history"], "unknown study 'history'"),
        (["decontaminate", "--skills", "gsm_hard", "--tests", "mawps"], "for the test alone"),
        (["decontaminate", "--skills", "math", "--tests", "manual"], "without a test part"),
        (["decontaminate", "--n", "0"], "n-grams of 0 words"),
        (["data", "--hub-mirror", "nowhere"], "no such mirror folder"),
    ],
)
def test_bad_input_is_one_line(mirror, monkeypatch, capsys, words, told):
    monkeypatch.setenv(MIRROR_VARIABLE, str(mirror))
    assert run(*words) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and told in error[0]
