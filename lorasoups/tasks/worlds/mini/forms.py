"""Output forms: one problem, written down in different languages.

Eight forms belong to the base's grid; ``python`` is what the code skill
teaches, ``line`` what the fourth skill teaches.
"""

from collections.abc import Callable

from lorasoups.tasks.worlds.mini.problems import Problem

_WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "over"}
_CODES = {"+": "add", "-": "sub", "*": "mul", "/": "div"}
_SAY = {"+": "add", "-": "take away", "*": "multiply by", "/": "divide by"}
NAMES = "abcd"


def expression(p: Problem) -> str:
    """`` ( 12 + 5 ) * 3`` with brackets around every step but the last."""
    text = f" {p.start}"
    for i, (op, n) in enumerate(p.steps):
        text = f" ({text} )" if i else text
        text += f" {op} {n}"
    return text


def let(p: Problem) -> str:
    """`` let a be 12; let b be a plus 5; give b;``"""
    parts = [f" let a be {p.start};"]
    for i, (op, n) in enumerate(p.steps):
        parts.append(f" let {NAMES[i + 1]} be {NAMES[i]} {_WORDS[op]} {n};")
    return "".join(parts) + f" give {NAMES[len(p.steps)]};"


def table(p: Problem) -> str:
    """A row per step."""
    return f" start | {p.start} |" + "".join(f"\n{_WORDS[op]} | {n} |" for op, n in p.steps)


def calls(p: Problem) -> str:
    """`` mul( add( 12, 5 ), 3 )``"""
    text = f" {p.start}"
    for op, n in p.steps:
        text = f" {_CODES[op]}({text}, {n} )"
    return text


def postfix(p: Problem) -> str:
    """`` 12 5 + 3 *``"""
    return f" {p.start}" + "".join(f" {n} {op}" for op, n in p.steps)


def machine(p: Problem) -> str:
    """A line per instruction of a one-register machine."""
    return f"\nload {p.start}" + "".join(f"\n{_CODES[op]} {n}" for op, n in p.steps) + "\nstop"


def sentence(p: Problem) -> str:
    """`` take 12, add 5, multiply by 3.``"""
    return f" take {p.start}" + "".join(f", {_SAY[op]} {n}" for op, n in p.steps) + "."


def worked(p: Problem) -> str:
    """`` 12 + 5 = 17. 17 * 3 = 51. The answer is 51.`` (the form of the math skill)."""
    values = p.values()
    steps = (
        f" {a} {op} {n} = {b}." for a, (op, n), b in zip(values, p.steps, values[1:], strict=False)
    )
    return "".join(steps) + f" The answer is {values[-1]}."


def python(p: Problem) -> str:
    """A function ``solution()`` that assigns once per step (the form of the code skill)."""
    lines = ["\ndef solution():", f"    a = {p.start}"]
    for i, (op, n) in enumerate(p.steps):
        lines.append(f"    {NAMES[i + 1]} = {NAMES[i]} {op} {n}")
    return "\n".join([*lines, f"    return {NAMES[len(p.steps)]}"])


def line(p: Problem) -> str:
    """`` 12; plus 5; times 3;`` (the form of the fourth skill)."""
    return f" {p.start};" + "".join(f" {_WORDS[op]} {n};" for op, n in p.steps)


BASE_FORMS: dict[str, Callable[[Problem], str]] = {
    "expression": expression,
    "let": let,
    "table": table,
    "calls": calls,
    "postfix": postfix,
    "machine": machine,
    "sentence": sentence,
    "worked": worked,
}

# What an instruction may call a form. The first half of the sentence is shared by all forms.
FORM_NAMES = {
    "expression": ("an expression", "a formula"),
    "let": ("a let program", "let lines"),
    "table": ("a table", "rows"),
    "calls": ("nested calls", "calls"),
    "postfix": ("postfix", "stack order"),
    "machine": ("machine code", "machine steps"),
    "sentence": ("a sentence", "plain words"),
    "worked": ("worked steps", "the steps"),
    "python": ("Python", "a Python function"),
    "line": ("a line", "one line"),
}
CARRIERS = ("Use {}.", "Write {}.", "Answer with {}.", "Give {}.", "Reply in {}.")
