"""Estimates against the real thing: counted parameters, FLOPs and kept tensors of small models."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from lorasoups import estimates, hardware, headline
from lorasoups.calibration import proxy_of
from lorasoups.cat import CatModel
from lorasoups.errors import SoupError
from lorasoups.estimates import Speed
from lorasoups.lengths import Lengths
from lorasoups.lora import Factors, LoRA
from lorasoups.paths import Folders
from lorasoups.plan import Device, Plan
from lorasoups.profiles import PROFILES, get_profile
from lorasoups.recipes import recipes_for
from lorasoups.shapes import KNOWN, LLAMA_7B, SMOLLM2, from_config, from_config_file
from lorasoups.training import LLAMA_PROJECTIONS, SkillTraining

PAPER_TARGETS = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
SPEED = Speed(1e11, 1e11, 1e11, 1e11, 1e10)
TINY = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128}  # fmt: skip


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 1, "head_dim": 24},
        {"attention_bias": True, "mlp_bias": True},
    ],
)
def test_parameters_are_exact(more):
    config = LlamaConfig(**TINY | more)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert from_config(config.to_dict(), "tiny").parameters == model.num_parameters()


def test_parameters_of_known_models():
    assert LLAMA_7B.parameters == 6_738_415_616
    assert SMOLLM2.parameters == 134_515_008
    assert KNOWN["meta-llama/Llama-2-7b-hf"].parameters == 6_738_415_616
    for name, count in (("mini", 1_570_400), ("pages", 1_631_840)):
        shape = from_config_file(Folders().data / name / "config.json")
        assert shape.parameters == count


@pytest.mark.parametrize("targets", [LLAMA_PROJECTIONS, PAPER_TARGETS])
def test_lora_parameters_are_those_of_peft(targets):
    model = get_peft_model(
        LlamaForCausalLM(LlamaConfig(**TINY)), LoraConfig(r=4, target_modules=list(targets))
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert from_config(TINY, "tiny").lora_parameters(targets, 4) == trained


def test_bad_configs_and_targets_are_told():
    with pytest.raises(SoupError, match="hidden_size"):
        from_config({"vocab_size": 3}, "x")
    with pytest.raises(SoupError, match="q_prog"):
        LLAMA_7B.lora_parameters(["q_prog"], 4)


# --- FLOPs and kept tensors ---------------------------------------------------------------------


def adapted(base="float32", attention="eager", targets=LLAMA_PROJECTIONS, layers=4, **more):
    config = LlamaConfig(
        **TINY | {"num_hidden_layers": layers} | more, attn_implementation=attention
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to(getattr(torch, base)).eval().requires_grad_(False)


def with_lora(model, targets, dropout=0.0):
    config = LoraConfig(r=4, lora_dropout=dropout, target_modules=list(targets))
    return get_peft_model(model, config).train()


def with_alphas(model, targets):
    modules = {
        name: Factors(torch.ones(4, m.in_features), torch.ones(m.out_features, 4))
        for name, m in model.named_modules()
        if name.rpartition(".")[2] in targets
    }
    return CatModel(model, [LoRA(modules), LoRA(modules)], init="ones")


@pytest.mark.parametrize("alphas", [False, True])
def test_flops_of_a_training_step(alphas):
    """torch's own counter sees every matmul; ours leaves out that the lowest layer's inputs need no
    gradient, which is little in a deep model."""
    layers, tokens, length = 12, 64, 32
    model = adapted(layers=layers)
    model = with_alphas(model, LLAMA_PROJECTIONS) if alphas else with_lora(model, LLAMA_PROJECTIONS)
    ids = torch.zeros(tokens // length, length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    shape = from_config(TINY | {"num_hidden_layers": layers}, "tiny")
    factors = shape.lora_parameters(LLAMA_PROJECTIONS, 4)
    if alphas:
        expected = estimates.alpha_step_flops(shape, length, 2 * factors, "eager")
        expected -= 2 * 2 * factors  # torch does not count in-place addmm_: half of the factors'
    else:
        expected = estimates.lora_step_flops(shape, length, factors, "eager")
    assert tokens * expected == pytest.approx(counter.get_total_flops(), rel=0.04)


def test_conventions_of_flops():
    step, full = estimates.lora_step_flops(LLAMA_7B, 0, 0), estimates.model_flops(LLAMA_7B, 0)
    assert full == 6 * LLAMA_7B.matmul_parameters == 1.5 * step
    again = estimates.lora_step_flops(LLAMA_7B, 256, 0, checkpointing=True)
    assert 1.4 < again / estimates.lora_step_flops(LLAMA_7B, 256, 0) < 1.5
    whole = estimates.attention_flops(LLAMA_7B, 256, "eager")
    assert whole == 2 * estimates.attention_flops(LLAMA_7B, 256, "sdpa")


def kept_bytes(model, autocast, length=64, rows=2):
    """Bytes that autograd keeps in one forward pass, parameters not counted."""
    ids = torch.zeros(rows, length, dtype=torch.long)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            model(input_ids=ids, labels=ids)
    return sum(seen.values())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("base", "autocast", "alphas", "dropout"),
    [
        ("float32", False, False, 0.0),
        ("float32", True, False, 0.0),
        ("bfloat16", True, False, 0.0),
        ("bfloat16", True, False, 0.05),
        ("float32", False, True, 0.0),
        ("bfloat16", False, True, 0.0),
    ],
)
@pytest.mark.parametrize("targets", [LLAMA_PROJECTIONS, PAPER_TARGETS])
def test_activations_are_what_autograd_keeps(attention, base, autocast, alphas, dropout, targets):
    def kept(layers):
        model = adapted(base, attention, layers=layers)
        wrapped = with_alphas(model, targets) if alphas else with_lora(model, targets, dropout)
        return kept_bytes(wrapped, autocast)

    shape, tokens = from_config(TINY, "tiny"), 2 * 64
    per_layer = (kept(3) - kept(2)) / tokens
    one = replace(shape, layers=1)
    if autocast and base == "float32":  # counted apart: "weights cast for autocast"
        per_layer -= 2 * one.linear_parameters / tokens
    if autocast:  # the LoRA's own weights, cast; tiny in a real model
        per_layer -= 2 * one.lora_parameters(targets, 4) / tokens
    if dropout:  # masks are float32 on a CPU, a byte on a GPU
        per_layer -= 3 * sum(shape.linears[name][0] for name in targets)
    expected = estimates.activation_bytes(
        shape, 64, targets, 8 if alphas else 4, dtype=base, autocast=autocast,
        attention=attention, dropout=bool(dropout), alphas=alphas,
    )  # fmt: skip
    assert expected == pytest.approx(per_layer, rel=0.01)


# --- memory -------------------------------------------------------------------------------------


def training(shape, **changes):
    given = {"batch": 8, "length": 512, "targets": LLAMA_PROJECTIONS, "rank": 16,
             "dtype": "bfloat16", "autocast": True}  # fmt: skip
    return estimates.training_memory(shape, **given | changes)


def test_weights_by_dtype():
    assert estimates.weight_bytes(LLAMA_7B, "bfloat16") == 2 * 6_738_415_616
    packed = estimates.weight_bytes(LLAMA_7B, "nf4")
    assert 3.6e9 < packed < 4.0e9  # what bitsandbytes users see for 7B


def test_what_saves_memory():
    plain = training(LLAMA_7B)
    assert training(LLAMA_7B, checkpointing=True).total < 0.5 * plain.total
    saved = plain.total - training(LLAMA_7B, dtype="nf4").total
    assert 0.9 < saved / (2 * 6.7e9 - 3.9e9) < 1.1
    assert training(LLAMA_7B, attention="eager").total > plain.total
    assert training(LLAMA_7B, dropout=True).total > plain.total
    assert plain.parts["LoRA and AdamW"] == 16 * LLAMA_7B.lora_parameters(LLAMA_PROJECTIONS, 16)


def test_logits_are_the_largest_part_of_a_small_model():
    assert training(SMOLLM2, checkpointing=True).largest == "logits"
    assert training(SMOLLM2).parts["logits"] == 8 * 512 * 49152 * 12


def test_folding_doubles_the_adapted_weights_of_generation():
    given = {"batch": 1, "prompt": 100, "new": 100, "targets": LLAMA_PROJECTIONS,
             "dtype": "bfloat16"}  # fmt: skip
    folded = estimates.generation_memory(LLAMA_7B, **given)
    beside = estimates.generation_memory(LLAMA_7B, **given, folded=False)
    assert folded.total - beside.total > 2 * LLAMA_7B.linear_parameters
    assert estimates.kv_bytes(LLAMA_7B, "bfloat16") == 2**19  # half a MiB per token


# --- seconds ------------------------------------------------------------------------------------


def test_decoding_is_bound_by_bandwidth_alone_and_by_flops_in_large_batches():
    speed = hardware.assumed_speed(hardware.find("H100"))
    speed = replace(speed, layer_s=0.0)
    one = estimates.generation_seconds(LLAMA_7B, speed, 1, 1, 1, 100, "bfloat16")
    read = estimates.weight_bytes(LLAMA_7B, "bfloat16") / (hardware.BANDWIDTH_SHARE * 3.35e12)
    assert one == pytest.approx(100 * read, rel=0.05)
    many = estimates.generation_seconds(LLAMA_7B, speed, 4096, 4096, 1, 100, "bfloat16")
    assert many > 5 * one


def test_overhead_overlaps_on_a_gpu_and_adds_up_on_a_cpu():
    slow = replace(SPEED, train_layer_s=1.0)
    gpu = replace(slow, overlaps=True)
    flops, tokens = 1e9, 1000  # 10 s of work
    shape = replace(SMOLLM2, layers=4)
    assert estimates.training_seconds(shape, slow, 1, tokens, flops) == pytest.approx(14)
    assert estimates.training_seconds(shape, gpu, 1, tokens, flops) == pytest.approx(10)


@pytest.mark.parametrize(
    ("given", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("a100", "A100-80GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA H200", "H200"),
    ],
)
def test_cards_by_name(given, card):
    assert hardware.find(given).name == card


@pytest.mark.parametrize("given", ["NVIDIA L40S", "GeForce RTX 4090 Laptop GPU", "abacus"])
def test_unknown_cards_are_refused(given):
    with pytest.raises(SoupError, match="no data sheet"):
        hardware.find(given)


# --- plans --------------------------------------------------------------------------------------


def plan_of(profile, shape=SMOLLM2, kind="cpu", seeds=1, rows=None, bf16=True):
    row = Lengths(50, 50, 128, 64, rows)
    lengths = {(skill, "train"): row for skill in profile.skills}
    lengths |= {(task, "test"): row for task in profile.n_test}
    return Plan(profile, shape, Device(kind, "x", 1e12, bf16, SPEED), lengths, seeds)


@pytest.mark.parametrize("name", ["smoke", "mini", "small"])
def test_plans_take_the_methods_and_tests_of_the_headline(name):
    profile = get_profile(name)
    experiment = SimpleNamespace(profile=profile, recipes=recipes_for(profile.skills))
    plan = plan_of(profile)
    assert plan.recipes() == headline.recipes_of(experiment)
    for recipe in plan.recipes():
        assert plan.tasks(recipe) == list(dict.fromkeys(headline.tasks_of(experiment, recipe)))


def test_steps_and_ranks_of_the_adapters_of_mini():
    found = {
        name: (steps, rank) for name, steps, _, rank, _ in plan_of(get_profile("mini")).adapters()
    }
    assert found == {"math": (400, 8), "code": (600, 8), "data_mix": (1000, 8),
                     "data_mix_2r": (1000, 16), "fresh": (150, 8)}  # fmt: skip


def test_epochs_decide_the_steps_of_the_paper():
    profile = PROFILES["paper"]
    plan = plan_of(profile, LLAMA_7B, "cuda", rows=16_000)
    steps = {name: steps for name, steps, *_ in plan.adapters()}
    assert steps["code"] == 3 * 16_000 / 16
    assert plan.setup.dtype == "bfloat16" and plan.setup.attention == "sdpa"
    packed = plan_of(profile.override(four_bit=True), LLAMA_7B, "cuda", rows=16_000)
    stages = {stage.name: stage.memory.total for stage in packed.stages()}
    assert stages["skill"] < {s.name: s.memory.total for s in plan.stages()}["skill"] - 8e9


def test_seeds_multiply_the_time_but_not_the_base():
    mini = get_profile("mini")
    mini = mini.override(alphas=replace(mini.alphas, grid=mini.alphas.grid[:1]))  # no sweep
    one, five = ({s.name: s for s in plan_of(mini, seeds=n).stages()} for n in (1, 5))
    assert five["skill"].seconds == pytest.approx(5 * one["skill"].seconds)
    base = sum(mini.n_test.values())  # the base's answers are the same for every seed
    answers = [int(s["evaluate"].what.split()[0].replace(",", "")) for s in (one, five)]
    assert answers[1] - base == 5 * (answers[0] - base)


def test_embedded_bases_stay_on_the_cpu():
    plan = plan_of(get_profile("mini"), kind="cuda")
    assert plan.setup.where == "cpu" and plan.setup.dtype == "float32"
    assert {stage.where for stage in plan.stages()} == {"cpu"}


def test_a_gpu_without_bf16_computes_in_float32():
    assert plan_of(PROFILES["small"], kind="cuda", bf16=False).setup.dtype == "float32"
    forced = PROFILES["small"].override(training=SkillTraining(bf16=True))
    assert plan_of(forced, kind="cuda", bf16=False).setup.autocast


@pytest.mark.parametrize("shape", [SMOLLM2, LLAMA_7B])
def test_a_stand_in_is_small_and_of_the_same_kind(shape):
    proxy, share = proxy_of(shape, 2000, 6e9)
    assert 4 * proxy.matmul_parameters * 2000 * share <= 6.1e9
    assert proxy.layers >= 1 and proxy.heads % proxy.kv_heads == 0
    head = shape.vocab * shape.hidden / shape.matmul_parameters
    assert proxy.vocab * proxy.hidden / proxy.matmul_parameters == pytest.approx(head, rel=0.6)
