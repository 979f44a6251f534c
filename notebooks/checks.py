"""Checks of the notebooks' exercises: ``checks.ex_4(ties)`` says what is wrong, not only that.

Each check asserts; the message of the first assertion that fails is what the reader sees.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from scipy.stats import ttest_1samp
from torch.utils.flop_counter import FlopCounterMode

from lorasoups.lora.lora import Factors, LoRA
from lorasoups.results import reading, stats
from lorasoups.results.file import load_results
from lorasoups.tasks.worlds.pages.tasks import dataset

EMPTY = "Nothing here yet: replace the line that raises NotImplementedError."


class Verdict(Markdown):
    """What a check says, shown by Jupyter; ``passed`` for programs."""

    def __init__(self, number: str, passed: bool, said: str):
        super().__init__(f"**Exercise {number}: {'right' if passed else 'not yet'}.** {said}")
        self.passed, self.said = passed, said


def exercise(check: Callable[[Any], str | None]) -> Callable[[Any], Verdict]:
    """Turn a function that asserts something of an answer, and may return praise, into a check."""

    @wraps(check)
    def run(answer: Any) -> Verdict:
        number = check.__name__.removeprefix("ex_")
        if answer is ...:
            return Verdict(number, False, "Nothing here yet: replace the dots.")
        try:
            return Verdict(number, True, check(answer) or "")
        except NotImplementedError:
            return Verdict(number, False, EMPTY)
        except AssertionError as wrong:
            return Verdict(number, False, str(wrong))
        except Exception as error:
            said = f"Your code raises {type(error).__name__}: {error}"
            return Verdict(number, False, said)

    return run


def close(found: Any, expected: torch.Tensor, what: str) -> None:
    """Assert that ``found`` is a tensor of the shape and, nearly, the values of ``expected``."""
    assert isinstance(found, torch.Tensor), f"{what} is a {type(found).__name__}, not a tensor."
    shapes = f"{list(found.shape)} instead of {list(expected.shape)}"
    assert found.shape == expected.shape, f"{what} has shape {shapes}."
    off = float((found.detach() - expected).abs().max())
    assert off < 1e-4, f"{what} is off by up to {off:.3g}."


# --- 01 LoRA from scratch ---


@exercise
def ex_1(forward: Callable) -> str:
    """``forward(x, W, A, B, lora_alpha)``: the output of an adapted linear layer."""
    draw = torch.Generator().manual_seed(1)
    x, W = torch.randn(3, 6, generator=draw), torch.randn(5, 6, generator=draw)
    A, B = torch.randn(2, 6, generator=draw), torch.randn(5, 2, generator=draw)
    y = forward(x, W, A, B, 8)
    plain = x @ W.T
    shapes = f"{list(y.shape)} instead of {list(plain.shape)}"
    assert y.shape == plain.shape, f"y has shape {shapes}."
    added = y - plain
    exact = x @ A.T @ B.T
    assert not torch.allclose(y, plain), "The LoRA adds nothing: W x alone came back."
    assert not torch.allclose(added, exact, atol=1e-4), (
        "The scale is missing: with lora_alpha 8 and rank 2 the delta weight counts four times."
    )
    assert not torch.allclose(added, 8 * exact, atol=1e-3), (
        "The scale is lora_alpha / r, not lora_alpha: divide by the rank."
    )
    close(y, plain + 4 * exact, "y")
    return "The scale is lora_alpha / r, and it is part of the delta weight."


# --- 03 Five ways to add two LoRAs ---


@exercise
def ex_2(coefficients: Callable) -> str:
    """``coefficients(w)``: the c_ij of B_i A_j, for plain weights and for PEFT's roots."""
    w = torch.tensor([0.9, 0.3, 0.5])
    root, (plain, peft) = w.sqrt(), coefficients(w)
    for table, whose in ((plain, "The plain table"), (peft, "PEFT's table")):
        size = f"{whose} has shape {list(table.shape)}; 3 LoRAs make 3 x 3 products."
        assert table.shape == (3, 3), size
        assert table.count_nonzero() > 3, f"{whose} has no cross terms: a product of sums has k k."
    assert not torch.allclose(plain, torch.outer(root, root)), (
        "The first table is PEFT's: plain weights are w_i on B and w_j on A."
    )
    close(plain, torch.outer(w, w), "The plain table")
    for wrong in (plain, torch.outer(root, w), torch.outer(w, root)):
        assert not torch.allclose(peft, wrong), "PEFT takes the root of w on A and on B."
    close(peft, torch.outer(root, root), "PEFT's table")
    quarter, half = (float(table[0, 0]) for table in coefficients(torch.tensor([0.5, 0.5])))
    return f"With weights 1/2 the wanted terms get {quarter:g} and {half:g}, and so do the others."


@exercise
def ex_3(concatenate: Callable) -> str:
    """``concatenate(loras, weights)``: A, B of the exact sum of triples (A, B, s)."""
    draw, w = torch.Generator().manual_seed(3), [0.9, -0.3, 1.0]
    loras = [(torch.randn(r, 6, generator=draw), torch.randn(5, r, generator=draw), s)
             for r, s in ((2, 2.0), (1, 0.5), (4, 1.0))]  # fmt: skip
    A, B = concatenate(loras, w)
    shapes = f"A {list(A.shape)} and B {list(B.shape)}"
    assert A.shape == (7, 6) and B.shape == (5, 7), f"{shapes} instead of [7, 6] and [5, 7]."
    exact = [s * b @ a for a, b, s in loras]
    for factors, said in (
        ([1 / s for _, _, s in loras], "The scales s are missing."),
        ([1 / x for x in w], "The weights are missing."),
        ([x * s for x, (_, _, s) in zip(w, loras, strict=True)],
         "Weight times scale stands on A and on B: it counts twice."),
        (w, "The weights stand on A and on B: they count twice."),
    ):  # fmt: skip
        wrong = sum(f * x * d for f, x, d in zip(factors, w, exact, strict=True))
        assert not torch.allclose(B @ A, wrong, atol=1e-4), said
    close(B @ A, sum(x * d for x, d in zip(w, exact, strict=True)), "B A")
    return "Exact, at ranks 2, 1 and 4."


def _ties(deltas: torch.Tensor, w: torch.Tensor, density: float, change: str = "") -> torch.Tensor:
    """TIES of exercise 4, or with one typical mistake."""
    least = deltas.abs().flatten(1).quantile(1 - density, dim=1)[:, None, None]
    trimmed = deltas if change == "trim" else deltas.where(deltas.abs() >= least, 0.0)
    votes = trimmed if change == "vote" else w * trimmed
    agrees = trimmed.sign() == torch.where(votes.sum(0) >= 0, 1.0, -1.0)
    if change == "sign":
        agrees = trimmed != 0
    share = (agrees if change == "count" else w * agrees).sum(0)
    total = (w * trimmed * agrees).sum(0)
    return total if change == "sum" else total / torch.where(share > 0, share, 1.0)


@exercise
def ex_4(ties: Callable) -> str:
    """``ties(deltas, weights, density)``: weighted votes, divided by the weights that agree."""
    deltas, weights = (
        torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(4)),
        [1, 0.4, 0.7],
    )
    found, w = ties(list(deltas), weights, 0.5), torch.tensor(weights).view(3, 1, 1)
    assert found.isfinite().all(), "Where no delta agrees you divide by 0: divide by 1 there."
    for change, said in {
        "trim": "Nothing was trimmed.",
        "vote": "The vote ignores the weights: this is PEFT's election.",
        "sign": "Values that lost the vote are still in.",
        "count": "Divide by the sum of the agreeing weights, not by the number of deltas.",
        "sum": "The division is missing: this is a sum.",
    }.items():
        assert not torch.allclose(found, _ties(deltas, w, 0.5, change), atol=1e-4), said
    both = _ties(deltas, w, 0.5, "vote") * (w * (deltas != 0)).sum(0)
    assert not torch.allclose(found, both), "The election and the division are PEFT's."
    close(found, _ties(deltas, w, 0.5), "The merged matrix")
    return "This is mergekit's TIES; at weights 1 it is the one above."


@exercise
def ex_5(moments: Callable) -> str:
    """``moments(delta, density)``: mean and variance of every entry after DARE."""
    delta, p = torch.randn(4, 4, generator=torch.Generator().manual_seed(5)), 0.75
    mean, variance = moments(delta, p)
    assert not torch.allclose(mean, p * delta), (
        "The mean is that of dropping alone: rescale by 1/p."
    )
    close(mean, delta, "The mean")
    exact = delta.square() * (1 - p) / p
    assert not torch.allclose(variance, exact * p * p), (
        "This is the variance of dropping alone: dividing by p divides a variance by p squared."
    )
    assert not torch.allclose(variance, exact * p), "1 / p goes squared into a variance."
    assert not torch.allclose(variance, exact.sqrt()), "This is the standard deviation."
    close(variance, exact, "The variance")
    off = float((exact.sum() / delta.square().sum()).sqrt())
    return f"At density {p} one draw is off by {off:.0%} of the delta's size."


# --- 04 CAT from scratch ---


def _pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two LoRAs of rank 2 and 4 on a layer 30 -> 20, concatenated: A, B, ranks."""
    draw = torch.Generator().manual_seed(4)
    A, B = torch.randn(6, 30, generator=draw), torch.randn(20, 6, generator=draw)
    return A, B, torch.tensor([2, 4])


@exercise
def ex_6(attach: Callable) -> str:
    """``attach(layer, A, B, ranks, theta)`` hooks a soup with alpha = softmax(theta) on a layer."""
    (A, B, ranks), theta = _pair(), torch.tensor([0.7, -0.4], requires_grad=True)
    layer = torch.nn.Linear(30, 20, bias=False).requires_grad_(False)
    x, alpha = torch.randn(8, 30, generator=torch.Generator().manual_seed(5)), theta.softmax(0)
    soup = {name: layer(x) + ((x @ A.T) * columns) @ B.T for name, columns in (
        ("right", alpha.repeat_interleave(ranks)), ("theta", theta.repeat_interleave(ranks)),
        ("order", alpha.repeat(3)))}  # fmt: skip
    attach(layer, A, B, ranks, theta)
    y = layer(x)
    assert not torch.allclose(y, soup["theta"], atol=1e-4), "The softmax is missing."
    assert not torch.allclose(y, soup["order"], atol=1e-4), (
        "The alphas stand in the wrong columns: 2 columns of the first LoRA, then 4 of the second."
    )
    close(y, soup["right"].detach(), "The layer's output")
    assert y.requires_grad, "No gradient reaches theta."
    optimizer = torch.optim.Adam([theta], lr=0.1)
    for step in (1, 2, 3):
        optimizer.zero_grad()
        try:
            layer(x).square().mean().backward()
        except RuntimeError:
            raise AssertionError(
                f"Step {step} fails: something between theta and the output was computed before "
                "the hook, once, and its graph is gone."
            ) from None
        optimizer.step()
    return "Three steps, three graphs: everything that depends on theta is computed in the hook."


@exercise
def ex_7(alpha_grad: Callable) -> str:
    """``alpha_grad(x, g, A, B, ranks)``: dL/d alpha [k] from dL/dy = g."""
    (A, B, ranks), draw = _pair(), torch.Generator().manual_seed(6)
    x, g = torch.randn(7, 30, generator=draw), torch.randn(7, 20, generator=draw)
    alpha = torch.ones(2, requires_grad=True)
    y = ((x @ A.T) * alpha.repeat_interleave(ranks)) @ B.T
    [exact] = torch.autograd.grad(y, alpha, g)
    with FlopCounterMode(display=False) as counter:
        found = alpha_grad(x, g, A, B, ranks)
    if isinstance(found, torch.Tensor) and found.shape == exact.shape:
        assert not torch.allclose(7 * found, exact, rtol=1e-3), (
            "This is the mean over the tokens; the gradient is their sum."
        )
    close(found / exact.abs().max(), exact / exact.abs().max(), "The gradient")
    assert counter.get_total_flops() < 2 * 2 * 7 * 6 * (30 + 20), (
        "Right, but you form a matrix of the size of W: go through the narrow side, x A and g B."
    )
    return "Two narrow products: this is all that the backward pass of the package's CAT computes."


def _taught(batches: list, lr: float, warmup: int, change: str = "") -> torch.Tensor:
    """The alphas that the loop of exercise 8 ends with, or one with a typical mistake."""
    alphas = torch.full((2, 2), 0.5, requires_grad=True)
    optimizer = (torch.optim.SGD if change == "SGD" else torch.optim.Adam)([alphas], lr)
    for t, wanted in enumerate(batches):
        rise = t / warmup if change != "warmup" else 1.0
        fall = (len(batches) - t) / (len(batches) - warmup) if change != "decay" else 1.0
        optimizer.param_groups[0]["lr"] = lr * min(rise, fall, 1.0)
        if change != "zero":
            optimizer.zero_grad()
        (alphas - wanted).square().sum().backward()
        optimizer.step()
    return alphas.detach()


@exercise
def ex_8(learn: Callable) -> str:
    """``learn(loss, alphas, batches, lr, warmup)`` trains a dict of alphas in place."""
    alphas = {name: torch.full((2,), 0.5, requires_grad=True) for name in "ab"}
    batches = list(1 + torch.randn(40, 2, 2, generator=torch.Generator().manual_seed(7)))
    learn(lambda batch: (torch.stack(list(alphas.values())) - batch).square().sum(),
          alphas, batches, 0.05, 10)  # fmt: skip
    found = torch.stack([alpha.detach() for alpha in alphas.values()])
    assert not torch.equal(found, torch.full((2, 2), 0.5)), "The alphas are where they started."
    for change, said in {
        "zero": "Gradients pile up from step to step: zero_grad is missing.",
        "SGD": "This is plain gradient descent; take Adam.",
        "warmup": "The rate does not rise over the first steps.",
        "decay": "The rate does not fall to 0 at the end.",
    }.items():
        assert not torch.allclose(found, _taught(batches, 0.05, 10, change), atol=1e-3), said
    close(found, _taught(batches, 0.05, 10), "What the alphas end with")
    return "The same numbers as the loop with the released schedule's warm-up."


# --- 05 Does it compose? ---


def _split(ours: list[dict], theirs: list[dict], change: str = "") -> np.ndarray:
    """The two parts of exercise 9, or with one typical mistake."""
    runs, right = [], []
    for counts in (ours, theirs):
        formed = [sum(of.get(o, 0) for o in ("ok", "wrong")) for of in counts]
        if change == "no program":
            formed = [sum(of.values()) - of.get("no_solution", 0) for of in counts]
        ok = [of.get("ok", 0) for of in counts]
        runs.append(sum(formed) / sum(sum(of.values()) for of in counts))
        each = [x / max(1, f) for x, f in zip(ok, formed, strict=True)]
        right.append(np.mean(each) if change == "seeds" else sum(ok) / max(1, sum(formed)))
    (fewer, less), mean = -np.diff([runs, right]).ravel(), (np.mean(runs), np.mean(right))
    scales = {"bare": (1, 1), "first": (right[0], runs[1]), "second": (right[1], runs[0])}
    a, b = scales.get(change, (mean[1], mean[0]))
    return np.array([fewer * a, less * b])


@exercise
def ex_9(split: Callable) -> str:
    """``split(ours, theirs)``: points of a difference that are due to form, and to content."""
    ours = [{"ok": 50, "wrong": 20, "syntax": 10, "no_solution": 20},
            {"ok": 12, "wrong": 8, "exception": 30, "no_solution": 50}]  # fmt: skip
    theirs = [{"ok": 30, "wrong": 60, "bad_type": 10}, {"ok": 45, "wrong": 15, "timeout": 40}]
    silent = [{"no_solution": 100}, {"syntax": 40, "no_solution": 60}]
    found = np.array(split(ours, theirs), dtype=float)
    assert found.shape == (2,), f"You return shape {list(found.shape)}: two numbers are wanted."
    exact, swapped = _split(ours, theirs), np.array(split(theirs, ours), dtype=float)
    assert not np.allclose(found, 100 * exact), "These are points: return shares of 1."
    for change, said in {
        "bare": "These are the differences of the two factors. How much is *solved* by each?",
        "no program": "Only ok and wrong come of a program that runs; an exception does not count.",
        "seeds": "A mean over the seeds of right / runs: the product is not what is solved. Add "
                 "the counts of the seeds first.",
    }.items():  # fmt: skip
        assert not np.allclose(found, _split(ours, theirs, change)), said
    assert np.isclose(found.sum(), exact.sum()), (
        f"The parts add up to {found.sum():+.3f}. The difference of what is solved is "
        f"{exact.sum():+.3f}."
    )
    assert np.allclose(found, -swapped), (
        f"With the two methods swapped the part of the form goes from {found[0]:+.3f} to "
        f"{swapped[0]:+.3f}. Only its sign may change: no method comes first."
    )
    nothing = _split(ours, silent)
    assert np.allclose(split(ours, silent), nothing), "Where nothing runs, right given runs is 0."
    assert np.allclose(found, exact), f"You get {found.round(3)} instead of {exact.round(3)}."
    results, told = load_results("mini", "hard_math"), []
    counts = {m: [row["outcomes"] for row in reading.rows(results, method=m)]
              for m in ("cat", reading.SUM, "data_mix", "code", "linear@delta")}  # fmt: skip
    names = "the plain sum", "DATA-MIX", "the code LoRA", "the average"
    for rival, name in zip(list(counts)[1:], names, strict=True):
        form, content = 100 * np.array(split(counts["cat"], counts[rival]))
        told.append(f"{name} {form + content:+.1f} = {form:+.1f} form {content:+.1f} content")
    return f"Hard math, CAT minus each, in points: {'; '.join(told)}."


def _p(d: np.ndarray, change: str = "") -> float:
    """p of "the mean of d is above 0": two-sided, and 1 if the mean is not above 0."""
    if d.mean() <= 0 and change != "direction":
        return 1.0
    if change == "independent":
        return float(ttest_1samp(d.ravel(), 0).pvalue)
    return stats.contrast(d).p


def _survive(right: dict, claims: dict, change: str = "") -> dict[str, float]:
    """The adjusted p-values of exercise 10, or with one typical mistake."""
    p = []
    for ours, kind, rivals in claims.values():
        tables = [right[ours].astype(float) - right[rival] for rival in rivals]
        each = [_p(d, change) for d in tables]
        whole = np.mean(each) if change == "mean" else _p(np.mean(tables, axis=0), change)
        least = min(each) if change == "some" else min(1, len(each) * min(each))
        most = min(1, len(each) * max(each)) if change == "each" else max(each)
        p.append({"mean": whole, "some": least, "each": most}[kind])
    order = np.argsort(p, kind="stable")
    steps = np.array(p)[order] * np.arange(len(p), 0, -1)
    adjusted = {"raw": np.array(p)[order], "bonferroni": np.array(p)[order] * len(p),
                "steps": steps}.get(change, np.maximum.accumulate(steps))  # fmt: skip
    return {list(claims)[i]: float(min(1, x)) for i, x in zip(order, adjusted, strict=True)}


def _answers() -> dict[str, np.ndarray]:
    """Right or wrong of nine made-up methods: 5 seeds that differ, 300 problems that differ."""
    draw = np.random.default_rng(216)
    hard = draw.random((1, 300))
    levels = (0.42, 0.30, 0.25, 0.33, 0.44, 0.36, 0.36, 0.47, 0.50)
    return {
        name: draw.random((5, 300)) * 0.6 + hard * 0.4 < level + draw.normal(0, 0.04, (5, 1))
        for name, level in zip("ABCDEFGHI", levels, strict=True)
    }


_CLAIMS = {
    "A above B, C, D on average": ("A", "mean", ["B", "C", "D"]),
    "A above each of B, C, D": ("A", "each", ["B", "C", "D"]),
    "A above E or F": ("A", "some", ["E", "F"]),
    "A above G": ("A", "each", ["G"]),
    "H above A": ("H", "each", ["A"]),
    "A above I": ("A", "each", ["I"]),
}


@exercise
def ex_10(survive: Callable) -> str:
    """``survive(right, claims)``: p of every claim after Holm's correction."""
    right = _answers()
    found, exact = survive(right, _CLAIMS), _survive(right, _CLAIMS)
    assert isinstance(found, dict) and set(found) == set(_CLAIMS), (
        "A dict is wanted that gives every claim its p."
    )
    p = np.array([found[name] for name in exact], dtype=float)
    for change, said in {
        "raw": "These p-values are not corrected for the number of claims.",
        "bonferroni": "This is Bonferroni: every p times the number of claims. Holm's factors fall "
                      "from one p to the next.",
        "steps": "A larger p may not end up below a smaller one: the running maximum is missing.",
        "independent": "Seeds times problems is not the number of independent answers: one "
                       "training is behind each row. Take the crossed t.",
        "direction": "A significant defeat is no support: p is 1 where the difference is not "
                     "above 0.",
        "each": '"each" needs *all* its comparisons to hold: the largest p is the p of the claim, '
                "without a factor.",
        "some": '"some" is content with the best of its comparisons, and one is the best by luck: '
                "multiply the smallest p by their number.",
        "mean": '"mean" is about one table, the mean of the differences, and not about a mean of '
                "p-values.",
    }.items():  # fmt: skip
        wrong = _survive(right, _CLAIMS, change)
        assert not np.allclose(p, [wrong[name] for name in exact], atol=1e-6), said
    for name, value in exact.items():
        assert abs(found[name] - value) < 1e-6, (
            f"Claim {name!r}, {_CLAIMS[name]}: p {found[name]:.4f} instead of {value:.4f}."
        )
    return "Right on made-up methods. Now the claims on hard math, in the cell below."


# --- 06 The loss does not know your target ---


@exercise
def ex_11(reach: Callable) -> str:
    """``reach(lr, warmup, steps)``: how far an alpha of two can get under softmax and schedule."""
    for lr, warmup, steps in ((1e-4, 100, 134), (0.03, 0, 150), (0.01, 20, 60)):
        far = lr * steps / 4  # the rates are a triangle, whatever the warm-up
        times = float(reach(lr, warmup, steps)) / far
        for wrong, said in {
            4: "as if every step had the full rate and there were no softmax.",
            2: "the rate rises and falls, and the softmax flattens; one of the two is missing.",
            0.5: "its slope is at most 1/4, but both thetas move, in opposite directions.",
        }.items():
            assert abs(times - wrong) > 0.03 * wrong, f"You get {wrong} times as far: {said}"
        case = f"lr {lr:g}, {warmup} of {steps} steps"
        assert abs(times - 1) < 0.03, f"{case}: {times * far:.3g} instead of {far:.3g}."
    return "With the released numbers that is 0.0034 at most: the alphas stay where randn put them."


@exercise
def ex_12(predicted: Any) -> str:
    """(a of the least skill loss, a of the best target) on the diagonal of the stored plane."""
    rows = load_results("mini", "surface")["rows"]
    plane = pd.DataFrame(row["extra"] | {"solved": row["accuracy"]} for row in rows)
    diagonal = plane[plane.alpha_1 == plane.alpha_2].groupby("alpha_1").mean()
    at_loss, at_target = diagonal.heldout_loss.idxmin(), diagonal.solved.idxmax()
    of_loss, of_target = map(float, predicted)
    assert of_loss != of_target, "You say that both agree. Then this notebook would not exist."
    for what, said, true in (("skill loss", of_loss, at_loss), ("target", of_target, at_target)):
        side = "smaller" if said > true else "larger"
        assert abs(said - true) < 0.15, f"The {what} is at its best at a {side} a."
    return (
        f"On the stored plane: least skill loss at {at_loss:.1f}, best target at {at_target:.1f}."
    )


@exercise
def ex_15(rule: Callable) -> str:
    """``rule(loras, loss)``: alphas from LoRAs and the skills' losses, never from the target."""
    A, B, _ = _pair()
    names = ["q_proj", "up_proj", "down_proj"]
    loras = [LoRA({n: Factors(A[:2], B[:, i : i + 2]) for n in names}) for i in (0, 2)]
    best = torch.tensor([[0.8, 0.3], [0.2, 0.9]])  # skill i alone would like best[i]

    def loss(alphas: dict) -> torch.Tensor:
        off = torch.stack([torch.as_tensor(alphas[n]).float() for n in names]) - best[:, None]
        return 0.05 + off.square().mean((1, 2))

    for word in ("hard_math", "validation", "measure", "evaluate_adapter"):
        named = word in rule.__code__.co_names or word in rule.__code__.co_consts
        assert not named, f"Your rule names {word!r}: it may not look at the target."
    alphas = rule(loras, loss)
    assert isinstance(alphas, dict) and set(alphas) == set(names), (
        "A dict with the alphas of every module of the LoRAs is wanted, and of no other."
    )
    stacked = [torch.as_tensor(alphas[n]).detach().float() for n in names]
    assert all(a.shape == (2,) for a in stacked), "Every module needs one alpha per LoRA."
    found = torch.stack(stacked)
    assert found.isfinite().all(), "Some alphas are not finite."
    for known, name in ((1.0, "plain sum"), (0.5, "average")):
        assert not torch.allclose(found, torch.tensor(known)), f"That is the {name}."
    return f"Sound. Mean alphas on the toy LoRAs: {[round(a, 2) for a in found.mean(0).tolist()]}."


# --- 07 Try to refute it ---


def _excess(base: float, a: float, b: float, both: float, scale: str, n: float) -> float:
    """The soup's gain minus the two LoRAs' gains, on a scale: exercise 13."""
    p = np.array([both, a, b, base])
    q = (p * n + 0.5) / (n + 1)
    values = {"percent": p, "log": np.log(q), "logit": np.log(q / (1 - q))}[scale]
    return float(values @ (1, -1, -1, 1))


@exercise
def ex_13(answer: tuple) -> str:
    """``superlinear(base, a, b, both, scale, n)``, and what comes out by itself, type by scale."""
    superlinear, automatic = answer
    known = 0.1, 0.3, 0.25, 0.6
    percent = superlinear(*known, "percent", 20)
    assert abs(percent - 0.05) > 1e-6, "a and b are shares. Their *gains* are over the base, both."
    assert abs(percent - 0.15) < 1e-6, f"In percent {known} give {percent:.3g} instead of 0.15."
    for shares in (known, (0.0, 0.0, 0.06, 0.36)):
        for scale in ("log", "logit"):
            found, exact = superlinear(*shares, scale, 20), _excess(*shares, scale, 20)
            said = f"{shares} of 20 problems, {scale}: {found:.3g} instead of {exact:.3g}"
            assert abs(found - exact) < 1e-6, f"{said}. Are all shares moved off 0 and 1 alike?"
    assert len(automatic) == 6, "Now say in `automatic` what comes out: six entries."
    draw, n = np.random.default_rng(14).uniform(0.05, 0.95, (300, 2, 2)), 1e12
    for kind in ("both", "either"):
        for scale in ("percent", "log", "logit"):
            found = []
            for (x, X), (y, Y) in np.sort(draw, axis=2):
                shares = np.array([x * y, X * y, x * Y, X * Y])
                if kind == "either":
                    shares = 1 - np.outer((1 - x, 1 - X), (1 - y, 1 - Y)).T.ravel()
                found.append(superlinear(*shares.tolist(), scale, n))
            signs = np.sign(np.round(found, 7))
            name = {1: "super", -1: "sub", 0: "zero"}[int(np.median(signs))]
            assert automatic.get((kind, scale)) == name, (
                f"{kind!r} on the scale {scale!r}: of 300 draws {(signs > 0).sum()} are above 0 "
                f"and {(signs < 0).sum()} below."
            )
    told = []
    for study in ("hard_math", "reading"):
        results = load_results("mini", study)
        of = [reading.matrix(results, reading.target(results), m).mean(1)
              for m in ("base", *reading.skills(results), "cat")]  # fmt: skip
        mean = {scale: np.mean([superlinear(*map(float, shares), scale, 500)
                                for shares in zip(*of, strict=True)])
                for scale in ("percent", "log", "logit")}  # fmt: skip
        told.append(f"{study}: {100 * mean['percent']:+.1f} points, log {mean['log']:+.1f}, "
                    f"logit {mean['logit']:+.1f}")  # fmt: skip
    return f"By your function, CAT's excess is, on {'; on '.join(told)}."


# --- 08 Other worlds ---


@exercise
def ex_14(verdict: Callable) -> str:
    """``verdict(right, targets, kinds)``: a method against the best constant answer per kind."""
    kinds = ["color"] * 500 + ["owner"] * 500
    targets = ["red"] * 200 + ["Ann"] * 150
    targets[200:200] = [f"color {i}" for i in range(300)]
    targets += [f"name {i}" for i in range(350)]
    draw, floor = np.random.default_rng(10), np.isin(targets, ["red", "Ann"])  # 35 %
    spread = np.array([[0.2], [0.3], [0.4], [0.5], [0.55]])
    for expected, right, said in (
        ("below", draw.random((5, 1000)) < 0.28,
         "The best answer differs from kind to kind: together they solve 35 % here, red alone 20."),
        ("on", draw.random((5, 1000)) < spread,
         "A mean of 39 % against 35 %, but the seeds differ by far more: look at the interval."),
        ("above", np.tile(floor | (np.arange(1000) % 500 > 487), (5, 1)),
         "It solves all that the constants solve and 24 problems more, in every seed. Compare "
         "problem by problem: the interval of the method alone is wider."),
    ):  # fmt: skip
        found = verdict(right, targets, kinds)
        assert found in ("above", "on", "below"), f"{found!r} is none of above, on and below."
        assert found == expected, f"{said} ({expected}, not {found})"
    items, known = dataset("manual_qa", "test", 224, 0), load_results("mini", "manual_qa")
    asked = [item["target"] for item in items], [item["kind"] for item in items]
    cat, total = (verdict(reading.matrix(known, "manual_qa", m), *asked)
                  for m in ("cat", reading.SUM))  # fmt: skip
    return f"On the manual, by your rule, CAT stands {cat} the floor and the plain sum {total} it."
