"""The mini world: splits, skills, target, tokenizer, base, pretraining."""

import json
import re
from dataclasses import replace
from random import Random

import mini_corpus as corpus
import pretrain
import pytest
import shots_corpus
import torch
from pretrain import batches, cell_accuracy, word_tokenizer

from lorasoups.errors import Diverged, SoupError
from lorasoups.models.base import load_base
from lorasoups.paths import project_root
from lorasoups.tasks.judging.sandbox import run_programs
from lorasoups.tasks.worlds import SPLITS
from lorasoups.tasks.worlds.mini import problems
from lorasoups.tasks.worlds.mini.problems import BASE_FORMS, FORMS, OPS, Problem, sample, tell
from lorasoups.tasks.worlds.mini.tasks import TASKS, dataset, example

BASE = project_root() / "data" / "mini"
PAIR = ("math", "code", "hard_math", "hard_math_easy", "hard_math_unseen")


@pytest.fixture(scope="module")
def base():
    model, tokenizer, _ = load_base(BASE, attn_implementation="eager")
    return model.eval(), tokenizer


def test_a_problem_belongs_to_one_split_whatever_task_seed_or_wording():
    seen = {split: set() for split in SPLITS}
    for split in SPLITS:
        for task in TASKS:
            for seed in (0, 1):
                seen[split] |= {item["key"] for item in dataset(task, split, 200, seed)}
    assert all(len(keys) > 500 for keys in seen.values())
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]


def test_the_base_reads_training_problems_only():
    rng = Random(0)
    for _ in range(300):
        content, form = rng.choice(corpus.GRID)
        state = rng.getstate()
        item = corpus.cell_example(content, form, rng)
        rng.setstate(state)
        assert (
            sample(rng, "train", form != "worked" and rng.random() < 0.5).answer == item["target"]
        )


@pytest.mark.parametrize("task", [*PAIR, "hard_math_aside"])
def test_answers_are_right(task):
    items = dataset(task, "test", 200, 0)
    if task == "math":
        assert all(item["answer"].endswith(f"The answer is {item['target']}.") for item in items)
        for item in items:
            for left, right in re.findall(r"(\d+ [-+*/] \d+) = (\d+)\.", item["answer"]):
                assert eval(left) == int(right)  # noqa: S307 - our own arithmetic
    else:
        outcomes = run_programs([item["answer"] for item in items])
        assert [o.value for o in outcomes] == [item["target"] for item in items]


def test_no_skill_answers_a_story_in_code():
    words = set(problems.PEOPLE)
    for item in dataset("code", "train", 2000, 0):
        assert "def solution" in item["answer"]
        assert not words & set(re.findall(r"\w+", item["prompt"]))
    for item in dataset("math", "train", 2000, 0):
        assert "def" not in item["answer"] and "Python" not in item["prompt"]


def test_the_target_is_a_story_with_large_numbers_that_asks_for_python():
    small = dataset("math", "train", 500, 0)
    large = dataset("hard_math", "test", 500, 0)
    assert all("Python" in item["prompt"] for item in large)
    assert max(max(map(int, re.findall(r"\d+", i["prompt"]))) for i in small) < 100
    assert min(max(map(int, re.findall(r"\d+", i["prompt"]))) for i in large) >= 100


def _skeleton(template):
    return re.sub(r"\{\w\}|\d+", "#", template)


def test_new_wordings_are_not_in_the_grid_and_unseen_ones_in_no_training_text():
    known, new, unseen = (
        {_skeleton(t) for op in OPS for t in problems.WORDS[wording][op]}
        for wording in problems.STORIES
    )
    assert not known & new and not unseen & (known | new)
    rng = Random(0)
    for _ in range(1500):
        prompt, answer = corpus.document(rng)
        text = prompt + answer
        if prompt:
            assert not re.search(r"donate|earns|collects|shelves|double|Half of", text)
            assert "Python" not in prompt
        assert "are donated by" not in text and "are earned by" not in text
    for item in dataset("math", "train", 2000, 0):
        assert "are donated by" not in item["prompt"] and "are earned by" not in item["prompt"]


def test_held_out_cells_are_never_shown():
    assert corpus.HELD_OUT_CELLS <= set(corpus.CELLS)
    assert not corpus.HELD_OUT_CELLS & (set(corpus.GRID) | set(corpus.WORKED_CELLS))
    contents = {content for content, _ in corpus.GRID}
    shown = {form for _, form in corpus.GRID}
    assert contents == set(corpus.BASE_CONTENTS) and shown == set(BASE_FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_forms_keep_all_numbers_in_order(form):
    problem = Problem(12, (("+", 34), ("*", 5)))
    text = FORMS[form][0](problem)
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    if form == "worked":
        assert numbers == [12, 34, 46, 46, 5, 230, 230]
    else:
        assert numbers == [12, 34, 5]


def test_contents_name_every_number():
    problem = Problem(120, (("-", 34), ("/", 2)))
    for wording in (*corpus.BASE_CONTENTS.values(), "unseen"):
        assert {"120", "34", "2"} <= set(re.findall(r"\d+", tell(problem, Random(0), wording)))


def test_word_numbers_stand_only_in_new_stories():
    problem = Problem(120, (("/", 2),))
    assert re.findall(r"\d+", tell(problem, Random(0), "new")) == ["120"]


def test_datasets_are_seeded_and_distinct():
    assert dataset("math", "train", 50, 0) == dataset("math", "train", 50, 0)
    assert dataset("math", "train", 50, 0) != dataset("math", "train", 50, 1)
    prompts = [item["prompt"] for item in dataset("math", "train", 3000, 0)]
    assert len(set(prompts)) == 3000
    with pytest.raises(SoupError, match="unknown task"):
        example("physics", Random(0), "train")


def test_committed_tokenizer_is_the_generated_one_and_exact(base):
    _, tokenizer = base
    assert tokenizer.get_vocab() == word_tokenizer(corpus.MINI.sample(20_000, 0)).get_vocab()
    rng = Random(5)
    texts = ["".join(corpus.document(rng)) for _ in range(300)]
    for task in PAIR:
        for item in dataset(task, "test", 100, 0):
            texts.append(item["prompt"] + item["answer"])
    for text in texts:
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_base_generalises_to_held_out_cells_and_has_neither_skill(base):
    """What makes composition possible: content and form are separate factors for it."""
    model, tokenizer = base
    cells = sorted(corpus.HELD_OUT_CELLS)[::3]
    accuracy = cell_accuracy(model, tokenizer, corpus.cell_example, cells, per_cell=10)
    assert sum(accuracy.values()) / len(accuracy) > 0.9, accuracy


def test_a_base_that_is_shown_examples_takes_their_form_without_being_told():
    model, tokenizer, _ = load_base(BASE.with_name("shots"))
    cells = sorted(corpus.HELD_OUT_CELLS)[::3]
    for kind in (corpus.cell_example, shots_corpus.silent_example):
        accuracy = cell_accuracy(model, tokenizer, kind, cells, per_cell=10)
        assert sum(accuracy.values()) / len(accuracy) > 0.85, (kind, accuracy)
    prompt = shots_corpus.silent_example(*cells[0], Random(0), "validation")["prompt"]
    assert prompt.count("\nA:") == 3 and not any(name in prompt for name in ("Use ", "Give "))


def test_the_base_is_small_and_loads_in_float32(base):
    model, _ = base
    assert sum(p.numel() for p in model.parameters()) <= 3_000_000
    assert model.dtype == torch.float32
    assert sum(f.stat().st_size for f in BASE.iterdir()) <= 8_000_000


def test_pretraining_batches_are_a_function_of_seed_and_index():
    tokenizer = word_tokenizer(corpus.sample_texts(500, 0))
    nine, again, other = (
        list(batches(corpus.document, tokenizer, steps, seed))
        for steps, seed in ((9, 0), (10, 0), (1, 1))
    )
    assert [len(b) for b in (nine, again, other)] == [9, 10, 1]
    assert torch.equal(nine[8]["input_ids"], again[8]["input_ids"])
    assert not torch.equal(other[0]["input_ids"][:, :5], again[0]["input_ids"][:, :5])
    assert all(len(batch["input_ids"]) == corpus.MINI.batch for batch in again)


def test_pretraining_learns_and_writes_a_base_and_its_card(tmp_path, monkeypatch):
    monkeypatch.setitem(pretrain.LANGUAGES, "mini", replace(corpus.MINI, batch=8))
    monkeypatch.setattr(pretrain, "cell_accuracy", lambda *_: {"steps/let": 0.5})
    small = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2,
             "num_hidden_layers": 1}  # fmt: skip
    monkeypatch.setattr(pretrain, "CONFIG", pretrain.CONFIG | small)
    pretrain.main(tmp_path, steps=30, lr=0.02, every=10)
    card = json.loads((tmp_path / "card.json").read_text())
    assert [entry["step"] for entry in card["log"]] == [10, 20, 30]
    losses = [entry["loss"] for entry in card["log"]]
    assert losses == sorted(losses, reverse=True) and card["loss"] == losses[-1]
    model, tokenizer, _ = load_base(tmp_path)
    assert tokenizer.get_vocab() == word_tokenizer(corpus.MINI.sample(20_000, 0)).get_vocab()
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    data = batches(corpus.document, tokenizer, 30, 0, 8)
    assert card["tokens"] == sum(int((batch["input_ids"] != 0).sum()) for batch in data)


def test_pretraining_that_diverges_says_so(monkeypatch):
    tokenizer = word_tokenizer(corpus.sample_texts(100, 0))
    config = pretrain.LlamaConfig(vocab_size=len(tokenizer), **pretrain.CONFIG)
    model = pretrain.LlamaForCausalLM(config)
    torch.nn.init.constant_(model.model.norm.weight, torch.nan)
    with pytest.raises(Diverged, match="at step 1"):
        pretrain.train(model, tokenizer, corpus.MINI, 2, seed=0, lr=1e-3, every=1)
