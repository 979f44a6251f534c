import argparse
import json

import pytest
from soup_helpers import assert_close, random_lora

from lorasoups import METHODS, load_lora, merge, save_lora
from lorasoups.errors import SoupError
from lorasoups.run import cli_merge


def run(*words):
    parser = argparse.ArgumentParser()
    cli_merge.add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args([str(word) for word in words])
    return arguments.run(arguments)


@pytest.fixture
def adapters(tmp_path):
    return [save_lora(random_lora(seed=s), tmp_path / f"adapter{s}") for s in (1, 2)]


def assert_soup(folder, expected):
    soup = load_lora(folder)
    for name in expected.modules:
        assert_close(soup.delta(name), expected.delta(name), "command line against merge()")


def test_merge_writes_the_same_soup_as_the_library(adapters, tmp_path, capsys):
    out, loras = tmp_path / "soup", [load_lora(folder) for folder in adapters]
    assert run("merge", *adapters, "--method", "cat", "--weights", 0.5, -2, "--out", out) == 0
    assert "LoRA(3 modules, rank 6" in capsys.readouterr().out
    assert_soup(out, merge(loras, "cat", weights=[0.5, -2.0]))
    options = ["--density", 0.5, "--seed", 3, "--option", "majority_sign_method=frequency"]
    run("merge", *adapters, "--method", "dare_ties", "--on", "factors", "--rank", 2, *options,
        "--out", out, "--overwrite")  # fmt: skip
    expected = merge(loras, "dare_ties", on="factors", rank=2, density=0.5, seed=3,
                     majority_sign_method="frequency")  # fmt: skip
    assert_soup(out, expected)


def test_merge_takes_alphas_from_a_file(adapters, tmp_path):
    loras = [load_lora(folder) for folder in adapters]
    weights = {name: [0.1 * i, 1.5] for i, name in enumerate(loras[0].modules)}
    file = tmp_path / "alphas.json"
    file.write_text(json.dumps({"weights": weights, "logits": {}}))
    run("merge", *adapters, "--alphas", file, "--out", tmp_path / "soup")
    assert_soup(tmp_path / "soup", merge(loras, "cat", weights=weights))


@pytest.mark.parametrize("content", [None, "{", "[]", '{"logits": {}}', '{"weights": [1]}'])
def test_bad_alphas_are_refused(adapters, tmp_path, content):
    file = tmp_path / "alphas.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SoupError, match="alphas.json"):
        run("merge", *adapters, "--alphas", file, "--out", tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


@pytest.mark.parametrize("words", [["--option", "density"], ["--weights", "nan", "1"]])
def test_bad_options_are_refused_and_nothing_is_written(adapters, tmp_path, words):
    with pytest.raises(SoupError):
        run("merge", *adapters, "--out", tmp_path / "soup", *words)
    assert not (tmp_path / "soup").exists()


def test_methods_lists_each_with_its_paper(capsys):
    assert run("methods") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(METHODS)
    for line, method in zip(lines, METHODS.values(), strict=True):
        assert line.startswith(method.name) and method.summary in line and method.paper in line
