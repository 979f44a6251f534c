"""Measuring stages on a random model: every stage runs, and FLOPs are counted right."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lorasoups import cli, measure
from lorasoups.costs import measured_path, report
from lorasoups.errors import SoupError
from lorasoups.profiles import get_profile


@pytest.fixture(scope="module")
def measured():
    small = get_profile("small").override(max_length=32)
    return measure.measure(
        small, "tiny", steps=2, batch=2, eval_batch=2, new_tokens=3, device="cpu"
    )


def test_every_stage_gives_numbers(measured):
    assert list(measured["stages"]) == ["skill", "alphas", "merge", "evaluate"]
    assert all("error" not in stage for stage in measured["stages"].values())
    assert 0 < measured["stages"]["skill"]["mfu"] < 1
    assert measured["stages"]["skill"]["tokens"] == 2 * 2 * 32
    assert measured["whole"] and "ONLY" not in report(measured)


def test_a_stage_without_memory_is_told_and_the_others_go_on():
    def fail():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried ...")

    found = measure._measured(fail, "cpu")
    assert found["error"].startswith("out of memory")


def test_flops_of_a_step_are_what_torch_counts():
    model = measure.random_base("tiny", "cpu", "float32")
    model.set_attn_implementation("eager")  # the counter knows no fused attention on a CPU
    ids = torch.randint(3, 128, (4, 64))
    embedded = model.get_input_embeddings()(ids).requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=embedded).logits.sum().backward()
    c = model.config
    masked = 4 * 64 * 3 * c.num_hidden_layers * 2 * 64 * c.hidden_size  # eager computes all of it
    ours = measure.step_flops(model, 4 * 64, 64) + masked
    assert counter.get_total_flops() == pytest.approx(ours, rel=0.01)


def test_a_shape_that_nobody_knows():
    with pytest.raises(SoupError, match="unknown shape 'llama-8t'"):
        measure.random_base("llama-8t", "cpu", "float32")


def test_the_command_line_writes_one_file_per_device(tmp_path, capsys):
    arguments = "measure --profile small --shape tiny --layers 1 --steps 1 --batch 1".split()
    more = ["--eval-batch", "1", "--new-tokens", "2", "--out", str(tmp_path)]
    assert cli.main([*arguments, *more]) == 0
    told = capsys.readouterr().out
    assert "ONLY 1 LAYERS" in told
    from lorasoups.devices import device_name

    device = device_name("cuda" if torch.cuda.is_available() else "cpu")
    assert measured_path("small", device, tmp_path).is_file()
