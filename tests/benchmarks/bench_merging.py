"""Static merges of two LoRAs of the paper's shape: seconds and memory."""

import subprocess

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
LIMIT_S = 120

MERGE = """
import cProfile, json, pstats, time
from harness import Peak
from models import paper_pair
from lorasoups.lora.merging import merge
method, on, layers, profiled = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "profile"
pair = paper_pair(layers)
profiler = cProfile.Profile()
with Peak() as peak:
    started = time.perf_counter()
    run = lambda: merge(pair, method, weights=[0.5, 0.5], on=on)
    soup = profiler.runcall(run) if profiled else run()
    seconds = time.perf_counter() - started
rows = pstats.Stats(profiler).stats.items() if profiled else ()
rows = sorted(((own[2], key[2]) for key, own in rows), reverse=True)[:4]
print(json.dumps({"seconds": seconds, "peak": peak.bytes, "profile": rows}))
"""
OURS = """
import json, time
from harness import Peak, timed
from models import random_lora
from lorasoups.lora.merging import merge
height, width, device = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
merge([random_lora({"q_proj": (64, 64)}, 8, seed, device) for seed in range(2)], "svd")  # loads
pair = [random_lora({"q_proj": (height, width)}, 32, seed, device) for seed in range(2)]
with Peak(device) as peak:
    seconds = timed(lambda: merge(pair, "svd", weights=[1.0, 1.0], rank=32))
print(json.dumps({"seconds": seconds, "above": peak.above}))
"""
PEFT = """
import json, time
import torch
from peft import LoraConfig, get_peft_model
from harness import Peak, timed
height, width, device = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
class Model(torch.nn.Module):
    def __init__(self, height, width):
        super().__init__()
        self.q_proj = torch.nn.Linear(width, height, bias=False)
def pair(height, width, r):
    config = LoraConfig(r=r, lora_alpha=r, target_modules=["q_proj"])
    model = get_peft_model(Model(height, width).to(device), config, "a")
    model.add_adapter("b", config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model
def soup(model, r):
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "soup", "svd", svd_rank=r)
soup(pair(64, 64, 8), 8)
model = pair(height, width, 32)
with Peak(device) as peak:
    seconds = timed(lambda: soup(model, 32))
print(json.dumps({"seconds": seconds, "above": peak.above}))
"""


def test_every_static_merge_of_a_7b_pair(benchmark, figure, missed, quick):
    """On the CPU, as adapters come from the disk.

    Methods on true delta weights need all entries of one layer after the other: one layer of 32 is
    measured and its seconds are scaled; their results are of full rank and would be as large as the
    model, so their memory is counted apart.
    """
    found: dict[str, dict] = {}

    def all_routes() -> None:
        for method, on, cut in ROUTES[:1] if quick else ROUTES:
            layers = max(1, (2 if quick else LAYERS) // cut)
            own = in_child(MERGE, method, on, str(layers), "")
            own["seconds"] *= cut
            found[f"{method}@{on}"] = own
            print(f"\n{method}@{on}: {own['seconds']:.1f} s, {own['peak'] / 1e9:.2f} GB", end="")

    benchmark.pedantic(all_routes, rounds=1, iterations=1)
    cuts = {f"{method}@{on}": cut for method, on, cut in ROUTES}
    largest = max(found, key=lambda name: found[name]["peak"])
    for title, pruned in (("merge_seconds", False), ("prune_seconds", True)):
        own = {name: of for name, of in found.items() if (cuts[name] > 1) == pruned}
        if not own:
            continue
        slowest = max(own, key=lambda name: own[name]["seconds"])
        shown = ", ".join(
            f"{name} {of['seconds']:.1f} s {of['peak'] / 1e9:.1f} GB" for name, of in own.items()
        )
        note = f"{slowest}; all: {shown}" + ", 1 layer, seconds x 32" * pruned
        slow = [name for name, of in own.items() if missed(title, of["seconds"])]
        for name in slow if not quick else ():
            method, on = name.split("@")
            rows = in_child(MERGE, method, on, str(LAYERS // max(cuts[name], 8)), "profile")
            total = sum(seconds for seconds, _ in rows["profile"])
            told = (f"{call} {100 * seconds / total:.0f} %" for seconds, call in rows["profile"])
            note += f"; time of {name}: {', '.join(told)}"
        routes = {name: {k: of[k] for k in ("seconds", "peak")} for name, of in own.items()}
        figure(title, own[slowest]["seconds"], note=note, routes=routes)
    figure("merge_memory", found[largest]["peak"] / 1e9, note=largest)


def test_svd_against_pefts(benchmark, figure, quick, device):
    """The two kinds of modules of the paper's shape: three of 4096 x 4096 and two of 11008 x 4096
    per layer. PEFT's takes minutes where it takes all 160; a module that would take longer than
    two minutes is measured at half its size, and eight times the seconds are counted."""
    sizes = {(4096, 4096): 3, (11008, 4096): 2}
    if quick:
        sizes = {(256, 256): 3, (688, 256): 2}
    ours_s = theirs_s = ours_peak = theirs_peak = 0.0
    told = []

    def peft(height: int, width: int) -> tuple[dict, str]:
        try:
            return in_child(PEFT, str(height), str(width), device, timeout_s=LIMIT_S), ""
        except subprocess.TimeoutExpired:
            half = in_child(PEFT, str(height // 2), str(width // 2), device)
            scaled = {"seconds": 8 * half["seconds"], "above": 4 * half["above"]}
            return scaled, " (from half the size: x 8, x 4)"

    def all_sizes() -> None:
        nonlocal ours_s, theirs_s, ours_peak, theirs_peak
        for (height, width), per_layer in sizes.items():
            runs = [
                in_child(OURS, str(height), str(width), device) for _ in range(1 + 4 * (not quick))
            ]
            seconds = sorted(run["seconds"] for run in runs)[len(runs) // 2]
            above = max(run["above"] for run in runs)
            theirs, scaled = peft(height, width)
            ours_s, theirs_s = (
                ours_s + per_layer * seconds,
                theirs_s + per_layer * theirs["seconds"],
            )
            ours_peak, theirs_peak = max(ours_peak, above), max(theirs_peak, theirs["above"])
            told.append(
                f"{height} x {width}: {seconds:.3f} s, {above / 1e6:.0f} MB against "
                f"{theirs['seconds']:.1f} s, {theirs['above'] / 1e6:.0f} MB{scaled}"
            )

    benchmark.pedantic(all_sizes, rounds=1, iterations=1)
    note = f"one module, r = 32, then scaled to the 160 of a 7B model: {'; '.join(told)}"
    seconds = {"ours_s": LAYERS * ours_s, "theirs_s": LAYERS * theirs_s}
    figure("svd_time", theirs_s / ours_s, note=note, **seconds)
    note = "peak of the largest module's merge above what was held before"
    figure("svd_memory", ours_peak / max(1, theirs_peak), note=f"{note}: {'; '.join(told)}")
