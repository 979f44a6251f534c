"""Which device, and whether bfloat16 pays: measured, and remembered per machine."""

import pytest
import torch

from lorasoups.errors import SoupError
from lorasoups.lora.lora import pick_device
from lorasoups.models import devices


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """Matmuls that take as long as the test says, and how often they were timed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seconds, calls = {}, []

    def fake(dtype):
        calls.append(dtype)
        return seconds[dtype]

    monkeypatch.setattr(devices, "_matmul_seconds", fake)
    devices.fast_bf16.cache_clear()
    yield seconds, calls
    devices.fast_bf16.cache_clear()


@pytest.mark.parametrize("bf16, answer", [(0.5, True), (1.0, False), (1.5, False)])
def test_bf16_auto_is_what_is_faster_and_is_remembered(timed, bf16, answer):
    seconds, calls = timed
    seconds |= {torch.float32: 1.0, torch.bfloat16: bf16}
    assert devices.fast_bf16("cpu") is answer
    devices.fast_bf16.cache_clear()  # another process of this machine
    assert devices.fast_bf16("cpu") is answer and len(calls) == 2


def test_a_damaged_memory_is_measured_again(timed, tmp_path):
    seconds, calls = timed
    seconds |= {torch.float32: 1.0, torch.bfloat16: 0.5}
    (tmp_path / "lorasoups").mkdir()
    (tmp_path / "lorasoups" / "bf16.json").write_text("{")
    assert devices.fast_bf16("cpu") is True and len(calls) == 2


def test_measuring_takes_little_time():
    assert 0 < devices._matmul_seconds(torch.float32, size=64, budget=0.01) < 0.01


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    for there, name in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert pick_device("auto") == name
    assert pick_device("cuda:0") == "cuda:0"


def test_a_device_that_is_not_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SoupError, match="no GPU"):
        pick_device("cuda")
    with pytest.raises(SoupError, match="unknown device"):
        pick_device("warp")
