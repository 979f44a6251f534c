"""Every row of a study is what its name says: strengths, seeds, and which data it sees."""

import pytest
import torch

from lorasoups.learning.interference import cross_activation
from lorasoups.lora.lora import lora_digest
from lorasoups.study import ablations
from lorasoups.study import methods as methods_module
from lorasoups.study.methods import methods_for
from lorasoups.study.run import predictors
from lorasoups.study.stages import Stages


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The smoke study with two seeds."""
    return Stages("smoke", 2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def methods(two):
    return methods_for(two.profile.skills)


@pytest.fixture(scope="module")
def deltas(two):
    """A module's name and the delta weights there of both skills of seed 0."""
    first, second = two.loras(0)
    name = next(iter(first.modules))
    return name, first.delta(name), second.delta(name)


def close(a, b):
    return torch.allclose(a, b, atol=1e-6)


def test_a_merge_has_the_weights_of_its_name(two, methods, deltas):
    name, a, b = deltas
    for method, weight in (("linear@delta", 0.5), ("linear@delta/w1", 1.0)):
        assert close(methods[method].adapter(two, 0).delta(name), weight * (a + b))
    rescaled = two.variant(rescale={"code": 2.0}).loras(0)
    assert close(rescaled[0].delta(name), a) and close(rescaled[1].delta(name), 2 * b)


def test_weights_from_the_alphas_and_from_norms(two, methods, deltas):
    name, a, b = deltas
    learned = two.alphas(0)
    mean, sizes = torch.stack(list(learned.values())).mean(0), torch.stack([a.norm(), b.norm()])
    wanted = {"cat_mean": mean, "cat_one": learned[name] / mean,
              "nan": (1 / sizes) / (1 / sizes).sum()}  # fmt: skip
    for method, (x, y) in wanted.items():
        assert close(methods[method].adapter(two, 0).delta(name), x * a + y * b), method


def test_data_mixes_of_a_larger_rank_keep_the_scale(two, monkeypatch):
    configs, loras, other = {}, two.loras(0), two.variant()
    monkeypatch.setattr(other, "loras", lambda seed: loras)
    monkeypatch.setattr(
        other, "_trained", lambda name, _, config, *__: configs.update({name: config})
    )
    for name in ("data_mix", "data_mix_2r", "data_mix_warm"):
        other.data_mix(name, 0)
    ranks = {"data_mix": 8, "data_mix_2r": 16, "data_mix_warm": 16}
    assert {name: config.r for name, config in configs.items()} == ranks
    assert {config.lora_alpha / config.r for config in configs.values()} == {2.0}


def test_another_seed_is_another_run(two, methods, monkeypatch):
    def of_seeds(stages, method):
        return {lora_digest(methods[method].adapter(stages, seed)) for seed in (0, 1)}

    assert two.alpha_rows(0) != two.alpha_rows(1)
    for method in ("math", "cat", "cat_random", "dare_linear@delta"):
        assert len(of_seeds(two, method)) == 2, method
    first, same = two.loras(0), Stages("smoke", 2, two.folders.out)
    monkeypatch.setattr(same, "loras", lambda seed: first)
    for method in ("cat_random", "dare_linear@delta"):  # of the draws and the masks alone
        assert len(of_seeds(same, method)) == 2, method


def test_every_random_lora_has_a_seed_of_its_own(two, methods, monkeypatch):
    seen = []
    monkeypatch.setattr(
        methods_module, "gaussian_like", lambda lora, seed: seen.append(seed) or lora
    )
    for seed in (0, 1):
        methods["random_loras"].adapter(two, seed)
    assert len(seen) == len(set(seen)) == 4


def test_what_is_chosen_takes_the_best(two, methods, monkeypatch):
    losses = [entry["heldout_loss"] for entry in two.grid]
    assert len(set(losses)) == len(losses) == 2
    assert [e["heldout_loss"] for e in two.grid if e["chosen"]] == [min(losses)]
    other, loras = two.variant(), two.loras(0)
    monkeypatch.setattr(other, "loras", lambda seed: loras)
    monkeypatch.setattr(
        other, "solved", lambda soup, task, **_: -abs(soup.provenance["weights"][0] - 0.7)
    )
    chosen = methods["sum_by_accuracy"].make(other, 0).provenance["weights"]
    assert chosen == pytest.approx([0.7, 0.7])
    other.grid = [{"normalise": "none", "init": "ones", "lr": lr, "heldout_loss": loss}
                  for lr, loss in ((1, 2.0), (2, 1.0))]  # fmt: skip
    monkeypatch.setattr(ablations, "learned", lambda stages, seed, options: options["lr"])
    assert ablations._best_of(other, 0, "none") == 2


def test_what_is_chosen_on_is_neither_trained_on_nor_tested(two):
    def texts(rows):
        return {tuple(row["input_ids"]) for row in rows}

    for skill, rows in two.held_out.items():
        assert not texts(rows) & texts(two.encoded(skill, 0))
        assert not texts(rows) & texts(two.encoded(skill, split="test", n=8))
    seen = [row["input_ids"] for row in two.target_rows(8)]
    seen = two.source.tokenizer.batch_decode(seen, skip_special_tokens=True)
    asked = [item["prompt"] for item in two.items("hard_math")]
    assert not any(text.startswith(prompt) for text in seen for prompt in asked)


def test_a_share_cuts_the_rows_of_one_skill(two):
    fewer = two.variant(share={"code": 0.25})
    assert [len(fewer.encoded(skill)) for skill in ("math", "code")] == [160, 40]


def test_losses_and_predictors_are_of_the_adapter_at_hand(two):
    tested = two.variant(n_loss=4)
    losses = {tested.gold_loss("math", *tested.changed(x)) for x in (None, *two.loras(0))}
    assert len(losses) == 3
    cross = cross_activation(two.source.model, two.loras(0), two.rows_by_skill(0))
    assert predictors(two, 0)["loudest"] == max(cross[0][1], cross[1][0]) != 1.0
