"""Static merges of two LoRAs of the paper's shape: seconds and memory."""

import pytest
from harness import in_child

LAYERS = 32
ROUTES = [
    ("linear", "delta", 1), ("linear", "factors", 1), ("ties", "factors", 1),
    ("dare_linear", "factors", 1), ("dare_ties", "factors", 1), ("magnitude_prune", "factors", 1),
    ("svd", "delta", 1), ("knots", "delta", 1), ("lego", "delta", 1),
    ("ties", "delta", 32), ("dare_linear", "delta", 32), ("dare_ties", "delta", 32),
    ("magnitude_prune", "delta", 32),
]  # fmt: skip
"""Method, what it works on, by how much the number of layers is cut (and the seconds scaled)."""

MERGE = """
import sys, time
sys.path.insert(0, "tests/benchmarks")
from harness import peak_bytes
from models import paper_pair
from lorasoups.merging import merge
method, on, layers, weight = sys.argv[1], sys.argv[2], int(sys.argv[3]), 0.5
pair = paper_pair(layers)
started = time.perf_counter()
soup = merge(pair, method, weights=[weight, weight], on=on)
print({"seconds": time.perf_counter() - started, "peak": peak_bytes()})
"""
OURS = """
import sys, time
sys.path.insert(0, "tests/benchmarks")
from harness import peak_bytes
from models import random_lora
from lorasoups.merging import merge
size = int(sys.argv[1])
pair = [random_lora({"q_proj": (size, size)}, 32, seed) for seed in range(2)]
merge([random_lora({"q_proj": (64, 64)}, 8, seed) for seed in range(2)], "svd")  # libraries load
before, started = peak_bytes(), time.perf_counter()
merge(pair, "svd", weights=[1.0, 1.0], rank=32)
print({"seconds": time.perf_counter() - started, "peak": peak_bytes() - before})
"""
PEFT = """
import sys, time
sys.path.insert(0, "tests/benchmarks")
import torch
from peft import LoraConfig, get_peft_model
from harness import peak_bytes
size = int(sys.argv[1])
class Model(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.q_proj = torch.nn.Linear(size, size, bias=False)
def pair(size, r):
    config = LoraConfig(r=r, lora_alpha=r, target_modules=["q_proj"])
    model = get_peft_model(Model(size), config, "a")
    model.add_adapter("b", config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model
pair(64, 8).add_weighted_adapter(["a", "b"], [1.0, 1.0], "s", "svd", svd_rank=8)
model = pair(size, 32)
before, started = peak_bytes(), time.perf_counter()
model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "soup", "svd", svd_rank=32)
print({"seconds": time.perf_counter() - started, "peak": peak_bytes() - before})
"""


def test_every_static_merge_of_a_7b_pair(benchmark, figure, quick):
    """Methods on true delta weights need all entries of one layer after the other: one layer of
    32 is measured and its seconds are scaled; their results are of full rank and would be as large
    as the model, so they are counted apart."""
    found: dict[str, dict] = {}

    def all_routes() -> None:
        for method, on, cut in ROUTES[:1] if quick else ROUTES:
            layers = max(1, (2 if quick else LAYERS) // cut)
            own = in_child(MERGE, method, on, str(layers))
            own["seconds"] *= cut
            found[f"{method}@{on}"] = own
            print(f"\n{method}@{on}: {own['seconds']:.1f} s, {own['peak'] / 1e9:.2f} GB", end="")

    benchmark.pedantic(all_routes, rounds=1, iterations=1)
    slowest = max(found, key=lambda name: found[name]["seconds"])
    shown = ", ".join(
        f"{name} {own['seconds']:.1f} s {own['peak'] / 1e9:.1f} GB" for name, own in found.items()
    )
    dense = {f"{method}@{on}" for method, on, cut in ROUTES if cut > 1}
    whole = {name: own for name, own in found.items() if name not in dense}
    largest = max(whole, key=lambda name: whole[name]["peak"])
    figure(
        "merge_seconds",
        found[slowest]["seconds"],
        note=f"{slowest}; all: {shown} (on delta, pruned: 1 layer measured, seconds x 32)",
    )
    figure("merge_memory", whole[largest]["peak"] / 1e9, note=f"{largest}, all 32 layers")


@pytest.mark.parametrize("size", [4096])
def test_svd_against_pefts(benchmark, figure, quick, size):
    """One module of 4096 x 4096; the larger ones of the paper's five are left out: PEFT's svd of
    the full matrix takes minutes for each."""
    size = 256 if quick else size
    ours = [in_child(OURS, str(size)) for _ in range(1 if quick else 3)]
    theirs = benchmark.pedantic(lambda: in_child(PEFT, str(size)), rounds=1, iterations=1)
    best = min(ours, key=lambda run: run["seconds"])
    note = f"{size} x {size}, r = 32: {best['seconds']:.3f} s against {theirs['seconds']:.1f} s"
    figure("svd_time", theirs["seconds"] / best["seconds"], note=note)
    peaks = [max(1, max(run["peak"] for run in ours)), max(1, theirs["peak"])]
    note = f"above what was held before: {peaks[0] / 1e6:.1f} MB against {peaks[1] / 1e6:.0f} MB"
    figure("svd_memory", peaks[0] / peaks[1], note=note)
