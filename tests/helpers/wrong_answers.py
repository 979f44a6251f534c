"""Plausible wrong answers to the exercises: number -> cells as a reader might leave them."""

_LOOP = """import torch
def learn(loss, alphas, batches, lr, warmup):
    T = len(batches)
    optimizer = torch.optim.{kind}(alphas.values(), lr=lr)
    for t, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = lr * {rate}
        {zero}
        loss(batch).backward()
        optimizer.step()
checks.ex_8(learn)"""

_FLOOR = """from collections import Counter
import numpy as np
from lorasoups.results.stats import contrast
def verdict(right, targets, kinds):
    pairs = list(zip(targets, kinds))
    best = {k: Counter(t for t, kind in pairs if kind == k).most_common(1)[0][0] for k in kinds}
    floor = np.array([t == best[k] for t, k in pairs])
"""

_SUPER = """from math import log
def superlinear(base, a, b, both, scale, n=500):
    def value(p):
        q = {moved}
        return {{"percent": p, "log": log(q), "logit": log(q / (1 - q))}}[scale]
    return value(both) - value(a) - value(b) + {rest}
automatic = {{(kind, scale): "{other}" for kind in ("both", "either")
             for scale in ("percent", "log", "logit")}}
automatic["both", "percent"], automatic["both", "log"] = "super", "zero"
automatic["both", "logit"] = "{logit}"
checks.ex_13((superlinear, automatic))"""
_MOVED = "(p * n + 0.5) / (n + 1)"

_SPLIT = """def factors(seeds):
    ok, wrong = (sum(of.get(o, 0) for of in seeds) for o in ("ok", "wrong"))
    total = sum(sum(of.values()) for of in seeds)
    runs = {runs}
    return runs / total, ok / max(1, runs)
def split(ours, theirs):
    (F, C), (G, D) = factors(ours), factors(theirs)
    return {parts}
checks.ex_9(split)"""

_SURVIVE = """import numpy as np
from lorasoups.results.stats import contrast, holm
def survive(right, claims):
    p = {{}}
    for name, (a, kind, rivals) in claims.items():
        tables = [right[a] - 1.0 * right[b] for b in rivals]
        each = [contrast(d).p if {above} else 1.0 for d in tables]
        d = np.mean(tables, axis=0)
        p[name] = {{"each": {each}, "some": {some},
                   "mean": contrast(d).p if {above} else 1.0}}[kind]
    return {adjusted}
checks.ex_10(survive)"""
_HOLM, _SOME = "dict(zip(p, holm(list(p.values()))))", "min(1, len(each) * min(each))"

TIES = """
import torch


def ties(deltas, weights, density):
    trimmed = []
    for delta in deltas:
        flat = delta.flatten()
        kept = flat.abs().topk(int(density * flat.numel())).indices
        trimmed.append(torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(delta))
    trimmed, w = torch.stack(trimmed), torch.tensor(weights).view(-1, 1, 1)
    agrees = trimmed.sign() == torch.where(VOTE.sum(0) >= 0, 1.0, -1.0)
    share = SHARE.sum(0)
    return (w * trimmed * agrees).sum(0) / torch.where(share > 0, share, 1.0)
"""

WRONG = {
    # --- 01 ---
    1: [
        "def forward(x, W, A, B, lora_alpha):\n    return x @ W.T + x @ A.T @ B.T\n"
        "checks.ex_1(forward)",
        "def forward(x, W, A, B, lora_alpha):\n    return x @ W.T + lora_alpha * (x @ A.T @ B.T)\n"
        "checks.ex_1(forward)",
    ],
    # --- 04 ---
    # --- 03 ---
    2: [
        "import torch\ndef coefficients(w):\n    return torch.outer(w, w), torch.outer(w, w)\n"
        "checks.ex_2(coefficients)",
        "import torch\ndef coefficients(w):\n    return torch.diag(w), torch.diag(w)\n"
        "checks.ex_2(coefficients)",
    ],
    3: [
        "import torch\ndef concatenate(loras, weights):\n"
        "    A = torch.cat([A for A, _, _ in loras])\n"
        "    B = torch.cat([w * B for (_, B, s), w in zip(loras, weights)], dim=1)\n"
        "    return A, B\nchecks.ex_3(concatenate)",
        "import torch\ndef concatenate(loras, weights):\n"
        "    A = torch.cat([w * A for (A, _, s), w in zip(loras, weights)])\n"
        "    B = torch.cat([w * s * B for (_, B, s), w in zip(loras, weights)], dim=1)\n"
        "    return A, B\nchecks.ex_3(concatenate)",
    ],
    4: [
        TIES.replace("VOTE", "trimmed").replace("SHARE", "(w * agrees)") + "checks.ex_4(ties)",
        TIES.replace("VOTE", "(w * trimmed)").replace("SHARE", "(1.0 * agrees)")
        + "checks.ex_4(ties)",
    ],
    5: [
        "def moments(delta, density):\n    return density * delta, delta**2\nchecks.ex_5(moments)",
        "def moments(delta, density):\n    return delta, delta**2 * (1 - density) * density\n"
        "checks.ex_5(moments)",
    ],
    6: [
        "def attach(layer, A, B, ranks, theta):\n"
        "    scale = theta.softmax(0).repeat_interleave(ranks)\n"
        "    hook = lambda m, x, y: y + ((x[0] @ A.T) * scale) @ B.T\n"
        "    return layer.register_forward_hook(hook)\n"
        "checks.ex_6(attach)",
        "def attach(layer, A, B, ranks, theta):\n"
        "    hook = lambda m, x, y: y + ((x[0] @ A.T) * theta.repeat_interleave(ranks)) @ B.T\n"
        "    return layer.register_forward_hook(hook)\n"
        "checks.ex_6(attach)",
        "def attach(layer, A, B, ranks, theta):\n"
        "    def hook(module, x, y):\n"
        "        return y + ((x[0] @ A.T) * theta.softmax(0).repeat(len(A) // 2)) @ B.T\n"
        "    return layer.register_forward_hook(hook)\n"
        "checks.ex_6(attach)",
        "def attach(layer, A, B, ranks, theta):\n"
        "    def hook(module, x, y):\n"
        "        return y + ((x[0] @ A.T) * theta.data.softmax(0).repeat_interleave(ranks)) @ B.T\n"
        "    return layer.register_forward_hook(hook)\n"
        "checks.ex_6(attach)",
    ],
    7: [
        "import torch\n"
        "def alpha_grad(x, g, A, B, ranks):\n"
        "    parts = zip(A.split(ranks.tolist()), B.split(ranks.tolist(), 1))\n"
        "    return torch.stack([(g.T @ x * (b @ a)).sum() for a, b in parts])\n"
        "checks.ex_7(alpha_grad)",
        "import torch\n"
        "def alpha_grad(x, g, A, B, ranks):\n"
        "    each = ((g @ B) * (x @ A.T)).mean(0).split(ranks.tolist())\n"
        "    return torch.stack([part.sum() for part in each])\n"
        "checks.ex_7(alpha_grad)",
        "def alpha_grad(x, g, A, B, ranks):\n"
        "    return ((g @ B) * (x @ A.T)).sum(0)\n"
        "checks.ex_7(alpha_grad)",
    ],
    8: [
        _LOOP.format(kind="Adam", zero="pass", rate="min(t / warmup, (T - t) / (T - warmup), 1)"),
        _LOOP.format(
            kind="SGD",
            zero="optimizer.zero_grad()",
            rate="min(t / warmup, (T - t) / (T - warmup), 1)",
        ),
        _LOOP.format(kind="Adam", zero="optimizer.zero_grad()", rate="min(t / warmup, 1)"),
        _LOOP.format(
            kind="Adam", zero="optimizer.zero_grad()", rate="min((T - t) / (T - warmup), 1)"
        ),
    ],  # fmt: skip
    # --- 05 ---
    9: [
        _SPLIT.format(runs="ok + wrong", parts="(F - G) * C, (C - D) * G"),
        _SPLIT.format(runs="ok + wrong", parts="F - G, C - D"),
        _SPLIT.format(
            runs="total - sum(of.get('no_solution', 0) for of in seeds)",
            parts="(F - G) * (C + D) / 2, (C - D) * (F + G) / 2",
        ),
        "def split(ours, theirs):\n"
        "    def mean(seeds):\n"
        "        ok, wrong = ([of.get(o, 0) for of in seeds] for o in ('ok', 'wrong'))\n"
        "        runs = [x + y for x, y in zip(ok, wrong)]\n"
        "        n = [sum(of.values()) for of in seeds]\n"
        "        return (sum(r / k for r, k in zip(runs, n)) / len(n),\n"
        "                sum(x / max(1, r) for x, r in zip(ok, runs)) / len(n))\n"
        "    (F, C), (G, D) = mean(ours), mean(theirs)\n"
        "    return (F - G) * (C + D) / 2, (C - D) * (F + G) / 2\n"
        "checks.ex_9(split)",
    ],
    10: [
        _SURVIVE.format(above="d.mean() > 0", each="max(each)", some=_SOME, adjusted="p"),
        _SURVIVE.format(above="True", each="max(each)", some=_SOME, adjusted=_HOLM),
        _SURVIVE.format(above="d.mean() > 0", each="max(each)", some="min(each)", adjusted=_HOLM),
        _SURVIVE.format(
            above="d.mean() > 0", each="min(1, len(each) * max(each))", some=_SOME, adjusted=_HOLM
        ),
        _SURVIVE.format(
            above="d.mean() > 0",
            each="max(each)",
            some=_SOME,
            adjusted="{k: min(1, len(p) * x) for k, x in p.items()}",
        ),
    ],
    # --- 06 ---
    11: [
        "def reach(lr, warmup, steps):\n    return lr * steps\nchecks.ex_11(reach)",
        "def reach(lr, warmup, steps):\n"
        "    return lr * (warmup / 2 + (steps - warmup) / 2)\n"
        "checks.ex_11(reach)",
        "def reach(lr, warmup, steps):\n"
        "    return lr * (warmup / 2 + (steps - warmup) / 2) / 4\n"
        "checks.ex_11(reach)",
    ],
    12: [
        "checks.ex_12((0.8, 0.8))",
        "checks.ex_12((1.0, 0.8))",
        "checks.ex_12((0.6, 1.2))",
    ],
    15: [
        "def rule(loras, loss):\n"
        "    return {name: [1.0, 1.0] for name in loras[0].modules}\n"
        "checks.ex_15(rule)",
        "def rule(loras, loss):\n    return [0.9, 0.8]\nchecks.ex_15(rule)",
        "def rule(loras, loss):\n"
        "    return {n: [max((0.6, 0.8), key=lambda a: a)] for n in loras[0].modules}\n"
        "checks.ex_15(rule)",
        "def rule(loras, loss):\n"
        "    best = max((0.6, 0.8), key=measure)\n"
        "    return {name: [best, best] for name in loras[0].modules}\n"
        "checks.ex_15(rule)",
    ],
    # --- 07 ---
    13: [
        _SUPER.format(moved=_MOVED, rest="0", other="sub", logit="super"),
        _SUPER.format(moved="max(p, 1e-6)", rest="value(base)", other="sub", logit="super"),
        _SUPER.format(moved=_MOVED, rest="value(base)", other="sub", logit="zero"),
        _SUPER.format(moved=_MOVED, rest="value(base)", other="super", logit="super"),
    ],
    # --- 08 ---
    14: [
        "import numpy as np\n"
        "from collections import Counter\n"
        "from lorasoups.results.stats import contrast\n"
        "def verdict(right, targets, kinds):\n"
        "    answer = Counter(targets).most_common(1)[0][0]\n"
        "    found = contrast(right - 1.0 * np.array([t == answer for t in targets]))\n"
        "    return 'above' if found.lo > 0 else 'below' if found.hi < 0 else 'on'\n"
        "checks.ex_14(verdict)",
        _FLOOR + "    off = right.mean() - floor.mean()\n"
        "    return 'above' if off > 0 else 'below' if off < 0 else 'on'\n"
        "checks.ex_14(verdict)",
        _FLOOR + "    found = contrast(1.0 * right)\n"
        "    if found.lo > floor.mean():\n"
        "        return 'above'\n"
        "    return 'below' if found.hi < floor.mean() else 'on'\n"
        "checks.ex_14(verdict)",
    ],
}
