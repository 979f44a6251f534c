"""The training loop: killed runs, damaged checkpoints, progress, and shares of a batch."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch._inductor.compile_fx
from killed import STEPS, rows, train
from soup_helpers import assert_close, tiny_llama
from test_cat import llama_lora, pair

from lorasoups.errors import Diverged, SoupError
from lorasoups.learning import fit as fit_module
from lorasoups.learning.alphas import learn_alphas
from lorasoups.learning.fit import newest_checkpoint, progress_bar, share
from lorasoups.learning.fitted import tuned_weight
from lorasoups.learning.skills import SkillTraining, train_lora
from lorasoups.learning.xlora import train_xlora
from lorasoups.models import processes

HELPERS = Path(__file__).resolve().parent.parent / "helpers"


@pytest.mark.parametrize("what", ["skill", "alphas", "xlora"])
def test_a_run_that_is_killed_again_and_again_ends_bit_for_bit_like_one_that_is_not(tmp_path, what):
    path = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HELPERS / "killed.py"), what, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 3
    killed, whole = ((tmp_path / f"{n}.json").read_text() for n in ("killed", "whole"))
    assert json.loads(killed) == json.loads(whole)


@pytest.fixture
def saved(monkeypatch, tmp_path):
    """The checkpoints of a finished run that saved at every step."""
    monkeypatch.setattr(fit_module, "SAVE_EVERY_S", 0.0)
    return tmp_path / "saved", train("alphas", tmp_path / "saved")


def steps_done(monkeypatch):
    """A list that grows by one with every training step from now on."""
    steps = []
    monkeypatch.setattr(fit_module, "share", lambda *args: steps.append(1) or share(*args))
    return steps


def test_damaged_checkpoints_are_passed_over(saved, monkeypatch):
    folder, whole = saved
    newest = folder / f"step-{STEPS:08d}"
    assert newest_checkpoint(folder) == newest
    assert len(list(folder.iterdir())) == fit_module.KEPT
    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    assert newest_checkpoint(folder).name == f"step-{STEPS - 1:08d}"
    steps = steps_done(monkeypatch)
    assert train("alphas", folder) == whole and len(steps) == 1
    assert newest_checkpoint(folder) == newest  # written anew in the damaged one's place


def test_a_finished_run_trains_no_more(saved, monkeypatch):
    folder, whole = saved
    steps = steps_done(monkeypatch)
    assert train("alphas", folder) == whole and not steps


def test_checkpoints_of_another_run_are_refused(saved):
    folder, _ = saved
    with pytest.raises(SoupError, match="checkpoints of another run"):
        learn_alphas(tiny_llama(), pair(), rows(), lr=0.5, max_steps=3, checkpoints=folder)


def test_without_checkpoints_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learn_alphas(tiny_llama(), pair(), rows(), max_steps=2)
    assert not list(tmp_path.iterdir())


def broken_llama():
    model = tiny_llama()
    model.lm_head.weight.data[:] = float("inf")
    return model


@pytest.mark.parametrize(
    "run",
    [
        lambda model: train_lora(model, rows(), SkillTraining(r=2, steps=3, bf16=False), 0),
        lambda model: learn_alphas(model, pair(), rows(), max_steps=3),
        lambda model: train_xlora(model, pair(), rows(), max_steps=3),
    ],
    ids=["skill", "alphas", "xlora"],
)
def test_a_loss_that_is_not_finite_stops_with_its_step_and_leaves_the_model_alone(run):
    model = broken_llama()
    modules = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(Diverged, match="loss is nan at step 1: .*; lower lr"):
        run(model)
    assert {name: type(module) for name, module in model.named_modules()} == modules


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="compiles C++")
@pytest.mark.parametrize("broken", [False, True], ids=["compiled", "what-fails-runs-as-it-is"])
def test_compiled_layers_train_the_same_lora_and_leave_the_model_alone(monkeypatch, capfd, broken):
    def trained(compile_from: float) -> list[torch.Tensor]:
        monkeypatch.setattr(fit_module, "COMPILE_FROM", compile_from)
        model = tiny_llama()
        config = SkillTraining(r=2, steps=3, batch_size=2, bf16=False)
        lora, _ = train_lora(model, rows(), config, 0)
        tried = tuned_weight(model, pair(), rows())[1]  # the soup changes while code stays
        assert all(layer._compiled_call_impl is None for layer in model.model.layers)
        factors = [factor for m in lora.modules.values() for factor in (m.A, m.B)]
        return [*factors, torch.tensor([list(each.values()) for each in tried[:4]])]

    def compile_fx(*args, **kwargs):
        calls.append(True)
        if broken:
            raise RuntimeError("no compiler today")
        return original(*args, **kwargs)

    calls, original = [], torch._inductor.compile_fx.compile_fx
    monkeypatch.setattr(torch._inductor.compile_fx, "compile_fx", compile_fx)
    torch._dynamo.reset()
    expected = trained(1e9)
    assert not calls
    for ours, theirs in zip(trained(0), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)  # float32
    assert calls and "no compiler today" not in capfd.readouterr().err


def test_a_training_begins_at_the_adapter_that_it_is_given():
    start = llama_lora(1, 3, ("self_attn.q_proj",))
    config = SkillTraining(r=3, lora_alpha=6, target_modules=("q_proj",), lr=0.0, steps=1,
                           bf16=False, batch_size=4, warmup_steps=0)  # fmt: skip
    found, _ = train_lora(tiny_llama(), rows(), config, 0, start=start)
    for name in start.modules:
        assert_close(found.delta(name), start.delta(name), name)


def test_fsdp_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(SoupError, match="launch with DDP"):
        learn_alphas(tiny_llama(), pair(), rows(), max_steps=1)


# --- gradient checkpointing ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "run",
    [
        lambda model: learn_alphas(model, pair(), rows(), max_steps=2, lr=0.05).weights,
        lambda model: train_xlora(model, pair(), rows(), max_steps=2).tensors,
    ],
    ids=["alphas", "xlora"],
)
def test_gradient_checkpointing_recomputes_layers_while_their_dropout_stays_off(run):
    calls, modes, learned = [], [], []
    for checkpointing in (False, True):
        model = tiny_llama()
        attention = model.model.layers[1].self_attn
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        calls.append(0)

        def count(module, args, kwargs):
            calls[-1] += torch.is_grad_enabled()
            modes.append(module.training)

        attention.register_forward_pre_hook(count, with_kwargs=True)
        learned.append(run(model))
        assert not any(module.training for module in model.modules())
    assert calls == [2, 4]  # once a step, and once more for the backward pass
    assert not any(modes)
    for name, value in learned[0].items():
        torch.testing.assert_close(learned[1][name], value, atol=1e-6, rtol=0)


# --- progress -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress(monkeypatch, out, seconds=25.0, done=0, shown=True):
    """Ten steps; a step takes ``seconds`` on a fake clock. What is written, as lines."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", out)
    with progress_bar("alphas", 10, done, shown) as bar:
        for _ in range(done, 10):
            now[0] += seconds
            bar.set_postfix_str("loss 1.500, 7 tokens/s", refresh=False)
            bar.update()
    return out.getvalue().splitlines()


def test_a_log_gets_one_line_a_minute(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)  # imported, but no kernel runs here
    lines = progress(monkeypatch, io.StringIO())
    assert len(lines) == 3  # of 250 seconds
    assert lines[0] == "alphas: step 3/10, loss 1.500, 7 tokens/s, 02:55 left"
    assert progress(monkeypatch, io.StringIO(), seconds=5.0) == []
    slow = progress(monkeypatch, io.StringIO(), seconds=1800.0, done=4)
    assert slow[0] == "alphas: step 5/10, loss 1.500, 7 tokens/s, 2:30:00 left"


def test_a_terminal_gets_a_bar(monkeypatch):
    text = "".join(progress(monkeypatch, Terminal()))
    assert "alphas" in text and "7 tokens/s" in text and "5/10" in text


def test_progress_can_be_turned_off_and_only_rank_0_speaks(monkeypatch):
    assert progress(monkeypatch, Terminal(), shown=False) == []
    with monkeypatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        assert progress(patch, Terminal()) == []
    monkeypatch.setattr(processes, "is_main", lambda: False)
    assert progress(monkeypatch, Terminal()) == []


# --- a share of a batch -------------------------------------------------------------------------


def batch(*labels):
    labels = torch.tensor(labels)
    return {"input_ids": torch.arange(labels.numel()).view_as(labels), "labels": labels}


def test_shares_are_the_whole_batch_and_count_by_tokens():
    whole = batch([1, 2, 3], [1, -100, -100], [1, -100, 3], [-100, 2, 3])  # 2, 0, 1, 2 asked
    shares = [share(whole, rank, 2) for rank in (0, 1)]
    assert [s["input_ids"][:, 0].tolist() for s in shares] == [[0, 9], [6]]
    assert [float(s["weight"]) for s in shares] == pytest.approx([2 * 4 / 5, 2 * 1 / 5])


def test_a_process_without_rows_takes_part_and_counts_nothing():
    shares = [share(batch([1, -100, -100], [1, 2, 3]), rank, 3) for rank in range(3)]
    assert [float(s["weight"]) for s in shares] == [3.0, 0.0, 0.0]
    assert all(s["input_ids"].tolist() == [[3, 4, 5]] for s in shares)


def test_a_batch_without_labels_is_nan_as_the_models_own_loss():
    assert share(batch([1, -100, -100]), 1, 2)["weight"].isnan()
