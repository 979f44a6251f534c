"""Writes what the page of the soup shows: ``python docs/soup_data.py FOLDER``.

``soup_numbers.js`` (read at once): problems, map, marks, numbers and sentences, all from the tasks
and data/results. ``soup_weights.js`` (read when asked for): the base and the two LoRAs as float16
in base64. They are scripts, as a page that is opened as a file may not fetch anything.
"""

import base64
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lorasoups.files import write_text_atomic
from lorasoups.lora.adapters import load_lora
from lorasoups.paths import Folders
from lorasoups.report import sentences
from lorasoups.results import reading
from lorasoups.results.file import read_results
from lorasoups.tasks.worlds.mini.tasks import dataset

SHOWN = {"hard_math": 4, "math": 2, "code": 2}
"""Task -> how many of its first test problems can be picked."""
METHODS = {"base": "base", "math": "math LoRA", "code": "code LoRA", "linear@delta": "average",
           reading.SUM: "plain sum", "cat": "CAT"}  # fmt: skip
"""Method in the results -> its button."""


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Matrices and vectors as names with shapes, and one text of all their numbers."""
    halves = [tensor.detach().to(torch.float16).numpy().tobytes() for tensor in tensors.values()]
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    return {"shapes": shapes, "float16": base64.b64encode(b"".join(halves)).decode()}


def weights(project: Path) -> dict[str, Any]:
    """The base, its tokenizer, and the LoRAs; B holds the scale s."""
    skills = reading.skills(read_results(project / "data/results/mini/hard_math.json"))
    folder, adapters = project / "data/mini", project / "data/adapters/hard_math"
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    loras = [load_lora(adapters / skill).modules.items() for skill in skills]
    return {
        "config": json.loads((folder / "config.json").read_text(encoding="utf-8")),
        "vocab": tokenizer["model"]["vocab"],
        "special": [token["content"] for token in tokenizer["added_tokens"]],
        "unknown": tokenizer["model"]["unk_token"],
        "pattern": tokenizer["pre_tokenizer"]["pattern"]["Regex"],
        "base": packed(load_file(folder / "model.safetensors")),
        "loras": [
            packed({f"{m}.{side}": getattr(f, side) for m, f in lora for side in ("A", "B")})
            for lora in loras
        ],
    }


def numbers(project: Path) -> dict[str, Any]:
    """Problems, buttons, the map, and what the study says."""
    results = read_results(project / "data/results/mini/hard_math.json")
    surface = read_results(project / "data/results/mini/surface.json")
    skills = reading.skills(results)
    soup = project / "data/adapters/hard_math" / skills[0] / "soup.json"
    made = json.loads(soup.read_text(encoding="utf-8"))
    seed = made["provenance"]["made"]["seed"]
    learned = {
        entry["module"]: entry["values"]
        for entry in results["alphas"]
        if entry["preset"] == "ours" and entry["seed"] == seed
    }
    mean = [sum(column) / len(learned) for column in zip(*learned.values(), strict=True)]
    alphas = {"base": [0, 0], "math": [1, 0], "code": [0, 1], "linear@delta": [0.5, 0.5],
              reading.SUM: [1, 1], "cat": mean}  # fmt: skip
    return {
        "skills": skills,
        "seed": seed,
        "max_new_tokens": results["config"]["max_new_tokens"],
        "problems": [
            {"task": task, "prompt": item["prompt"], "target": item["target"]}
            for task, n in SHOWN.items()
            for item in dataset(task, "test", n, 0)
        ],
        "methods": [
            {"name": name, "alphas": alphas[method]} | _measured(results, method)
            for method, name in METHODS.items()
        ],
        "learned": learned,
        "map": _map(surface, skills),
        "text": _text(results),
    }


def _map(surface: reading.Results, skills: list[str]) -> dict[str, Any]:
    """At every point of the plane: the target solved by each seed, skill loss, skills solved."""
    points = {}
    for row in reading.rows(surface):
        alphas = tuple(round(row["extra"][f"alpha_{i + 1}"], 3) for i in range(len(skills)))
        points.setdefault(alphas, []).append(row)

    def mean(rows: list[dict], name: str) -> float:
        return round(sum(row["extra"][name] for row in rows) / len(rows), 4)

    return {
        "problems": reading.rows(surface)[0]["n"],
        "seeds": reading.seeds_text(surface),
        "points": [
            {
                "alphas": list(alphas),
                "solved": [row["accuracy"] for row in rows],
                "loss": mean(rows, "heldout_loss"),
                "skills": [mean(rows, skill) for skill in skills],
            }
            for alphas, rows in points.items()
        ],
    }


def _measured(results: reading.Results, method: str) -> dict[str, float]:
    """Solved problems of the target, answers in its form, solved problems of each skill."""
    tests = {skill: reading.test_of(results, skill) for skill in reading.skills(results)}
    return {
        "solved": reading.estimate(results, method).mean,
        "form": reading.form(results, method)[0],
        **{skill: reading.estimate(results, method, test).mean for skill, test in tests.items()},
    }


def _text(results: reading.Results) -> list[str]:
    """The sentences below the map."""
    cat, total = (_measured(results, method) for method in ("cat", reading.SUM))
    kept = [reading.kept(results, method) for method in ("cat", reading.SUM)]
    skills, n = reading.skills(results), reading.rows(results)[0]["n"]
    name = reading.label(reading.SUM, results)
    [against] = [contrast for contrast in reading.primary(results) if contrast.name == name]

    def keeps(shares: list[float]) -> str:
        pairs = zip(skills, shares, strict=True)
        return " and ".join(f"{100 * share:.0f} % of {skill}" for skill, share in pairs)

    return [
        f"Over {n} problems and {reading.seeds_text(results)}, the plain sum solves "
        f"{reading.percent(total['solved'])} % of hard math: {100 * total['form']:.0f} % of its "
        f"answers are programs that run. Of the skills it keeps {keeps(kept[1])}, against each "
        "LoRA alone.",
        f"CAT solves {reading.percent(cat['solved'])} %: {100 * cat['form']:.0f} % of its answers "
        f"are programs that run. It keeps {keeps(kept[0])}.",
        f"On hard math CAT is {sentences.primary_verdict(against)} the plain sum.",
    ]


def write(project: Path, folder: Path) -> None:
    """Write both files."""
    for name, content in (("SOUP_NUMBERS", numbers(project)), ("SOUP_WEIGHTS", weights(project))):
        text = json.dumps(content, separators=(",", ":"))
        write_text_atomic(folder / f"{name.lower()}.js", f"globalThis.{name} = {text};\n")


if __name__ == "__main__":
    write(Folders().project, Path(sys.argv[1]))
