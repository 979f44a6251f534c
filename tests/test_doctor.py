"""The doctor: facts, verdicts and advice on faked machines; never a token, never the network."""

import json
import re
import socket
from dataclasses import replace

import pytest

from lorasoups import calibration, cli, doctor, local_models, machine
from lorasoups.calibration import Calibration, calibrate
from lorasoups.doctor import Hub, Question, diagnose
from lorasoups.doctor_text import text
from lorasoups.errors import SoupError
from lorasoups.estimates import Speed
from lorasoups.machine import Gpu, Machine, facts
from lorasoups.measured import compare, profile_in, table
from lorasoups.paths import Folders
from lorasoups.plan import Device, Plan
from lorasoups.profiles import get_profile
from lorasoups.results import results_path
from lorasoups.shapes import ModelShape

SPEED = Speed(1e11, 1e11, 1e11, 1e11, 1e10, source="faked")
CANARY = "hf_" + "canaryCANARY0123456789"
ONLINE = Hub(token=False, offline=False, cache="/nowhere")
LAPTOP = Machine(
    system="Linux x86_64", python="3.11", cpu="Some CPU", cores=8, threads=8, cpu_flags=("AVX2",),
    cpu_bf16=False, memory=16 * 10**9, free=12 * 10**9, load=0.1, disk_free=10**12, gpus=(),
    versions={"torch": "2.13"}, extras={"bitsandbytes": True, "gguf": True, "submitit": False},
)  # fmt: skip
EIGHTY = Gpu("NVIDIA H100 80GB HBM3", 85 * 10**9, 84 * 10**9, "9.0", True)
SERVER = replace(LAPTOP, gpus=(EIGHTY,), memory=10**12, free=10**12)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the doctor wants to connect")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("LORASOUPS_HUB_MIRROR", "")  # so that it is put back in any case
    monkeypatch.delenv("LORASOUPS_HUB_MIRROR")


@pytest.fixture
def called(monkeypatch):
    """The command line on a faked machine; nothing is timed."""
    shape = ModelShape("x", 1, 8, 8, 1, 1, 8, 8)
    monkeypatch.setattr(calibration, "calibrate", lambda _: Calibration(SPEED, {}, 0.0, shape))
    monkeypatch.setattr(machine, "facts", lambda _: LAPTOP)

    def call(*arguments):
        return cli.main(["doctor", *arguments])

    return call


def look(question=Question(), at=LAPTOP, hub=ONLINE):  # noqa: B008
    return diagnose(question, at, hub, Folders().project, lambda _: SPEED)


def advice(report):
    return " ".join(problem["what"] + " " + problem["do"] for problem in report["problems"])


# --- verdicts -----------------------------------------------------------------------------------


def test_mini_fits_a_laptop():
    report = look(Question(seeds=2))
    assert report["fits"] and not report["problems"]
    assert [s["name"] for s in report["stages"]] == [
        "skill", "alphas", "merge", "lorahub", "xlora", "evaluate",
    ]  # fmt: skip
    assert all(s["seconds"] > 0 and s["peak_bytes"] > 10**8 for s in report["stages"])
    assert report["seconds"] == pytest.approx(sum(s["seconds"] for s in report["stages"]))
    assert "profile mini fits this machine" in text(report)


def test_mini_does_not_fit_a_toy():
    report = look(at=replace(LAPTOP, memory=10**9, free=5 * 10**8))
    assert not report["fits"] and "--profile smoke" in advice(report)
    assert "DOES NOT FIT" in text(report) and "does not fit" in text(report)


def test_the_papers_profile_on_a_large_gpu_on_a_small_one_and_on_none():
    question = Question("paper")
    assert look(question, SERVER)["fits"]
    card = Gpu("NVIDIA GeForce RTX 3090", 24 * 10**9, 23 * 10**9, "8.6", True)
    small = look(question, replace(SERVER, gpus=(card,)))
    assert not small["fits"]
    assert "--four-bit" in advice(small) and "A100-80GB" in advice(small)
    assert "--profile small" in advice(small)
    none = look(question)
    assert not none["fits"] and "RAM" in advice(none)


def test_advice_that_is_followed_makes_it_fit():
    """24 GB: what the advice names is enough, by the same estimate."""
    card = Gpu("NVIDIA L4", 24 * 10**9, 23 * 10**9, "8.9", True)
    at = replace(SERVER, gpus=(card,))
    report = look(Question("paper"), at)
    way = report["problems"][0]["do"]
    batch = int((re.search(r"--eval-batch (\d+)", way) or [0, get_profile("paper").eval_batch])[1])
    profile = get_profile("paper").override(
        four_bit="--four-bit" in way,
        gradient_checkpointing="--checkpointing" in way,
        eval_batch=batch,
    )
    lengths = doctor.lengths_of(profile)
    device = Device("cuda", card.name, card.free, True, SPEED)
    shape = local_models.KNOWN[profile.base]
    stages = Plan(profile, shape, device, lengths).stages()
    assert max(s.memory.total for s in stages if s.where == "cuda") < 0.95 * card.free


def test_a_card_that_is_not_here_can_be_asked_about():
    report = look(Question("small", gpu="L4"))
    assert report["fits"] and report["device"]["name"] == "L4"
    assert "not measured" in report["speed"]["source"]
    with pytest.raises(SoupError, match="no data sheet"):
        look(Question("small", gpu="Voodoo 3"))


def test_merges_need_ram_even_beside_a_large_gpu():
    report = look(Question("paper"), replace(SERVER, memory=16 * 10**9, free=16 * 10**9))
    assert not report["fits"] and "--methods" in advice(report) and "merge" in advice(report)
    elsewhere = look(Question("paper", gpu="H100"), LAPTOP)  # its RAM is not this laptop's
    assert elsewhere["fits"] and any("of RAM" in note for note in elsewhere["notes"])


def test_a_full_disk_does_not_fit():
    report = look(Question("paper"), replace(SERVER, disk_free=10**9))
    assert not report["fits"] and "disk" in advice(report)


def test_long_runs_and_busy_machines_are_told():
    notes = " ".join(look(Question(seeds=500), replace(LAPTOP, load=9.0))["notes"])
    assert "fewer --seeds" in notes and "load 9.0" in notes


# --- the Hub, the base, the data ----------------------------------------------------------------


def test_offline_without_base_and_data_does_not_fit():
    report = look(Question("small"), hub=Hub(False, True, ""))
    assert not report["fits"]
    assert "HF_HUB_OFFLINE" in advice(report) and "--hub-mirror" in advice(report)


def test_a_gated_base_needs_a_token():
    question = Question("paper", base="meta-llama/Llama-2-7b-hf")
    without = look(question, SERVER)
    assert "accept its licence" in advice(without) and "yahma/llama-7b-hf" in advice(without)
    with_token = look(question, SERVER, Hub(True, False, ""))
    assert with_token["fits"] and "licence must be accepted" in " ".join(with_token["notes"])


def test_an_unknown_model_cannot_be_estimated():
    report = look(Question("small", base="nobody/nothing-7b"), SERVER)
    assert not report["fits"] and "config.json" in advice(report) and not report["stages"]


def test_four_bits_need_bitsandbytes():
    at = replace(SERVER, extras={"bitsandbytes": False})
    assert "bitsandbytes" in advice(look(Question("paper", four_bit=True), at))


def test_a_mirror_without_the_data_is_told(tmp_path):
    report = look(Question("small", mirror=str(tmp_path)), SERVER)
    assert not report["fits"] and "the mirror has no openai/gsm8k" in advice(report)


# --- the command line ---------------------------------------------------------------------------


def test_exit_codes_and_one_line_errors(called, capsys, monkeypatch, tmp_path):
    assert called() == 0
    monkeypatch.setattr(machine, "facts", lambda _: replace(LAPTOP, free=10**8))
    assert called() == 1
    capsys.readouterr()
    for bad in (
        ["--profile", "huge"],
        ["--study", "cooking"],
        ["--profile", "small", "--hub-mirror", str(tmp_path / "no")],
        ["--base", "no such/thing at all"],
        ["--seeds", "0"],
        ["--limit", "3"],  # means nothing for mini
        ["--profile", "small", "--limit", "0"],
        ["--measured", str(tmp_path / "none.json")],
    ):
        assert called(*bad) == 2, bad
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_token_is_present_and_never_printed(called, capsys, monkeypatch, options):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    called(*options)
    shown = capsys.readouterr()
    assert CANARY not in shown.out + shown.err and CANARY[-8:] not in shown.out
    if options:
        assert json.loads(shown.out)["hub"]["token"] is True
    else:
        assert "token present" in shown.out


def test_no_token_no_canary(called, capsys, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    called()
    assert "token absent" in capsys.readouterr().out


def test_json_holds_everything(called, capsys):
    assert called("--json", "--seeds", "3") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fits"] is True and report["profile"]["seeds"] == 3
    assert report["base"]["parameters"] == 1_570_400
    assert {"machine", "data", "device", "speed", "stages", "problems", "notes"} <= set(report)
    assert report["machine"]["extras"]["submitit"] is False


# --- facts and measured runs --------------------------------------------------------------------


def test_facts_of_this_machine(tmp_path):
    found = facts(tmp_path / "not" / "yet")
    assert found.cores >= 1 and found.threads >= 1 and found.disk_free > 0
    assert found.memory is None or found.free is None or 0 < found.free <= found.memory
    assert "torch" in found.versions and set(found.extras) == set(machine.EXTRAS)


def test_a_containers_limit_counts(monkeypatch):
    monkeypatch.setattr(machine, "_posix", lambda: (64 * 10**9, 50 * 10**9))
    monkeypatch.setattr(machine, "_windows", lambda: (64 * 10**9, 50 * 10**9))
    monkeypatch.setattr(machine, "_cgroup", lambda: (8 * 10**9, 3 * 10**9))
    assert machine._memory() == (8 * 10**9, 5 * 10**9)
    monkeypatch.setattr(machine, "_cgroup", lambda: (None, None))
    assert machine._memory() == (64 * 10**9, 50 * 10**9)


def test_a_results_file_holds_its_profile():
    content = json.loads(results_path("mini", "reading", Folders().project).read_text())
    assert profile_in(content["config"]) == get_profile("mini", "reading")


@pytest.mark.parametrize("study", ["hard_math", "formats"])
def test_estimates_beside_measured_runs(study):
    path = results_path("mini", study, Folders().project)
    compared, notes = compare(path, LAPTOP, Folders().project, lambda _: SPEED)
    by_name = {c.name: c for c in compared}
    measured = json.loads(path.read_text())["timings"]
    assert {"skill", "alphas", "evaluate"} <= set(by_name)
    assert by_name["skill"].measured == measured["skill"]
    assert by_name["skill"].error == by_name["skill"].estimated / measured["skill"] - 1
    assert any("another machine" in note for note in notes)
    assert "error" in table(compared, notes)


def test_estimates_beside_what_measure_wrote(tmp_path):
    stage = {"seconds": 1.0, "tokens_per_s": 1000.0, "peak_bytes": 10**9}
    content = {
        "profile": "small", "shape": "tiny", "layers": 2, "device": "NVIDIA L4", "length": 64,
        "batch": 4, "rank": 8, "steps": 3, "new_tokens": 8, "checkpointing": False,
        "dtype": "bfloat16",
        "stages": {"skill": stage, "alphas": {"error": "out of memory"},
                   "merge": {"seconds": 0.1, "peak_bytes": 1},
                   "evaluate": stage | {"prompts": 6}},
    }  # fmt: skip
    path = tmp_path / "measure.json"
    path.write_text(json.dumps(content))
    compared, notes = compare(path, LAPTOP, Folders().project, lambda _: SPEED)
    units = {c.name.strip(): c.unit for c in compared}
    assert units["skill"] == units["evaluate"] == "tokens/s" and units["skill, peak"] == "bytes"
    assert "alphas" not in units and "L4" in notes[0]
    path.write_text("{}")
    with pytest.raises(SoupError, match="neither results nor a measurement"):
        compare(path, LAPTOP, Folders().project, lambda _: SPEED)


def test_calibration_measures_this_machine():
    """A tiny shape, real stages: rates are positive, and the base's numbers play no part."""
    profile = get_profile("smoke")
    shape = ModelShape("tiny", 2, 32, 64, 2, 2, 16, 128)
    lengths = {(skill, "train"): doctor_row() for skill in profile.skills}
    plan = Plan(profile, shape, Device("cpu", "x", 1e10, False, SPEED), lengths)
    found = calibrate(plan)
    speed = found.speed
    rates = (speed.train, speed.alphas, speed.forward, speed.decode, speed.bandwidth)
    assert all(1e5 < rate < 1e15 for rate in rates) and speed.layer_s >= 0
    assert found.matmul["float32"] > 1e9 and found.proxy.layers == 2


def doctor_row():
    from lorasoups.lengths import Lengths

    return Lengths(10, 10, 24, 12)
