"""What learning alphas costs: one step over plain forward + backward of the frozen base.

    python tests/benchmarks/bench_cat.py [--runs 30] [--hidden 160] [--threads 1]

Every round times each variant once, in turn, so that a busy machine slows all of them alike; given
are the median of each and the median of the ratios within a round. Variants:

plain     the frozen base: forward, and backward down to the embeddings (what lower layers' alphas
          need anyhow); no optimiser
cat       one step of alpha learning: `CatModel`, forward, backward, AdamW
k pairs   the same with two matmuls per LoRA and module instead of one concatenated pair
"""

import argparse
import json
import platform
import statistics
import time
from contextlib import contextmanager

import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from lorasoups.cat import CatModel
from lorasoups.lora import Factors, LoRA

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class PairsLinear(torch.nn.Module):
    """The textbook way: alpha_i * B_i (A_i x), one LoRA after the other."""

    def __init__(self, layer, factors, alphas):
        super().__init__()
        self.layer, self.factors, self.alphas = layer, factors, alphas

    def forward(self, x):
        y = self.layer(x)
        for i, f in enumerate(self.factors):
            y = y + self.alphas[i] * F.linear(F.linear(x, f.A), f.B)
        return y


@contextmanager
def pairs_installed(model, loras):
    """``model`` with a `PairsLinear` per adapted module; gives the alphas [modules, k]."""
    names = list(loras[0].modules)
    alphas = torch.nn.Parameter(torch.full((len(names), len(loras)), 1 / len(loras)))
    model.requires_grad_(False)
    originals = [model.get_submodule(name) for name in names]
    for row, (name, layer) in enumerate(zip(names, originals, strict=True)):
        factors = [lora.modules[name] for lora in loras]
        model.set_submodule(name, PairsLinear(layer, factors, alphas[row]))
    try:
        yield alphas
    finally:
        for name, layer in zip(names, originals, strict=True):
            model.set_submodule(name, layer)


def build(args) -> tuple[LlamaForCausalLM, list[LoRA]]:
    """A random Llama and k random LoRAs on its seven projections."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 8 // 3,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        use_cache=False,
        attn_implementation=args.attention,
    )
    model = LlamaForCausalLM(config).eval()
    loras = []
    for _ in range(args.k):
        modules = {
            name: Factors(
                torch.randn(args.rank, layer.in_features) * 0.02,
                torch.randn(layer.out_features, args.rank) * 0.02,
            )
            for name, layer in model.named_modules()
            if name.endswith(PROJECTIONS)
        }
        loras.append(LoRA(modules))
    return model, loras


def steps(model, loras, ids):
    """Name -> (install, step): ``install()`` is a context that gives what ``step`` works on."""

    def loss():
        return model(input_ids=ids, labels=ids).loss

    @contextmanager
    def plain():
        model.requires_grad_(False)
        hook = model.get_input_embeddings().register_forward_hook(
            lambda module, args, out: out.requires_grad_(True)
        )
        try:
            yield lambda: loss().backward()
        finally:
            hook.remove()

    def learning(parameter):
        optimizer = torch.optim.AdamW([parameter], lr=1e-3, weight_decay=0.0, fused=True)

        def step():
            loss().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    @contextmanager
    def cat():
        with CatModel(model, loras) as wrapped:
            yield learning(wrapped.logits)

    @contextmanager
    def pairs():
        with pairs_installed(model, loras) as alphas:
            yield learning_pairs(alphas)

    def learning_pairs(alphas):
        optimizer = torch.optim.AdamW([alphas], lr=1e-3, weight_decay=0.0, fused=True)
        layers = [m for m in model.modules() if isinstance(m, PairsLinear)]

        def step():
            for row, layer in enumerate(layers):
                layer.alphas = alphas[row]
            loss().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    return {"plain": plain, "cat": cat, "k pairs": pairs}


def measure(variants, runs: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Seconds of every run of every variant, taken in turn."""
    seconds = {name: [] for name in variants}
    for run in range(warm_up + runs):
        for name, variant in variants.items():
            with variant() as step:
                step()  # caches and optimiser state of a fresh installation
                started = time.perf_counter()
                step()
                if run >= warm_up:
                    seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {
        "runs": 30, "hidden": 160, "layers": 4, "rank": 8, "k": 2, "batch": 16, "tokens": 64,
        "vocab": 512, "threads": 1,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--attention", default="eager", choices=("eager", "sdpa"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, loras = build(args)
    ids = torch.randint(args.vocab, (args.batch, args.tokens))
    seconds = measure(steps(model, loras, ids), args.runs)
    for name, values in seconds.items():
        ratios = [v / p for v, p in zip(values, seconds["plain"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:8} {1000 * statistics.median(values):7.1f} ms"
            f"   x {statistics.median(ratios):.3f} plain   (quartiles {low:.3f}-{high:.3f})"
        )
    print(json.dumps({**vars(args), "torch": torch.__version__, "cpu": platform.machine()}))


if __name__ == "__main__":
    main()
