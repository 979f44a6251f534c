"""Real tasks: one template, held-out parts that do not overlap, no training on GSM-Hard."""

import pytest
from mirrors import CODE, GSM8K, HARD, real_mirror, write_split
from pretrain import word_tokenizer

from lorasoups.errors import SoupError
from lorasoups.models.batching import encode_all
from lorasoups.tasks.judging.last_number import last_number
from lorasoups.tasks.real import gsm_hard
from lorasoups.tasks.real.gsm_hard import digest
from lorasoups.tasks.real.hub import MIRROR_VARIABLE
from lorasoups.tasks.real.source import RealTasks
from lorasoups.tasks.real.tasks import USE_PYTHON, items, render

ANSWER = "She sells 16 - 3 = <<16-3=13>>13.\nThat is $<<13*1000=13000>>13,000.\n#### 13,000"
SPLITS = ("train", "validation", "test")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(tmp_path))
    gsm8k = [{"question": f"Problem {i % 150}?", "answer": ANSWER} for i in range(300)]
    code = [
        {
            "instruction": f"Write f{i}.",
            "input": ("", "x = 1", "<noinput>")[i % 3],
            "output": "def f(): ...",
        }
        for i in range(300)
    ]
    code.append({"instruction": "Say nothing.", "input": "", "output": " "})
    hard = [{"input": f" Hard {i}? ", "code": "secret", "target": i + 0.5} for i in range(6)]
    write_split(tmp_path, GSM8K, "train", gsm8k)
    write_split(tmp_path, GSM8K, "test", gsm8k[:7])
    write_split(tmp_path, CODE, "train", code, complete=False, note="STAND-IN")
    write_split(tmp_path, HARD, "train", hard)
    return tmp_path


def test_math_is_worked_in_words_without_calculator_marks(mirror):
    found, files = items("math", "test")
    assert len(found) == 7
    assert found[0] == {
        "question": "Problem 0?",
        "answer": "She sells 16 - 3 = 13.\nThat is $13,000.\nThe answer is 13,000.",
        "target": 13000,
        "id": "gsm8k/test/0",
    }
    assert last_number(found[0]["answer"]) == found[0]["target"]
    assert [(f["repo"], f["split"]) for f in files] == [("openai/gsm8k", "test")]


def test_code_has_instruction_and_input_and_no_target(mirror):
    found, files = items("code", "train")
    by_id = {int(item["id"].rpartition("/")[2]): item for item in found}
    assert all(item["target"] is None and item["answer"] == "def f(): ..." for item in found)
    for i, item in by_id.items():
        expected = f"Write f{i}." + ("\n\nInput:\nx = 1" if i % 3 == 1 else "")
        assert item["question"] == expected
    assert files[0]["note"] == "STAND-IN" and files[0]["complete"] is False


@pytest.mark.parametrize(("task", "total"), [("math", 150), ("code", 300)])
def test_held_out_parts_share_no_question(mirror, task, total):
    parts = [{item["question"] for item in items(task, split)[0]} for split in SPLITS]
    assert all(parts) and len(parts[0]) > 0.8 * total
    assert len(set.union(*parts)) == sum(map(len, parts)) == total


def test_the_order_is_that_of_the_hash_and_every_question_comes_once(mirror):
    found = [item["id"] for item in items("math", "train")[0]]
    assert found == [item["id"] for item in items("math", "train")[0]]
    assert found != sorted(found, key=lambda name: int(name.rpartition("/")[2]))


def test_the_target_is_asked_for_in_python_and_shows_no_program(mirror):
    found, _ = items("gsm_hard", "test")
    assert found[1] == {
        "question": f"Hard 1?\n\n{USE_PYTHON}",
        "answer": "",
        "target": 1.5,
        "id": "gsm-hard/1",
        "source_question": " Hard 1? ",
    }


@pytest.mark.parametrize("split", ["train", "validation"])
def test_gsm_hard_is_never_trained_on(mirror, split):
    with pytest.raises(SoupError, match="task gsm_hard has no split .*; use test"):
        items("gsm_hard", split)


def test_unknown_tasks_and_splits_are_refused(mirror):
    with pytest.raises(SoupError, match="unknown task 'history'"):
        items("history", "train")
    with pytest.raises(SoupError, match="no split 'dev'; use train or validation or test"):
        items("math", "dev")


# --- prompts ------------------------------------------------------------------------------------

CHAT = (
    "<s>{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}model:\n{% endif %}"
)


@pytest.fixture
def tokenizer():
    words = "### Instruction: Response Problem Hard Write f x = Input user model"
    return word_tokenizer([words])


def test_a_model_without_chat_template_gets_the_plain_one(tokenizer):
    assert render(tokenizer, "Why?") == "### Instruction:\nWhy?\n\n### Response:\n"


def test_a_chat_template_is_used_and_begins_only_once(tokenizer):
    tokenizer.chat_template = CHAT
    text = render(tokenizer, "Why?")
    assert text == "user: Why?\nmodel:\n"
    assert tokenizer(text).input_ids.count(tokenizer.bos_token_id) == 1


def test_a_begin_token_that_the_tokenizer_does_not_add_stays(tokenizer):
    from tokenizers import processors

    tokenizer.chat_template = CHAT
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    text = render(tokenizer, "Why?")
    assert text.startswith("<s>user")
    assert tokenizer(text).input_ids.count(tokenizer.bos_token_id) == 1


def test_training_and_evaluation_share_the_template(mirror, tokenizer):
    tasks = RealTasks(tokenizer, max_length=100)
    trained = tasks.items("math", "train", 1)[0]["prompt"]
    tested = tasks.items("math", "test", 1)[0]["prompt"]
    assert trained.split("\n")[::2] == tested.split("\n")[::2]
    assert tested.startswith("### Instruction:\nProblem 0?")


# --- as a source --------------------------------------------------------------------------------


def test_long_examples_are_left_out_of_training_but_not_of_the_test(mirror, tokenizer):
    def lengths(items):
        return [len(row["input_ids"]) for row in encode_all(tokenizer, items, 10_000)]

    whole = lengths(RealTasks(tokenizer, max_length=10_000).items("code", "train", 40))
    limit = max(n for n in whole if n < max(whole))
    short = RealTasks(tokenizer, limit).items("code", "train", 40)
    assert len(whole) == len(short) == 40 and max(lengths(short)) == limit
    assert encode_all(tokenizer, short, limit) == encode_all(tokenizer, short, 10_000)  # none cut
    assert len(RealTasks(tokenizer, 1).items("math", "test", 5)) == 5
    with pytest.raises(SoupError, match="at most 1 tokens: math, train"):
        RealTasks(tokenizer, 1).items("math", "train", 5)


def test_views_and_provenance_of_what_was_read(mirror, tokenizer, monkeypatch):
    questions = [f" Hard {i}? " for i in range(6)]
    flags = {"questions_sha256": digest(questions), "unchanged": [0], "repeated": [], "lost": [2]}
    monkeypatch.setattr(gsm_hard, "shipped_flags", lambda: flags)
    tasks = RealTasks(tokenizer, max_length=100)
    assert tasks.data() == []
    found = {name: mask.tolist() for name, mask in tasks.views("gsm_hard", 3).items()}
    assert found == {
        "all": [True] * 3,
        "changed": [False, True, True],
        "changed_unflagged": [False, True, False],
    }
    assert {k: v.tolist() for k, v in tasks.views("math", 99).items()} == {"all": [True] * 7}
    assert [(f["repo"], f["split"]) for f in tasks.data()] == [
        ("openai/gsm8k", "test"),
        ("reasoning-machines/gsm-hard", "train"),
    ]


# --- the real data, where a mirror is -----------------------------------------------------------


def test_no_test_question_is_in_the_real_training_data(monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, str(real_mirror()))
    trained = {i["question"] for split in SPLITS[:2] for i in items("math", split)[0]}
    hard = {i["source_question"].strip() for i in items("gsm_hard", "test")[0]}
    tested = {i["question"] for i in items("math", "test")[0]}
    assert len(trained) > 7000 and len(hard) > 1300
    assert not trained & hard and not trained & tested
