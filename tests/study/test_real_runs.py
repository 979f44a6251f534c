"""Profile `small`, whole: a tiny Llama, a tiny mirror, the command line, a results file."""

import json
import shutil

import pytest
import torch
from mirrors import write_tiny_mirror, write_whole_mirror
from pretrain import word_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from lorasoups.errors import SoupError
from lorasoups.results.file import load_results, with_earlier_seeds
from lorasoups.results.reading import against
from lorasoups.run import cli
from lorasoups.study import profile as profiles
from lorasoups.study.profile import CPU_STEPS, load_profile
from lorasoups.study.stages import Stages
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
    assert set(against(results)) == methods - {"cat"}


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
    experiment = Stages(cut, 1, base.parent / "epochs")
    rows = {skill: len(experiment.encoded(skill)) for skill in cut.skills}
    assert {
        skill: experiment._config(skill).steps for skill in cut.skills
    } == rows  # 2 epochs, batches of 2
    mixed = experiment.data_mix("data_mix", 0)
    assert mixed.log["steps"] == sum(rows.values())


FORM_STUDY = """
extends = "small"

[studies.tiny]
like = "reading_form"
n_train = 60
n_test = { reading_form = 6, reading = 4, form = 4 }
n_loss = 2
max_new_tokens = 4
methods = ["target", "data_mix*", "tuned_sum", "random_loras", "cat_softmax", "linear@delta/w1"]
training = { steps = 2, warmup_steps = 1, r = 2 }
by_skill = { form = { steps = 3 } }
alphas = { epochs = 1, n_held_out = 2 }

[studies.shown]
like = "tiny"
dtype = "bfloat16"
demonstrations = 2
methods = ["linear@delta/w1"]
"""


def test_a_study_of_a_form_on_a_cpu_is_not_cut_and_has_every_row(
    base, tmp_path_factory, tmp_path, monkeypatch
):
    mirror = write_whole_mirror(tmp_path_factory.mktemp("whole"))
    monkeypatch.setenv(MIRROR_VARIABLE, str(mirror))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "own.toml").write_text(FORM_STUDY)
    own = [
        *command(base, mirror, tmp_path),
        "--profile",
        str(tmp_path / "own.toml"),
        "--limit",
        "6",
    ]
    assert cli.main([*own, "--study", "tiny", "--seeds", "2"]) == 0
    results = load_results("own", "tiny", tmp_path)
    assert results["config"]["note"] == "" and results["config"]["training"]["steps"] == 2
    methods = {"base", "reading", "form", "target", "data_mix", "data_mix_2r", "data_mix_warm",
               "cat", "cat_softmax", "random_loras", "tuned_sum", "linear@delta/w1"}  # fmt: skip
    whole = [r for r in results["rows"] if r["view"] == "all"]
    assert {r["method"] for r in whole} == methods
    assert len(whole) == 3 * 2 * len(methods)  # tests, seeds: every method takes the skills' tests
    assert all(r["extra"]["loss"] > 0 for r in whole)
    assert {r["view"] for r in results["rows"]} > {"all"}
    added = [*own[:-4], "--out", str(tmp_path / "added"), *own[-4:], "--study", "tiny"]
    shutil.copytree(tmp_path / "cache", tmp_path / "added" / "cache")
    assert cli.main(added) == 0
    assert cli.main([*added, "--first-seed", "1"]) == 0
    both = load_results("own", "tiny", tmp_path / "added")
    for field in ("rows", "items", "alphas", "curves", "skills", "artifacts"):
        assert both[field] == results[field], field
    assert both["config"]["seeds"] == [0, 1] and len(both["provenance"]["earlier"]) == 1
    with pytest.raises(SoupError, match="n_loss is not what the seeds that are there"):
        with_earlier_seeds(both | {"config": both["config"] | {"n_loss": 1}}, results, "tiny.json")
    steps = {e["name"]: e["steps"] for e in results["skills"]}
    assert steps == {"reading": 2, "form": 3, "target": 3, "data_mix": 5, "data_mix_2r": 5,
                     "data_mix_warm": 2}  # fmt: skip
    assert cli.main([*own, "--study", "shown", "--seeds", "2"]) == 0
    shown = Stages(load_profile(tmp_path / "own.toml", "shown", base=str(base)), 2, tmp_path)
    item, plain = shown.items("reading_form")[0], shown.source.items("reading_form", "test", 1)[0]
    assert item["prompt"].endswith(plain["prompt"]) and item["prompt"].count("Passage:") == 3
    assert item["prompt"].count(plain["question"].splitlines()[-1]) == 3  # all in the item's form
    assert shown.items("reading")[0]["prompt"].count("Passage:") == 1
    infos = [
        load_results("own", name, tmp_path)["config"]["base_info"] for name in ("tiny", "shown")
    ]
    assert [info["dtype"] for info in infos] == ["float32", "bfloat16"]
    assert shown.source.model.config._attn_implementation == "eager"


def test_every_seed_draws_its_own_training_rows(base, tmp_path_factory, tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(write_whole_mirror(tmp_path_factory.mktemp("whole"))))
    drawn = {}
    for redraw in (True, False):
        own = load_profile("small", "reading_form", base=str(base), redraw=redraw, n_train=20)
        stages = Stages(own, 2, tmp_path)
        drawn[redraw] = [stages.encoded("reading", seed) for seed in (0, 1, 0)]
    assert drawn[True][0] == drawn[True][2] != drawn[True][1]
    assert drawn[False][0] == drawn[False][1]
