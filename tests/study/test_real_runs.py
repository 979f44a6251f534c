"""Profile `small`, whole: a tiny Llama, a tiny mirror, the command line, a results file."""

import json

import pytest
import torch
from mirrors import write_tiny_mirror
from pretrain import word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from lorasoups.results.file import load_results
from lorasoups.run import cli
from lorasoups.study import profile as profiles
from lorasoups.study.profile import CPU_STEPS, load_profile
from lorasoups.study.run import Experiment
from lorasoups.tasks.real import tasks as real_tasks
from lorasoups.tasks.real.hub import MIRROR_VARIABLE

CPU_NOTE = profiles.CPU_NOTE.format(CPU_STEPS)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return write_tiny_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(scope="module")
def base(tmp_path_factory, mirror):
    """An untrained Llama whose tokenizer knows the mirror's words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MIRROR_VARIABLE, str(mirror))
        tests = [("math", "train"), ("code", "train"), ("gsm_hard", "test")]
        texts = [i["question"] + i["answer"] for task in tests for i in real_tasks.items(*task)[0]]
    tokenizer = word_tokenizer([*texts, real_tasks.render(None, "?")])
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory, base, mirror):
    """What one run leaves."""
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MIRROR_VARIABLE, "")  # put back what the command line sets
        patch.setattr(torch.cuda, "is_available", lambda: False)
        assert cli.main(command(base, mirror, folder)) == 0
    return folder


def command(base, mirror, out, *more):
    return [
        "reproduce", "--profile", "small", "--base", str(base), "--hub-mirror", str(mirror),
        "--limit", "4", "--out", str(out), *more,
    ]  # fmt: skip


def test_the_run_writes_complete_results(out):
    results = load_results("small", root=out)
    pairs = {(p["train"], p["test"]) for p in results["decontamination"]["pairs"]}
    assert ("math", "gsm_hard") in pairs and ("code", "math") in pairs
    methods = {"base", "math", "code", "cat", "linear@delta"}
    rows = {(row["task"], row["view"], row["method"]): row for row in results["rows"]}
    assert set(rows) == {(task, "all", m) for task in ("gsm_hard", "math") for m in methods}
    assert all(row["n"] == 4 == sum(row["outcomes"].values()) for row in rows.values())
    assert {e["name"] for e in results["skills"]} == {"math", "code"}
    assert {e["preset"] for e in results["alphas"]} == {"ours"}
    assert {e["b"] for e in results["comparisons"]} == methods - {"cat"}


def test_the_results_say_what_they_are_worth(out):
    config = load_results("small", root=out)["config"]
    assert config["note"] == CPU_NOTE
    notes = {data["repo"]: data["note"] for data in config["data"]}
    assert notes["sahil2801/CodeAlpaca-20k"] == "STAND-IN: 120 rows"
    assert set(notes) == {
        "sahil2801/CodeAlpaca-20k", "openai/gsm8k", "reasoning-machines/gsm-hard",
    }  # fmt: skip


def test_the_results_hold_no_path_of_this_machine(out, base, mirror):
    results = load_results("small", root=out)
    assert results["config"]["base"] == "tiny-llama"
    assert results["provenance"]["world_version"] is None
    text = json.dumps(results)
    assert all(str(place) not in text for place in (out, base.parent, mirror))
    adapters = list(out.rglob("adapter_config.json"))
    assert len(adapters) == 2
    for path in adapters:
        assert json.loads(path.read_text())["base_model_name_or_path"] == "tiny-llama"


def test_a_second_run_reuses_everything_and_says_the_same(out, base, mirror, monkeypatch, capsys):
    monkeypatch.setenv(MIRROR_VARIABLE, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    first = load_results("small", root=out)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("MANIFEST.json")}
    assert cli.main(command(base, mirror, out)) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("MANIFEST.json")} == stamps
    second = load_results("small", root=out)
    assert second["rows"] == first["rows"] and second["timings"] == first["timings"]
    told = capsys.readouterr().out
    assert CPU_NOTE in told and "NOT THE WHOLE SET: STAND-IN: 120 rows" in told
    assert "gsm_hard  all" in told and "written: " in told


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--limit", "0"], "--limit 0"),
        (["--seeds", "0"], "--seeds 0"),
        (["--base", "no-such-folder"], "no base model: no-such-folder"),
        (["--hub-mirror", "nowhere"], "no such mirror folder"),
        (["--only", "03"], "--only means nothing here"),
        (["--steps", "0"], "--steps 0"),
        (["--methods", "cat,magic"], "unknown method 'magic'"),
        (["--study", "soup"], "unknown study 'soup'"),
        (["--tests", "code"], "no such test 'code'"),
    ],
)
def test_bad_input_is_one_line_and_no_results(
    base, mirror, tmp_path, monkeypatch, capsys, more, told
):
    monkeypatch.setenv(MIRROR_VARIABLE, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(command(base, mirror, tmp_path, *more)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and told in lines[0]
    assert not (tmp_path / "data").exists()


def test_epochs_decide_the_steps_and_the_mix_has_every_row_once(base, mirror, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(mirror))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cut = load_profile("small").adapted(device="cpu", base=str(base), limit=4)
    cut = cut.override(epochs=2.0, n_train=10)
    experiment = Experiment(cut, 1, base.parent / "epochs")
    rows = {skill: len(experiment.encoded(skill)) for skill in cut.skills}
    assert {
        skill: experiment._config(skill).steps for skill in cut.skills
    } == rows  # 2 epochs, batches of 2
    mixed = experiment.data_mix("data_mix", 0)
    assert mixed.log["steps"] == sum(rows.values())
