"""``make gpu`` with a fake: every section on the CPU, on tiny shapes."""

import json

import gpu
import pytest
import torch

TINY = gpu.Scale(device="cpu", shape="tiny", small="tiny", rank=2, batch=2, length=16, eval_batch=2,
                 new_tokens=4, pruned_layers=1, base="no/such-base")  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(gpu, "matmul_peak", lambda *_: 1e9)
    monkeypatch.setattr(gpu, "device_name", lambda _: "Fake H100 (80 GB)")


def report_of(folder):
    return json.loads((folder / "data" / "results" / "gpu" / "fake-h100-80-gb-.json").read_text())


@pytest.mark.slow
def test_every_section_runs_and_is_written(quick, tmp_path, capsys):
    assert gpu.run(str(tmp_path), scale=TINY) == 0, capsys.readouterr().out
    report = report_of(tmp_path)
    sections = report["sections"]
    assert list(sections) == list(gpu.SECTIONS)
    assert not [name for name, found in sections.items() if "error" in found]
    agreement = sections["merges against the CPU"]
    assert set(agreement["largest_error"]) == {f"{m}@{on}" for m, on in gpu.routes()}
    assert sections["7B shape"]["skill_mfu"] > 0
    assert sections["profile small"]["base"] == "not here, random tiny"
    assert all(row["seconds"] > 0 for row in sections["merges of a 7B pair"]["merges"].values())
    assert set(report["versions"]) == {"torch", "transformers", "peft"}


def test_an_error_in_one_section_is_recorded_and_the_rest_goes_on(quick, tmp_path, monkeypatch):
    def too_large(scale):
        raise torch.OutOfMemoryError("CUDA out of memory\nlong story")

    monkeypatch.setattr(gpu, "SECTIONS", {"a": too_large, "b": lambda _: {"ok": True}})
    assert gpu.run(str(tmp_path), scale=TINY) == 1
    sections = report_of(tmp_path)["sections"]
    assert sections["a"] == {"error": "OutOfMemoryError: CUDA out of memory"}
    assert sections["b"]["ok"] and sections["b"]["peak_bytes"] > 0


def test_no_section_starts_after_the_last_minute(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "SECTIONS", {"a": lambda _: {"ok": True}})
    assert gpu.run(str(tmp_path), minutes=-1, scale=TINY) == 0
    assert "skipped" in report_of(tmp_path)["sections"]["a"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert gpu.run() == 0
    assert capsys.readouterr().out == "no GPU that torch can use: nothing to check here\n"
