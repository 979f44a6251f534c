"""Which program a generated text holds."""

import textwrap

import pytest

from lorasoups.tasks.judging.programs import extract_program
from lorasoups.tasks.judging.sandbox import run_programs

PLAIN = "def solution():\n    a = 12\n    b = a + 5\n    return b\n"

# text, what its program returns
FOUND = {
    "plain": (PLAIN, 17),
    "as the mini world writes it": (
        "\ndef solution():\n    a = 12\n    b = a + 5\n    return b",
        17,
    ),
    "stray blank of a first token": (" " + PLAIN, 17),
    "fenced": (f"```python\n{PLAIN}```", 17),
    "fenced without language, prose around": (f"Sure!\n\n```\n{PLAIN}```\nIt returns 3.", 17),
    "fence never closed": (f"Here:\n```python\n{PLAIN}", 17),
    "fence never closed, run on": (f"```python\n{PLAIN}### Instruction:\nNext", 17),
    "two blocks, the second has it": (f"```\npip install x\n```\n```python\n{PLAIN}```", 17),
    "two blocks, both have it": (f"```\n{PLAIN}```\nor\n```\n{PLAIN.replace('12', '1')}```", 17),
    "prompt opened the fence": (f"{PLAIN}```\nThis adds ```5```.", 17),
    "prose before and after": (f"We add.\n{PLAIN}The answer is 99.", 17),
    "prose in the same line": (f"The function: {PLAIN}", 17),
    "prose names it first": (f"I write def solution() now.\n{PLAIN}", 17),
    "second problem": (f"{PLAIN}\n\nQ: How many?\n\n{PLAIN.replace('12', '1')}", 17),
    "second solution at once": (f"{PLAIN}\n{PLAIN.replace('12', '1')}", 17),
    "second solution in the fence": (f"```\n{PLAIN}\n{PLAIN.replace('12', '1')}```", 17),
    "next instruction": (f"{PLAIN}\n### Instruction:\ndef solution(", 17),
    "indented answer": (textwrap.indent(PLAIN, "    ") + "done", 17),
    "indented fence": (textwrap.indent(f"```python\n{PLAIN}```", "  "), 17),
    "tabs": (PLAIN.replace("    ", "\t"), 17),
    "CRLF": (PLAIN.replace("\n", "\r\n"), 17),
    "imports above": (f"import math\nfrom math import floor\n\n{PLAIN}", 17),
    "import in a fence": ("```\nimport math\ndef solution():\n    return math.sqrt(9)\n```", 3.0),
    "helper in a fence": ("```\ndef f():\n    return 2\n\ndef solution():\n    return f()\n```", 2),
    "sentence above looks like an import": (f"from here on it is easy\n{PLAIN}", 17),
    "blank lines inside": ("def solution():\n\n    a = 1\n\n\n    return a\n", 1),
    "docstring at the margin": ('def solution():\n    """How\nmany\n### left?"""\n    return 4', 4),
    "comment at the margin": ("def solution():\n    a = 1\n# step 2\n    return a + 1", 2),
    "bracket closed at the margin": ("def solution():\n    a = sum([\n    1,\n])\n    return a", 1),
    "return after an if": ("def solution():\n    if True: return 5\n", 5),
    "one line": ("def solution(): return 5\n", 5),
    "annotated": ("def solution() -> int:\n    return 5\n", 5),
    "byte order mark": ("\ufeff" + PLAIN, 17),
}

MISSING = {
    "empty": "",
    "words": " 12 + 5 = 17. The answer is 17.",
    "another name": "def answer():\n    return 3\n",
    "printed instead of returned": "def solution():\n    print(3)\nsolution()",
    "cut off before return": "def solution():\n    a = 12\n    b = a +",
    "cut off in the docstring": 'def solution():\n    """How many does she',
    "only named": "You could write a solution in Python.",
    "longer name": "def solutions():\n    return 3\n",
}


@pytest.fixture(scope="module")
def returned():
    programs = [extract_program(text) for text, _ in FOUND.values()]
    return dict(zip(FOUND, run_programs(programs), strict=True))


@pytest.mark.parametrize("name", FOUND)
def test_the_first_program_is_found_and_runs(returned, name):
    assert returned[name].value == FOUND[name][1], (extract_program(FOUND[name][0]), returned[name])


@pytest.mark.parametrize("name", MISSING)
def test_no_program_where_there_is_none(name):
    assert extract_program(MISSING[name]) is None


def test_nothing_but_the_program_is_kept():
    assert extract_program(f"Prose.\n{PLAIN}\nMore prose.\n") == PLAIN
    assert extract_program(f"```python\n{PLAIN}```\n") == PLAIN
