"""Taking a soup away: a full model, ranks for servers, a card for the Hub."""

import json
import re
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from soup_helpers import random_factors
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lorasoups.errors import SoupError
from lorasoups.lora import serving
from lorasoups.lora.adapters import load_lora, save_lora
from lorasoups.lora.lora import Factors, LoRA
from lorasoups.lora.merging import merge
from lorasoups.models.into_base import merge_into_base
from lorasoups.paths import Folders
from lorasoups.results.file import load_results
from lorasoups.run import cli
from lorasoups.run.publish import model_card

CANARY = "hf_CANARYcanaryCANARYcanary"
LAYER = "model.layers.0."


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2,
        )
    ).save_pretrained(folder)  # fmt: skip
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Folders().data / "mini" / name, folder / name)
    return folder


@pytest.fixture
def adapters(tmp_path, base):
    """Two skills of different ranks."""
    folders = []
    for i, rank in enumerate((4, 6)):
        modules = {
            LAYER + "self_attn.q_proj": random_factors(32, 32, rank, seed=i),
            LAYER + "mlp.up_proj": random_factors(48, 32, 4, seed=9 + i),
        }
        folders.append(tmp_path / f"skill{i}")
        save_lora(LoRA(modules, "org/random", {"skill": f"skill{i}"}), folders[-1])
    return folders


def command(adapters, out, *more):
    return [
        "merge",
        *map(str, adapters),
        "--weights",
        "1",
        "0.5",
        "--out",
        str(out),
        *map(str, more),
    ]


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(12)[None]).logits


def test_a_full_model_says_what_base_and_adapter_say(base, adapters, tmp_path, capsys):
    assert cli.main(command(adapters, tmp_path / "soup")) == 0
    assert cli.main(command(adapters, tmp_path / "full", "--into-base", base)) == 0
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "soup")
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "full")
    torch.testing.assert_close(logits(full), logits(peft), atol=1e-4, rtol=1e-4)
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert (logits(full) - logits(plain)).abs().max() > 1e-3
    assert AutoTokenizer.from_pretrained(tmp_path / "full")("3 + 4").input_ids
    written = json.loads((tmp_path / "full" / "soup.json").read_text())
    assert written["base"]["name"] == "random" and written["provenance"]["weights"] == [1.0, 0.5]
    assert str(tmp_path) not in json.dumps(written)
    assert "random with the soup, float32" in capsys.readouterr().out


def test_a_full_model_is_verified_by_making_it_again(base, adapters, tmp_path, capsys):
    assert cli.main(command(adapters, tmp_path / "soup")) == 0
    assert cli.main(command(adapters, tmp_path / "full", "--into-base", base)) == 0
    words = ["verify", str(tmp_path / "full"), "--base", str(base), "--soup"]
    assert cli.main([*words, str(tmp_path / "soup")]) == 0
    assert cli.main([*words, str(adapters[0])]) == 1  # another adapter than the soup
    told = capsys.readouterr().out
    assert (
        "all 12 tensors are those of base + soup" in told and "tensors are not base + soup" in told
    )
    file = tmp_path / "full" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][3] += 1e-3
    save_file(tensors, file, {"format": "pt"})
    assert cli.main([*words, str(tmp_path / "soup")]) == 1
    assert "1 of 12 tensors are not base + soup, model.norm.weight" in capsys.readouterr().out
    assert cli.main(["verify", str(tmp_path / "soup"), "--base", str(base), "--soup", "x"]) == 2
    assert "not a merged model" in capsys.readouterr().err


def test_a_merge_is_loaded_with_peft_where_its_base_is_here(base, adapters, tmp_path, capsys):
    assert cli.main(command(adapters, tmp_path / "a", "--base", base)) == 0
    assert "ok       peft: largest difference" in capsys.readouterr().out
    assert cli.main(command(adapters, tmp_path / "b", "--base", base, "--no-verify")) == 0
    assert cli.main(command(adapters, tmp_path / "c")) == 0
    told = capsys.readouterr().out
    assert "peft: largest" not in told and told.count("not loaded for a check: lorasoups ver") == 2
    zero = LoRA({name: Factors(f.A, f.B * 0) for name, f in load_lora(adapters[0]).modules.items()})
    save_lora(zero, tmp_path / "zero")
    words = ["merge", str(tmp_path / "zero"), "--base", str(base), "--out", str(tmp_path / "d")]
    assert cli.main(words) == 1
    assert "the adapter changes no logit" in capsys.readouterr().out


def test_the_dtype_is_the_bases_or_what_is_asked_for(base, adapters, tmp_path):
    soup = load_lora(adapters[0])
    half = tmp_path / "half" / "random"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(half)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, half / name)
    assert merge_into_base(soup, half, tmp_path / "a")["dtype"] == "bfloat16"
    assert merge_into_base(soup, half, tmp_path / "b", dtype="float32")["dtype"] == "float32"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("other base", "trained on 'org/other'"),
        ("other shape", "in the base, (32, 30) in the adapter"),
        ("other module", "the base has no module"),
        ("not empty", "exists and is not empty"),
        ("not ours", "no merged model of ours"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    base, adapters, tmp_path, change, told
):
    lora, out, options = load_lora(adapters[0]), tmp_path / "full", {}
    if change == "other base":
        lora = LoRA(lora.modules, "org/other")
    if change == "other shape":
        lora = LoRA({LAYER + "self_attn.q_proj": random_factors(32, 30, 2)}, "random")
    if change == "other module":
        lora = LoRA({LAYER + "no_proj": random_factors(32, 32, 2)}, "random")
    if change.startswith("not"):
        out.mkdir()
        (out / "mine.txt").write_text("mine")
        options = {"overwrite": change == "not ours"}
    with pytest.raises(SoupError) as refused:
        merge_into_base(lora, base, out, **options)
    assert told in str(refused.value)
    assert [p.name for p in out.glob("*")] == (["mine.txt"] if change.startswith("not") else [])
    assert not list(tmp_path.glob(".*"))


def test_our_own_model_may_be_overwritten_and_names_need_not_agree(base, adapters, tmp_path):
    lora = LoRA(load_lora(adapters[0]).modules, "org/other")
    for _ in range(2):
        merge_into_base(lora, base, tmp_path / "full", any_base=True, overwrite=True)
    assert not list(tmp_path.glob(".*"))


def test_the_rank_a_server_must_allow(adapters, tmp_path, capsys):
    assert cli.main(command(adapters, tmp_path / "soup")) == 0
    told = capsys.readouterr().out
    assert "rank 10: vLLM needs --max-lora-rank 16" in told and "--uniform-rank" in told
    serve = json.loads((tmp_path / "soup" / "soup.json").read_text())["serve"]
    assert serve == {"rank": 10, "vllm_max_lora_rank": 16}
    wide = LoRA({"m": random_factors(600, 600, 513)})
    assert serving.vllm_max_lora_rank(wide) is None and "--into-base" in serving.advice(wide)
    assert serving.vllm_max_lora_rank(LoRA({"m": random_factors(40, 40, 32)})) == 32


def test_one_rank_for_all_modules_is_exact_and_loads_in_peft(base, adapters, tmp_path):
    for name, more in (("plain", []), ("even", ["--uniform-rank"])):
        assert cli.main(command(adapters, tmp_path / name, *more)) == 0
    config = json.loads((tmp_path / "even" / "adapter_config.json").read_text())
    assert config["r"] == 10 and not config["rank_pattern"]
    model = AutoModelForCausalLM.from_pretrained(base)
    plain = logits(PeftModel.from_pretrained(model, tmp_path / "plain"))
    again = AutoModelForCausalLM.from_pretrained(base)
    even = logits(PeftModel.from_pretrained(again, tmp_path / "even"))
    torch.testing.assert_close(even, plain, atol=1e-5, rtol=1e-5)


def test_what_a_cut_loses_is_told(adapters, tmp_path, capsys):
    assert cli.main(command(adapters, tmp_path / "cut", "--rank", "3")) == 0
    told = capsys.readouterr().out
    loras = [load_lora(a) for a in adapters]
    whole = merge(loras, "cat", weights=[1.0, 0.5])
    cut = load_lora(tmp_path / "cut")
    dense = [(whole.delta(n), cut.delta(n)) for n in whole.modules]
    lost = sum(float((a - b).norm() ** 2) for a, b in dense)
    size = sum(float(a.norm() ** 2) for a, _ in dense)
    told_lost = serving.rank_loss(loras, "cat", 3, weights=[1.0, 0.5])[0]
    assert told_lost == pytest.approx((lost / size) ** 0.5, rel=1e-4)
    assert f"cut to rank 3: {(lost / size) ** 0.5:.2%} lost" in told


def test_the_loss_of_svd_is_told_against_the_exact_sum(tmp_path, capsys):
    """Two LoRAs of rank 8 have a sum of rank 16: a cut to 16 loses nothing, one to 4 a lot."""
    loras = [LoRA({"m": random_factors(40, 50, 8, seed=seed)}) for seed in (1, 2)]
    exact = merge(loras, "cat", weights=[1.0, 0.5]).delta("m").double()
    U, S, Vh = torch.linalg.svd(exact)
    true = float(S[4:].norm() / S.norm())
    assert serving.rank_loss(loras, "svd", 16, weights=[1.0, 0.5])[0] < 1e-6
    total, module, worst = serving.rank_loss(loras, "svd", 4, weights=[1.0, 0.5])
    assert (total, worst) == (pytest.approx(true, rel=1e-5), pytest.approx(true, rel=1e-5))
    assert module == "m"
    folders = [save_lora(lora, tmp_path / str(i)) for i, lora in enumerate(loras)]
    for rank, told in ((16, "0.00%"), (4, f"{true:.2%}")):
        more = ["--method", "svd", "--rank", rank, "--overwrite"]
        assert cli.main(command(folders, tmp_path / "soup", *more)) == 0
        assert f"cut to rank {rank}: {told} lost" in capsys.readouterr().out


def test_the_loss_of_a_pruned_soup_is_told_against_itself():
    loras = [LoRA({"m": random_factors(12, 9, 3, seed=seed)}) for seed in (1, 2)]
    soup = merge(loras, "ties", density=0.5)
    S = torch.linalg.svdvals(soup.delta("m").double())
    loss = serving.rank_loss(loras, "ties", 2, density=0.5)[0]
    assert loss == pytest.approx(float(S[2:].norm() / S.norm()), rel=1e-5)


def test_the_card_tells_recipe_data_licences_and_numbers(adapters, tmp_path):
    assert cli.main(command(adapters, tmp_path / "soup")) == 0
    results = load_results("mini")
    data = {"repo": "sahil2801/CodeAlpaca-20k", "split": "train", "rows": 5, "note": "part",
            "licence": "CC BY-NC 4.0", "complete": False, "stand_in_for": "the/whole"}  # fmt: skip
    results = results | {"config": results["config"] | {"data": [data]}}
    card = model_card(tmp_path / "soup", "me/soup", "apache-2.0", results)
    front = card.data.to_dict()
    assert front["base_model"] == "org/random" and front["library_name"] == "peft"
    assert front["datasets"] == ["sahil2801/CodeAlpaca-20k"] and front["license"] == "apache-2.0"
    text = str(card)
    assert "skill0" in text and "weight 0.5" in text and "Non-commercial data" in text
    assert "stands in for the/whole" in text and "CAT (learned alphas)" in text
    assert "--max-lora-rank 16" in text and str(tmp_path) not in text


def test_push_uploads_the_soup_and_nothing_else(adapters, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    soup = tmp_path / "soup"
    assert cli.main(command(adapters, soup)) == 0
    (soup / "secret.env").write_text(CANARY)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    seen = {}

    class Api:
        def create_repo(self, repo, **options):
            seen["repo"] = repo

        def upload_folder(self, *, folder_path, allow_patterns, **options):
            from huggingface_hub.utils import filter_repo_objects

            names = [p.name for p in folder_path.iterdir()]
            seen["files"] = set(filter_repo_objects(names, allow_patterns=allow_patterns))
            return "https://hf.co/me/soup"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert cli.main(["push", str(soup), "me/soup", "--dry-run"]) == 0
    assert not seen and not (soup / "README.md").exists()
    assert cli.main(["push", str(soup), "me/soup"]) == 0
    files = {"README.md", "adapter_config.json", "adapter_model.safetensors", "soup.json"}
    assert seen == {"repo": "me/soup", "files": files}
    assert CANARY not in capsys.readouterr().out + (soup / "README.md").read_text()


def test_a_failing_push_is_one_line_without_the_token(adapters, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    def refuse(*args, **options):
        raise ValueError(f"Bearer {CANARY} was refused\nlong story")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    assert cli.main(command(adapters, tmp_path / "soup")) == 0
    assert cli.main(["push", str(tmp_path / "soup"), "me/soup"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and CANARY not in told and "push to me/soup" in told


def test_the_lines_of_the_serving_page_run(base, adapters, tmp_path, capsys):
    assert cli.main(command(adapters, tmp_path / "soup")) == 0
    text = (Folders().project / "docs/howto/serving.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(from peft import PeftModel\n.*?)```", text, re.S)
    assert code.count("\n") < 10
    code = code.replace('"BASE"', repr(str(base))).replace('"soup"', repr(str(tmp_path / "soup")))
    exec(code, {})
    assert capsys.readouterr().out.splitlines()[-1].strip()
