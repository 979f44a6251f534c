"""Merging on a device: the same soups wherever they are computed."""

import pytest
import torch
from soup_helpers import assert_close, random_lora

from lorasoups import METHODS, load_lora, merge, save_lora
from lorasoups.errors import SoupError
from lorasoups.lora.lora import Dense, lora_digest

EVERY_WAY = [(name, on) for name, method in METHODS.items() for on in method.on]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def pair():
    return [random_lora(seed=1, scale=2.0), random_lora(seed=2)]


@pytest.mark.parametrize("name, on", EVERY_WAY)
def test_naming_the_cpu_changes_nothing(name, on):
    plain, placed = merge(pair(), name, on=on), merge(pair(), name, on=on, device="cpu")
    assert lora_digest(plain) == lora_digest(placed) and plain.provenance == placed.provenance
    assert {f.device.type for f in placed.modules.values()} == {"cpu"}


def test_a_device_that_is_not_there_is_refused(monkeypatch, tmp_path):
    folder = save_lora(pair()[0], tmp_path / "a")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_lora(folder, device="auto")["m.layers.0.up"].device.type == "cpu"
    with pytest.raises(SoupError, match="no GPU"):
        load_lora(folder, device="cuda")
    with pytest.raises(SoupError, match="unknown device 'warp'"):
        merge(pair(), device="warp")


@needs_cuda
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("name, on", EVERY_WAY)
def test_every_method_gives_the_same_soup_on_a_gpu(name, on, rank):
    here = merge(pair(), name, weights=[0.7, 1.2], on=on, rank=rank)
    there = merge(pair(), name, weights=[0.7, 1.2], on=on, rank=rank, device="cuda")
    for module, factors in there.modules.items():
        assert factors.device.type == "cuda" and factors.delta().dtype == torch.float32
        assert_close(factors.delta().cpu(), here.delta(module), f"{name}@{on} on a GPU")


@needs_cuda
def test_a_soup_from_a_gpu_is_saved_and_read_back_there(tmp_path):
    loras = [lora.to("cuda") for lora in pair()]
    soup = merge(loras, "ties")
    save_lora(soup, tmp_path / "soup")
    back = load_lora(tmp_path / "soup", device="cuda")
    assert isinstance(back["m.layers.0.up"], Dense) and lora_digest(back) == lora_digest(soup)
    with pytest.raises(SoupError, match="different devices"):
        merge([loras[0], pair()[1]])
