"""The model of the page, in node, against torch: the same tokens, logits and answers."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import soup_data
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorasoups.lora.adapters import load_lora
from lorasoups.lora.merging import merge
from lorasoups.models.generation import folded, generate
from lorasoups.tasks.judging.judges import score
from lorasoups.tasks.worlds.mini.tasks import TASKS, dataset

ROOT = Path(__file__).resolve().parents[2]
NODE = shutil.which("node")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not NODE, reason="node is not installed")]

ODD = ["", " ", "a  b\n        c", "Tom has 12,5 apples!?\t<s>x</s> <pad>",
       "é 🍎\u00a0\x85\ufeff_ y_1", "constructor toString __proto__"]  # fmt: skip
SCRIPT = """
const { Model, read } = require(process.argv[1]);
require(process.argv[2]);
const asked = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const { texts, soups, programs, problems, most } = asked;
const model = new Model(globalThis.SOUP_WEIGHTS);
const ids = texts.map((text) => model.tokenizer.encode(text));
const logits = soups.map(({ alphas, prompts }) => {
  model.setAlphas(alphas);
  return prompts.map((prompt) => {
    const ids = model.tokenizer.encode(prompt);
    let text = "";
    for (text of model.answer(ids, most));
    return { text, logits: model.logits(ids).map((row) => [...row]) };
  });
});
model.setAlphas([1, 1]);
const solved = problems.filter(({ prompt, target }) => {
  let text = "";
  for (text of model.answer(model.tokenizer.encode(prompt), most));
  const { form, value } = read(text);
  return form === "program" && Math.abs(value - target) < 1e-3;
});
console.log(JSON.stringify({ ids, logits, read: programs.map(read), solved: solved.length }));
"""


def rounded(tensor):
    return tensor.half().float()


@pytest.fixture(scope="module")
def torch_model():
    model = AutoModelForCausalLM.from_pretrained(ROOT / "data/mini", dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data = rounded(parameter.data)  # what the page has
    return model


@pytest.fixture(scope="module")
def numbers():
    return soup_data.numbers(ROOT)


@pytest.fixture(scope="module")
def prompts():
    return [item["prompt"] for task in TASKS for item in dataset(task, "test", 6, 1)]


@pytest.fixture(scope="module")
def programs():
    """Answers whose programs the page must judge as the sandbox does."""
    start = "\ndef solution():\n    a = 12"
    return [
        f"{start}\n    b = a / 5\n    return b", f"{start}\n    b = a - 40\n    return b * 2",
        f"{start}\n    b = c + 1\n    return b", f"{start}\n    b = a / 0\n    return b",
        f"{start}\n    return", f"{start}\n    b = a +\n    return b", f"{start}", "no program",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory, numbers, prompts, programs):
    folder = tmp_path_factory.mktemp("soup")
    soup_data.write(ROOT, folder)
    alphas = [[0, 0], [1, 0], [0, 1], [0.35, 1.5], [1, 1], numbers["learned"]]
    soups = [{"alphas": a, "prompts": prompts[i::9]} for i, a in enumerate(alphas)]
    asked = {"texts": [*prompts, *ODD], "soups": soups, "programs": programs, "most": 90}
    asked["problems"] = dataset("hard_math", "test", numbers["map"]["problems"], 0)
    command = [NODE, "-e", SCRIPT, ROOT / "docs/soup/soup_model.js", folder / "soup_weights.js"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return soups, json.loads(done.stdout)


def test_the_page_reads_the_same_tokens(page, prompts):
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/mini")
    assert page[1]["ids"] == tokenizer([*prompts, *ODD]).input_ids


def test_the_page_computes_the_same_logits_and_answers(page, torch_model):
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/mini")
    loras = [load_lora(ROOT / "data/adapters/hard_math" / skill) for skill in ("math", "code")]
    loras = [lora.each(lambda f: type(f)(rounded(f.A), rounded(f.B), f.scale)) for lora in loras]
    soups, told = page
    worst = 0.0
    for soup, answers in zip(soups, told["logits"], strict=True):
        with folded(torch_model, merge(loras, "cat", weights=soup["alphas"])):
            written = generate(torch_model, tokenizer, soup["prompts"], 90)
            for prompt, answer, text in zip(soup["prompts"], answers, written, strict=True):
                assert answer["text"] == text
                with torch.no_grad():
                    logits = torch_model(tokenizer(prompt, return_tensors="pt").input_ids).logits
                worst = max(worst, (torch.tensor(answer["logits"]) - logits[0]).abs().max().item())
    print(f"largest difference of a logit: {worst:.1e}")
    assert worst < 1e-3


def test_the_page_reads_programs_as_the_sandbox_runs_them(page, programs):
    told = page[1]["read"]
    for text, mine, ours in zip(programs, told, score(programs, [0] * len(programs)), strict=True):
        assert mine["form"] == ("program" if "def" in text else "")
        ran = ours.status in ("ok", "wrong")
        assert mine.get("value") == (pytest.approx(ours.value) if ran else None), text


def test_the_page_solves_what_its_map_says(page, numbers):
    [sum_solves] = [p["solved"][0] for p in numbers["map"]["points"] if p["alphas"] == [1, 1]]
    mine = page[1]["solved"] / numbers["map"]["problems"]
    assert mine == pytest.approx(sum_solves, abs=0.03)  # float16 may turn an answer


def test_numbers_of_the_page_are_those_of_the_results(numbers):
    alphas = numbers["learned"].values()
    shares = {method["name"]: method for method in numbers["methods"]}
    assert len(alphas) == 35 and all(len(values) == 2 for values in alphas)
    assert shares["CAT"]["alphas"][0] == pytest.approx(sum(a for a, _ in alphas) / 35)
    assert f"{100 * shares['plain sum']['solved']:.1f} % of hard math" in numbers["text"][0]
    assert len(numbers["map"]["points"]) == 81
    tasks = [problem["task"] for problem in numbers["problems"]]
    assert tasks.count("hard_math") >= 3 and set(tasks) == {"hard_math", "math", "code"}
