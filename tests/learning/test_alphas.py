"""Learning the alphas."""

import json

import pytest
import torch
from soup_helpers import tiny_llama
from test_cat import pair

from lorasoups.errors import SoupError
from lorasoups.learning.alphas import Alphas, balanced, learn_alphas
from lorasoups.learning.cat import CatModel
from lorasoups.lora.merging import merge
from lorasoups.models.batching import encode_all, heldout_loss
from lorasoups.models.rows import as_items
from tests.golden.subjects import mini, mini_loras


def rows(n=24, seed=0):
    """Random texts of different lengths; the first two tokens are prompt."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        ids = torch.randint(1, 31, (6 + i % 4,), generator=generator).tolist()
        found.append({"input_ids": ids, "labels": [-100, -100, *ids[2:]]})
    return found


def test_learning_lowers_the_held_out_loss_and_leaves_the_model_alone():
    model = sharp_llama()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    planted = with_planted_texts(model)
    learned = learn_alphas(model, pair(), planted, eval_dataset=planted, lr=0.05, max_steps=40)
    assert learned.losses["end"] < learned.losses["start"]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    soup = merge(pair(), "cat", weights=learned)  # a mapping: goes straight into merge
    assert set(soup.modules) == set(learned)


def sharp_llama():
    """A model that is sure of its words, so that texts tell which alphas wrote them."""
    model = tiny_llama()
    model.lm_head.weight.data *= 60
    return model


def with_planted_texts(model, alpha=(1.0, 0.3)):
    """Texts sampled from the model while its LoRAs are weighted with ``alpha``."""
    with CatModel(model, pair()) as cat, torch.no_grad():
        cat.logits.data[:] = torch.tensor(alpha)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(1, 31, (96, 2), generator=generator)
        while ids.shape[1] < 12:
            probabilities = cat(ids).logits[:, -1].softmax(-1)
            ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=generator)], 1)
    return [{"input_ids": row, "labels": [-100, -100, *row[2:]]} for row in ids.tolist()]


def test_global_alphas_recover_the_planted_ones():
    model = sharp_llama()
    learned = learn_alphas(
        model, pair(), with_planted_texts(model), init="uniform", lr=0.03, max_steps=100,
        granularity="global",
    )  # fmt: skip
    assert next(iter(learned.values())).tolist() == pytest.approx([1.0, 0.3], abs=0.1)


def test_lr_0_returns_exactly_the_start():
    learned = learn_alphas(tiny_llama(), pair(), rows(), init="uniform", lr=0.0, max_steps=5)
    assert all(torch.equal(a, torch.full((2,), 0.5)) for a in learned.values())
    assert learned.history[-1]["alpha_moved"] == 0.0


def test_the_same_seed_gives_the_same_alphas():
    first, again, other = (
        learn_alphas(tiny_llama(), pair(), rows(), lr=0.05, max_steps=6, seed=seed)
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[m], again[m]) for m in first)
    assert any(not torch.equal(first[m], other[m]) for m in first)


def test_the_released_schedule_hardly_moves_the_alphas():
    released = learn_alphas(tiny_llama(), pair(), rows(), preset="released", max_steps=30)
    ours = learn_alphas(tiny_llama(), pair(), rows(), lr=0.03, max_steps=30)
    moved = [a.history[-1]["alpha_moved"] for a in (released, ours)]
    assert 0 < moved[0] < 0.01
    assert moved[1] > 20 * moved[0]
    assert released.normalise == "softmax" and released.init == "randn"
    assert all(abs(float(a.sum()) - 1) < 1e-6 for a in released.values())


def test_an_option_wins_over_the_preset():
    learned = learn_alphas(
        tiny_llama(), pair(), rows(), preset="released", lr=0.03, warmup_steps=0, max_steps=2
    )
    assert learned.normalise == "softmax" and learned.init == "randn"
    assert [e["lr"] for e in learned.history] == pytest.approx([0.03, 0.015])


def test_history_has_every_step():
    learned = learn_alphas(tiny_llama(), pair(), rows(), epochs=2, batch_size=10)
    assert [e["step"] for e in learned.history] == [1, 2, 3, 4, 5]
    assert all(len(e["alpha_mean"]) == 2 for e in learned.history)


def test_json_round_trip_and_damage(tmp_path):
    learned = learn_alphas(tiny_llama(), pair(), rows(), max_steps=2)
    path = learned.to_json(tmp_path / "alphas.json")
    again = Alphas.from_json(path)
    assert all(torch.equal(again[m], learned[m]) for m in learned)
    assert again == learned
    path.write_text(path.read_text()[:50])
    with pytest.raises(SoupError, match=r"alphas\.json"):
        Alphas.from_json(path)
    for weights in ([], {}, {"m": 1.0}, {"m": [1.0], "n": [1.0, 2.0]}, {"m": [float("nan")]}):
        path.write_text(json.dumps({"weights": weights}))
        with pytest.raises(SoupError, match=r"alphas\.json"):
            Alphas.from_json(path)


def test_bad_input_is_refused():
    with pytest.raises(SoupError, match="dataset is empty"):
        learn_alphas(tiny_llama(), pair(), [])
    with pytest.raises(SoupError, match="unknown preset"):
        learn_alphas(tiny_llama(), pair(), rows(), preset="ours")
    with pytest.raises(SoupError, match="row 0"):
        learn_alphas(tiny_llama(), pair(), [{"input_ids": [1, 2, 3], "labels": [1]}])
    with pytest.raises(SoupError, match="no label"):
        learn_alphas(tiny_llama(), pair(), [{"input_ids": [1, 2], "labels": [1, -100]}])
    for schedule in ({"lr": -1.0}, {"batch_size": 0}, {"epochs": 0}):
        with pytest.raises(SoupError, match="bad schedule"):
            learn_alphas(tiny_llama(), pair(), rows(), **schedule)


def test_rows_without_labels_change_nothing():
    silent = [{"input_ids": [1, 2, 3], "labels": [-100] * 3}] * 20
    one, other = (learn_alphas(tiny_llama(), pair(), d) for d in (rows(), silent + rows()))
    assert one == other


def test_balanced_rows_are_as_many_of_every_skill():
    many, few = rows(7), rows(3, seed=1)
    both = balanced([many, few])
    assert both[:7] == many and both[7:] == [*few, *few, few[0]]
    assert balanced([few, few]) == [*few, *few]  # nothing to do


def test_held_out_loss_does_not_depend_on_batches():
    model, data = tiny_llama(), rows()
    assert heldout_loss(model, data, 1) == pytest.approx(heldout_loss(model, data, 7), rel=1e-5)


def test_raw_rows_are_encoded_with_the_tokenizer():
    (model, tokenizer), loras = mini(), mini_loras()
    raw = [{"prompt": "Tom has 3 pens. Give steps.\nA:", "answer": " 3"}, "2 + 2 = 4"] * 4
    rows = encode_all(tokenizer, as_items(raw, tokenizer), 32)
    how = {"max_steps": 2, "batch_size": 4, "progress": False}
    ours = learn_alphas(model, loras, raw, tokenizer=tokenizer, max_length=32, **how)
    assert ours == learn_alphas(model, loras, rows, **how)
    with pytest.raises(SoupError, match="row 2 has question"):
        learn_alphas(model, loras, [raw[0], {"question": "?"}], tokenizer=tokenizer)
