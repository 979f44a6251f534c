import json
import re

import pytest
from soup_helpers import assert_close, random_lora

from lorasoups import METHODS, load_lora, merge, save_lora
from lorasoups.lora.merging import matches
from lorasoups.run import cli


def run(*words):
    return cli.main([str(word) for word in words])


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
    words = ["--method", "dare_ties", "--on", "factors", "--rank", 2, "--out", out, "--overwrite"]
    assert run("merge", *adapters, *words, *options) == 0
    expected = merge(loras, "dare_ties", on="factors", rank=2, density=0.5, seed=3,
                     majority_sign_method="frequency")  # fmt: skip
    assert_soup(out, expected)


def test_merge_takes_alphas_from_a_file(adapters, tmp_path):
    loras = [load_lora(folder) for folder in adapters]
    weights = {name: [0.1 * i, 1.5] for i, name in enumerate(loras[0].modules)}
    file = tmp_path / "alphas.json"
    file.write_text(json.dumps({"weights": weights, "init": "ones"}))
    assert run("merge", *adapters, "--alphas", file, "--out", tmp_path / "soup") == 0
    assert_soup(tmp_path / "soup", merge(loras, "cat", weights=weights))


def test_alphas_by_layers_and_patterns(adapters, tmp_path, capsys):
    """Written by hand: of several patterns the last counts, a module's own name before all."""
    loras = [load_lora(folder) for folder in adapters]
    names = list(loras[0].modules)
    file = tmp_path / "alphas.json"
    file.write_text(json.dumps({names[0]: [2.0, 0.0], "layers.0-9": [1.0, 0.6], "*.down": [0, 1]}))
    assert run("merge", *adapters, "--alphas", file, "--out", tmp_path / "soup") == 0
    weights = {n: [0.0, 1.0] if n.endswith("down") else [1.0, 0.6] for n in names}
    assert sorted(map(tuple, weights.values())) == [(0.0, 1.0), (1.0, 0.6), (1.0, 0.6)]
    expected = merge(loras, "cat", weights=weights | {names[0]: [2.0, 0.0]})
    assert_soup(tmp_path / "soup", expected)
    for content, told in (({"layers.7-9": [1, 1], "*": [1, 1]}, "'layers.7-9', which no LoRA"),
                          ({"layers.1": [1, 1]}, "no weights for module"),
                          ({"*": [1]}, "weights of module '*': got 1 for 2")):  # fmt: skip
        file.write_text(json.dumps(content))
        assert run("merge", *adapters, "--alphas", file, "--out", tmp_path / "no") == 2
        assert told in capsys.readouterr().err and not (tmp_path / "no").exists()


@pytest.mark.parametrize("pattern, matched", [
    ("layers.1", "1"), ("layers.1-2", "12"), ("layers.1-2.mlp", "2"), ("*.mlp.*", "2"),
    ("q_proj", "1 10"), ("layers.?.*", "12"), ("ayers.1", ""), ("layers.1-2.q_proj", ""),
])  # fmt: skip
def test_patterns_match_whole_parts_of_names(pattern, matched):
    modules = {"1": "model.layers.1.self_attn.q_proj", "2": "model.layers.2.mlp.up_proj",
               "10": "model.layers.10.self_attn.q_proj"}  # fmt: skip
    found = {key for key, name in modules.items() if matches(pattern, name)}
    assert found == set(matched.split() if " " in matched else matched)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"logits": {}}', '{"weights": [1]}'])
def test_bad_alphas_are_refused(adapters, tmp_path, content, capsys):
    file = tmp_path / "alphas.json"
    if content is not None:
        file.write_text(content)
    assert run("merge", *adapters, "--alphas", file, "--out", tmp_path / "soup") == 2
    assert "alphas.json" in capsys.readouterr().err
    assert not (tmp_path / "soup").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (["--option", "density"], "NAME=VALUE"),
        (["--weights", "nan", "1"], "finite"),
        (["--weights", "1", "--alphas", "x.json"], "exclude each other"),
        (["--weights=1,x"], "not numbers: --weights 1,x"),
        (["--dtype", "float16"], "--dtype means nothing here: no --into-base"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(adapters, tmp_path, words, told, capsys):
    assert run("merge", *adapters, "--out", tmp_path / "soup", *words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and told in printed and printed.count("\n") == 1
    assert not (tmp_path / "soup").exists()


def test_weights_with_spaces_or_commas_before_or_after_the_adapters(adapters, tmp_path):
    expected = merge([load_lora(folder) for folder in adapters], "cat", weights=[0.5, -2.0])
    for i, words in enumerate((["--weights", 0.5, -2, *adapters], [*adapters, "--weights=0.5,-2"])):
        assert run("merge", *words, "--out", tmp_path / str(i), "--device", "cpu") == 0
        assert_soup(tmp_path / str(i), expected)


def test_what_svd_loses_is_told_against_the_exact_sum(tmp_path, capsys):
    """Two LoRAs of rank 4: rank 8 holds their sum exactly, rank 4 does not."""
    pair = [save_lora(random_lora(rank=4, seed=s), tmp_path / f"adapter{s}") for s in (1, 2)]
    told = {}
    for rank in (8, 4):
        words = ["--method", "svd", "--rank", rank, "--out", tmp_path / f"soup{rank}"]
        assert run("merge", *pair, *words) == 0
        [told[rank]] = re.findall(r"cut to rank \d: ([\d.]+)% lost", capsys.readouterr().out)
    exact = merge([load_lora(folder) for folder in pair], "linear")
    cut = load_lora(tmp_path / "soup4")
    pieces = [(exact.delta(n), exact.delta(n) - cut.delta(n)) for n in exact.modules]
    size, lost = (sum(float(d.norm() ** 2) for d in own) for own in zip(*pieces, strict=True))
    assert float(told[8]) == 0 and float(told[4]) == pytest.approx(
        100 * (lost / size) ** 0.5, abs=0.01
    )


def test_methods_lists_each_with_its_paper(capsys):
    assert run("methods") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(METHODS)
    for line, method in zip(lines, METHODS.values(), strict=True):
        assert line.startswith(method.name) and method.summary in line and method.paper in line
