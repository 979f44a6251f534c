"""Adapters on disk: read as PEFT reads them, written so that PEFT alone reads them back."""

import json
import subprocess
import sys

import pytest
import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from soup_helpers import (
    assert_close,
    logits,
    random_factors,
    random_lora,
    reload,
    save_adapter,
    tiny_llama,
)

import lorasoups
from lorasoups import METHODS, load_lora, merge, save_lora
from lorasoups.lora.adapters import from_peft
from lorasoups.lora.lora import LoRA
from lorasoups.lora.peft_config import config_of

CONFIGS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "rank pattern": {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"q_proj": 3}},
    "patterns by layer": {
        "rank_pattern": {"layers.1.self_attn.q_proj": 7, r"layers\.\d+\.mlp\.down_proj": 3},
        "alpha_pattern": {"^model.layers.11.self_attn.q_proj": 5},
        "use_rslora": True,
    },
    "first match wins": {"rank_pattern": {"layers.1.self_attn.q_proj": 2, "q_proj": 3}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_deltas_are_those_of_peft(tmp_path, name):
    folder, model = save_adapter(tmp_path / "a", layers=12, **CONFIGS[name])
    lora = load_lora(folder)
    layers = dict(model.named_modules())
    assert len(lora.modules) == 24
    for module in lora.modules:
        layer = layers[f"base_model.model.{module}"]
        expected = layer.get_delta_weight("default").data
        assert_close(lora.delta(module), expected, f"load_lora, {name}")
        assert lora[module].scale == pytest.approx(layer.scaling["default"])
    live = from_peft(model)
    for module in lora.modules:
        assert torch.equal(lora.delta(module), live.delta(module))


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
@pytest.mark.parametrize("name", CONFIGS)
def test_stock_peft_reloads_the_same_logits(tmp_path, name):
    folder, model = save_adapter(tmp_path / "a", layers=12, **CONFIGS[name])
    save_lora(load_lora(folder), tmp_path / "b")
    assert_close(logits(reload(tmp_path / "b", 12)), logits(model), f"reloaded logits, {name}")
    assert (logits(model) - logits(tiny_llama(12))).abs().max() > 0.01


def test_a_soup_of_different_ranks_equals_the_model_with_the_dense_sum(tmp_path):
    one, _ = save_adapter(tmp_path / "1", 1, 12, rank_pattern={"layers.1.self_attn.q_proj": 7})
    two, _ = save_adapter(tmp_path / "2", 2, 12, use_rslora=True, target_modules=["q_proj"])
    loras = [load_lora(one), load_lora(two)]
    save_lora(merge(loras, "cat", weights=[0.8, -0.5]), tmp_path / "soup")
    config = json.loads((tmp_path / "soup" / "adapter_config.json").read_text())
    assert config["rank_pattern"][r"^model\.layers\.1\.self_attn\.q_proj"] == 11
    base = tiny_llama(12)
    for weight, lora in zip([0.8, -0.5], loras, strict=True):
        for name in lora.modules:
            base.get_submodule(name).weight.data += weight * lora.delta(name)
    reloaded = reload(tmp_path / "soup", 12)
    assert_close(logits(reloaded), logits(base), "soup's logits against the dense sum")
    assert_close(
        logits(reloaded.merge_and_unload()), logits(base), "merge_and_unload against the dense sum"
    )


def test_the_value_survives_disk_bit_by_bit(tmp_path):
    lora = random_lora(base="some/base")
    assert save_lora(lora, tmp_path / "deep" / "a") == tmp_path / "deep" / "a"
    back = load_lora(tmp_path / "deep" / "a")
    assert back.base_model == "some/base" and set(back.modules) == set(lora.modules)
    for name in lora.modules:
        assert torch.equal(back[name].A, lora[name].A)
        assert torch.equal(back[name].B, lora[name].B)
        assert back[name].scale == 1.0


def test_saving_can_cut_the_rank(tmp_path):
    lora = random_lora()
    soup = merge([lora, lora], "cat", weights=[0.5, 1.5])
    save_lora(soup, tmp_path / "a", rank=3)
    back = load_lora(tmp_path / "a")
    for name in lora.modules:
        assert back.rank(name) == 3
        assert_close(back.delta(name), 2 * lora.delta(name), "save_lora(rank=), true rank")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_written_and_read(tmp_path, dtype):
    lora = random_lora()
    save_lora(lora, tmp_path / "a", dtype=dtype)
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    for name, factors in load_lora(tmp_path / "a").modules.items():
        assert torch.equal(factors.A, lora[name].A.to(dtype).float())


def test_saved_bytes_do_not_depend_on_when_or_in_which_order(tmp_path):
    lora = random_lora()
    save_lora(lora, tmp_path / "a")
    save_lora(LoRA(dict(reversed(lora.modules.items()))), tmp_path / "b")
    for file in ("adapter_config.json", "adapter_model.safetensors", "soup.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_provenance_travels(tmp_path):
    save_lora(random_lora(seed=1), tmp_path / "math")
    save_lora(random_lora(seed=2), tmp_path / "code")
    loras = [load_lora(tmp_path / "math"), load_lora(tmp_path / "code")]
    save_lora(merge(loras, "linear"), tmp_path / "soup")
    made = load_lora(tmp_path / "soup").provenance["made"]
    assert made["method"] == "linear"
    assert [source["source"] for source in made["sources"]] == ["math", "code"]
    assert all(len(source["sha256"]) == 64 for source in made["sources"])


def test_a_missing_config_key_has_pefts_default(tmp_path):
    folder, model = save_adapter(tmp_path / "a", r=8, lora_alpha=8)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text())
    keep = ("peft_type", "target_modules")
    file.write_text(json.dumps({key: config[key] for key in keep}))
    lora = load_lora(folder)
    assert lora.base_model == "" and {f.scale for f in lora.modules.values()} == {1.0}
    assert_close(logits(reload(folder)), logits(model), "PEFT's own defaults")


def test_a_copy_from_a_live_model_does_not_follow_it(tmp_path):
    _, model = save_adapter(tmp_path / "a")
    lora = from_peft(model)
    before = lora["model.layers.0.self_attn.q_proj"].A.clone()
    for parameter in model.parameters():
        parameter.data += 1
    assert torch.equal(lora["model.layers.0.self_attn.q_proj"].A, before)


def test_integer_tensors_are_no_factors(tmp_path):
    save_lora(random_lora(), tmp_path / "a")
    file = tmp_path / "a" / "adapter_model.safetensors"
    save_file({name: t.to(torch.int8) for name, t in load_file(file).items()}, file)
    with pytest.raises(lorasoups.errors.SoupError, match="int8"):
        load_lora(tmp_path / "a")


def test_the_face_is_five_names_and_importing_it_is_quick():
    assert sorted(lorasoups.__all__) == [
        "METHODS",
        "learn_alphas",
        "load_lora",
        "merge",
        "save_lora",
    ]
    assert set(lorasoups.__all__) <= set(dir(lorasoups))
    with pytest.raises(AttributeError, match="no attribute 'soup'"):
        _ = lorasoups.soup
    code = "import sys, lorasoups, lorasoups.run.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_patterns_name_one_module_each_by_pefts_own_matching():
    ranks = {"m.x": 2, "enc.m.x": 3, "layers.1.x": 4, "layers.11.x": 5, "layers_1.x": 1, "y": 3}
    lora = LoRA({name: random_factors(6, 6, rank) for name, rank in ranks.items()})
    config = config_of(lora)
    assert config["r"] == config["lora_alpha"] == 3
    for key in ("rank_pattern", "alpha_pattern"):
        for name, rank in ranks.items():
            found = get_pattern_key(config[key].keys(), name)
            assert config[key].get(found, config["r"]) == rank


@pytest.mark.parametrize("name, on", [(n, on) for n, m in METHODS.items() for on in m.on])
def test_soups_of_every_method_reload_in_stock_peft(tmp_path, name, on):
    loras = [load_lora(save_adapter(tmp_path / str(seed), seed)[0]) for seed in (1, 2)]
    soup = merge(loras, name, weights=[1.0, 0.5], on=on)
    save_lora(soup, tmp_path / "soup")
    base = tiny_llama()
    for module in soup.modules:
        base.get_submodule(module).weight.data += soup.delta(module)
    assert_close(logits(reload(tmp_path / "soup")), logits(base), f"reloaded {name}@{on}")
