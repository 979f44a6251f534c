"""One clear SoupError per kind of bad input: what, where, what to do; nothing half-written."""

import errno
import json
import math
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file
from soup_helpers import SHAPES, random_factors, random_lora, save_adapter

from lorasoups import METHODS, load_lora, merge, save_lora
from lorasoups.errors import SoupError
from lorasoups.lora.adapters import from_peft
from lorasoups.lora.lora import LoRA

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A good adapter, to be damaged."""
    return save_lora(random_lora(base="base"), tmp_path / "adapter")


def edit_config(folder, **changes):
    file = folder / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_tensors(folder, **changes):
    file = folder / WEIGHTS
    save_file(load_file(file) | changes, file)


def refusal(call, *arguments, **options):
    with pytest.raises(SoupError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- reading -------------------------------------------------------------------------------------


def test_missing_folder_file_and_config_are_named(folder, tmp_path):
    assert "no such adapter folder" in refusal(load_lora, tmp_path / "nothing")
    assert "not a folder" in refusal(load_lora, folder / CONFIG)
    (folder / WEIGHTS).rename(tmp_path / "away")
    assert str(folder / WEIGHTS) in refusal(load_lora, folder)
    (folder / CONFIG).unlink()
    assert str(folder / CONFIG) in refusal(load_lora, folder)


def test_pickled_weights_are_refused_unread(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    message = refusal(load_lora, folder)
    assert "adapter_model.bin" in message and "convert" in message


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights_are_refused(folder, keep):
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    message = refusal(load_lora, folder)
    assert "damaged" in message and str(file) in message


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{}"])
@pytest.mark.parametrize("name", [CONFIG, "soup.json"])
def test_damaged_json_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    assert str(folder / name) in refusal(load_lora, folder)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_tensors_are_refused(folder, value):
    key = "base_model.model.m.layers.0.up.lora_B.weight"
    edit_tensors(folder, **{key: torch.full((12, 3), value)})
    message = refusal(load_lora, folder)
    assert "m.layers.0.up" in message and "NaN or infinity" in message and WEIGHTS in message


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1, 2]},
        {"target_parameters": ["experts.gate_up_proj"]},
        {"layer_replication": [[0, 2]]},
        {"fan_in_fan_out": True},
        {"use_qalora": True},
        {"kasa_config": {"beta": 1.0}},
        {"alora_invocation_tokens": [5]},
        {"an_option_of_the_future": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "loftq"},
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "lora_ga"},
        {"peft_type": "LOHA"},
        {"peft_type": None},
        {"task_type": "SEQ_CLS"},
    ],
    ids=str,
)
def test_what_cannot_be_merged_exactly_is_refused_by_name(folder, changes):
    edit_config(folder, **changes)
    message = refusal(load_lora, folder)
    [(key, value)] = changes.items()
    assert key in message and repr(value) in message and CONFIG in message


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"r": 5}, "config says 5"),
        ({"r": 0}, "positive integer"),
        ({"r": "3"}, "positive integer"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"lora_alpha": math.nan}, "lora_alpha"),
        ({"rank_pattern": {"(": 3}}, "bad pattern"),
        ({"rank_pattern": [3]}, "rank_pattern is no mapping"),
        ({"rank_pattern": {"up": 2}}, "config says 2"),
    ],
    ids=str,
)
def test_configs_that_do_not_fit_the_weights_are_refused(folder, changes, named):
    edit_config(folder, **changes)
    message = refusal(load_lora, folder)
    assert named in message and "adapter" in message


@pytest.mark.parametrize(
    "key, named",
    [
        ("base_model.model.m.embed_tokens.lora_embedding_A", "LoRA on an embedding"),
        ("base_model.model.m.layers.0.up.lora_magnitude_vector", "DoRA"),
        ("base_model.model.m.layers.0.up.lora_B.bias", "lora_bias"),
        ("base_model.model.lm_head.weight", "not a LoRA factor"),
        ("m.layers.0.up.lora_A.weight", "not a LoRA factor"),
    ],
)
def test_unknown_tensors_are_refused_by_name(folder, key, named):
    edit_tensors(folder, **{key: torch.ones(3)})
    message = refusal(load_lora, folder)
    assert key in message and named in message


def test_factors_of_bad_shape_are_refused(folder):
    key = "base_model.model.m.layers.0.up.lora_A.weight"
    edit_tensors(folder, **{key: torch.ones(2, 9)})
    assert "do not fit" in refusal(load_lora, folder)
    edit_tensors(folder, **{key: torch.ones(3, 9, 1, 1)})
    assert "only linear layers" in refusal(load_lora, folder)


def test_half_a_pair_and_an_empty_file_are_refused(folder):
    file = folder / WEIGHTS
    tensors = load_file(file)
    del tensors["base_model.model.m.layers.0.up.lora_B.weight"]
    save_file(tensors, file)
    assert "lora_B of module 'm.layers.0.up' is missing" in refusal(load_lora, folder)
    save_file({}, file)
    assert "no LoRA tensors" in refusal(load_lora, folder)


def test_adapters_that_peft_itself_wrote_are_refused_too(tmp_path):
    dora, model = save_adapter(tmp_path / "dora", use_dora=True)
    assert "use_dora" in refusal(load_lora, dora)
    assert "use_dora" in refusal(from_peft, model)
    assert "no such adapter" in refusal(from_peft, model, "other")
    head, _ = save_adapter(tmp_path / "head", modules_to_save=["lm_head"])
    assert "modules_to_save" in refusal(load_lora, head)
    embedding, _ = save_adapter(tmp_path / "embedding", target_modules=["embed_tokens", "q_proj"])
    assert "embed" in refusal(load_lora, embedding)
    init, _ = save_adapter(tmp_path / "pissa", init_lora_weights="pissa")
    assert "pissa" in refusal(load_lora, init)


# --- merging -------------------------------------------------------------------------------------


def test_nothing_to_merge_and_things_that_are_no_loras():
    assert "empty" in refusal(merge, [])
    assert "str, not a LoRA" in refusal(merge, ["adapters/math"])


def test_different_bases_and_shapes_are_refused():
    one, two = random_lora(base="llama"), random_lora(base="qwen")
    message = refusal(merge, [one, two])
    assert "'llama'" in message and "'qwen'" in message
    assert merge([random_lora(base="llama/"), one, random_lora()]).base_model == "llama"
    wide = LoRA(dict(one.modules) | {"m.layers.0.up": random_factors(12, 10, 3)})
    message = refusal(merge, [one, wide])
    assert "m.layers.0.up" in message and "[12, 10]" in message and "[12, 9]" in message


@pytest.mark.parametrize(
    "weights, named",
    [
        ([0.5], "got 1 for 2"),
        ([0.5, 0.5, 0.5], "got 3 for 2"),
        ([], "got 0 for 2"),
        ([math.nan, 1.0], "NaN"),
        ([1.0, -math.inf], "infinity"),
        ([[0.5, 0.5]], "shape [1, 2]"),
        (0.5, "for 2"),
        (["a", "b"], "not numbers"),
        ("ab", "not numbers"),
        ({name: [1, 2] for name in list(SHAPES)[1:]}, "no weights for module 'm.layers.0.up'"),
        ({name: [1, 2] for name in [*SHAPES, "other"]}, "weights for module 'other'"),
        ({name: [1, 2, 3] for name in SHAPES}, "weights of module"),
        ({name: [1, math.nan] for name in SHAPES}, "NaN"),
    ],
    ids=str,
)
def test_bad_weights_are_refused(weights, named):
    message = refusal(merge, [random_lora(seed=1), random_lora(seed=2)], weights=weights)
    assert "weights" in message and named in message


@pytest.mark.parametrize("density", [0, -0.1, 1.5, math.nan, "0.5", True, None])
@pytest.mark.parametrize("method", [n for n, m in METHODS.items() if "density" in m.options])
@pytest.mark.parametrize("k", [1, 2])
def test_bad_densities_are_refused(method, density, k):
    message = refusal(merge, [random_lora()] * k, method, density=density)
    assert "density" in message and method in message and "(0, 1]" in message


@pytest.mark.parametrize(
    "method, options, named",
    [
        ("tie", {}, "unknown merge method 'tie'; choose one of: cat"),
        (None, {}, "unknown merge method None"),
        ("cat", {"density": 0.5}, "no option 'density'"),
        ("ties", {"seed": 1}, "its options: density, majority_sign_method"),
        ("ties", {"majority_sign_method": "mean"}, '"total" or "frequency"'),
        ("dare_ties", {"seed": -1}, "integer >= 0"),
        ("dare_ties", {"order": ["m.layers.0.up"]}, "every adapted module"),
        ("dare_linear", {"seed": 0.5}, "integer >= 0"),
        ("cat", {"on": "factors"}, 'use on="delta"'),
        ("svd", {"on": "factors"}, 'use on="delta"'),
        ("ties", {"on": "both"}, 'use on="delta" or on="factors"'),
        ("cat", {"rank": 0}, "positive integer"),
        ("svd", {"rank": 1.5}, "positive integer"),
        ("ties", {"rank": "8"}, "positive integer"),
    ],
)
def test_unknown_methods_and_options_are_refused(method, options, named):
    assert named in refusal(merge, [random_lora(seed=1), random_lora(seed=2)], method, **options)


@pytest.mark.parametrize("method", [n for n, m in METHODS.items() if "factors" in m.on])
def test_different_ranks_on_factors_are_refused(method):
    message = refusal(merge, [random_lora(2), random_lora(3)], method, on="factors")
    assert "[2, 3]" in message and 'on="delta"' in message


# --- writing -------------------------------------------------------------------------------------


def test_what_exists_is_not_overwritten_unless_asked(folder, tmp_path):
    other = random_lora(2, seed=9)
    assert "not empty" in refusal(save_lora, other, folder)
    assert load_lora(folder).max_rank == 3
    save_lora(other, folder, overwrite=True)
    assert load_lora(folder).max_rank == 2
    assert os.listdir(tmp_path) == ["adapter"]
    (tmp_path / "empty").mkdir()
    save_lora(other, tmp_path / "empty")
    assert load_lora(tmp_path / "empty").max_rank == 2


def test_only_adapters_are_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    message = refusal(save_lora, random_lora(), tmp_path / "thesis", overwrite=True)
    assert "no adapter" in message
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    message = refusal(save_lora, random_lora(), tmp_path / "thesis" / "chapter.tex")
    assert "a file of this name" in message


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    "code, named", [(errno.ENOSPC, "no space left"), (errno.EACCES, "no permission to write")]
)
def test_a_full_disk_leaves_the_old_adapter_and_nothing_else(
    tmp_path, monkeypatch, code, named, exists
):
    target = tmp_path / "soup"
    if exists:
        save_lora(random_lora(2), target)

    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        message = refusal(save_lora, random_lora(3), target, overwrite=True)
    assert named in message and str(target) in message
    assert os.listdir(tmp_path) == (["soup"] if exists else [])
    if exists:
        assert load_lora(target).max_rank == 2


def test_a_failing_last_rename_puts_the_old_adapter_back(folder, tmp_path, monkeypatch):
    original = type(folder).rename

    def rename(path, target):
        if path.name.endswith(".tmp"):
            raise OSError(errno.EIO, "input/output error")
        return original(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "rename", rename)
        refusal(save_lora, random_lora(2), folder, overwrite=True)
    assert load_lora(folder).max_rank == 3
    assert os.listdir(tmp_path) == ["adapter"]


def test_a_file_size_limit_is_reported_and_nothing_stays(tmp_path):
    """A real limit of the operating system, in a process of its own."""
    code = """
        import resource, sys
        from soup_helpers import random_lora
        from lorasoups import save_lora
        from lorasoups.errors import SoupError
        lora = random_lora(rank=9, shapes={"m": (200, 200)})
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save_lora(lora, sys.argv[1])
        except SoupError as error:
            print(error)
    """
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "soup")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert "file size limit" in done.stdout and str(tmp_path / "soup") in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_parent_that_is_a_file_and_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    message = refusal(save_lora, random_lora(), tmp_path / "file" / "soup")
    assert str(tmp_path / "file" / "soup") in message

    def mkdir(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "mkdir", mkdir)
    assert "no permission" in refusal(save_lora, random_lora(), tmp_path / "new" / "soup")


def test_numbers_that_do_not_fit_the_type_are_refused(tmp_path):
    big = LoRA({"m": random_factors(3, 3, 2).scaled(1e6)})
    assert "too large for torch.float16" in refusal(
        save_lora, big, tmp_path / "soup", dtype=torch.float16
    )
    odd = LoRA(big.modules, "", {"when": object()})
    assert "not representable in JSON" in refusal(save_lora, odd, tmp_path / "soup")
    assert "positive integer" in refusal(save_lora, big, tmp_path / "soup", rank=0)
    assert os.listdir(tmp_path) == []
