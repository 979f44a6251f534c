"""The program in a generated text: the first ``solution``; a second answers an invented problem."""

import re
import textwrap

_DEF = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+solution\b", re.MULTILINE)
_DEF_IN_LINE = re.compile(r"(?:async[ \t]+)?\bdef[ \t]+solution[ \t]*\(")
_FENCE = re.compile(r"^[ \t]*```[^\n`]*$", re.MULTILINE)
_IMPORT = re.compile(r"[ \t]*(?:import[ \t]+[\w., ]+$|from[ \t]+[\w.]+[ \t]+import[ \t])")
_STOP = re.compile(r"[ \t]*(?:```|### |Q:)")
_RETURN = re.compile(r"(?:^[ \t]*|[:;][ \t]*)return\b", re.MULTILINE)
_TRIPLE = re.compile(r'"""|\'\'\'')


def extract_program(text: str) -> str | None:
    r"""The first program that defines ``solution`` in a generated text.

    It is the first fenced block with ``def solution`` in it; without one, what begins at the first
    ``def solution`` (with the import lines right above it) and ends at the first line that is not
    indented. An open fence, too, ends at ``### `` or ``Q:``. ``text`` is the *new* tokens only: the
    examples of a prompt are programs, too.

    Returns Python source, dedented, with ``\n`` line ends; None without a ``def solution``, or
    without a ``return`` in it (printed, or cut off at the token limit).
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    program = _function(text) if (block := _fenced(text)) is None else block
    return program if program and _RETURN.search(program) else None


def _fenced(text: str) -> str | None:
    """The first fenced block that defines ``solution``, dedented, up to a second definition."""
    fences = list(_FENCE.finditer(text))
    for opening, closing in zip(fences[::2], [*fences[1::2], None], strict=False):
        block = text[opening.end() + 1 : closing.start() if closing else len(text)]
        if not _DEF.search(block):
            continue
        if closing is None:
            stop = re.search(r"^(?:### |Q:)", block, re.MULTILINE)
            block = block[: stop.start()] if stop else block
        block = textwrap.dedent(block)
        starts = list(re.finditer(r"^(?:async[ \t]+)?def[ \t]+solution\b", block, re.MULTILINE))
        return block[: starts[1].start()] if len(starts) > 1 else block
    return None


def _function(text: str) -> str | None:
    """The first function ``solution`` of a text without fences, with its imports."""
    start = _DEF.search(text) or _DEF_IN_LINE.search(text)
    if not start:
        return None
    head = text[: start.start()].split("\n")
    imports: list[str] = []
    if not head.pop().strip():  # prose in the line of the def: what stands above is no program
        while head and (not head[-1].strip() or _IMPORT.match(head[-1])):
            imports.insert(0, head.pop().strip())
    return "\n".join([*filter(None, imports), _body(text[start.start() :].split("\n"))])


def _body(lines: list[str]) -> str:
    """From the ``def`` in ``lines[0]`` up to the first line that is not deeper.

    The depth of a comment, a closing bracket or a line in a triple-quoted string does not count.
    Only the ``def`` is moved to the margin: a body is valid at any depth.
    """
    depth = _indent(lines[0])
    kept = [lines[0].lstrip()]
    quote = _open_quote(lines[0], None)
    for line in lines[1:]:
        if quote is None and line.strip():
            if _STOP.match(line):
                break
            free = line.lstrip().startswith(("#", ")", "]", "}"))
            if _indent(line) <= depth and not free:
                break
        quote = _open_quote(line, quote)
        kept.append(line)
    return "\n".join(kept).rstrip() + "\n"


def _indent(line: str) -> int:
    expanded = line.expandtabs(8)
    return len(expanded) - len(expanded.lstrip())


def _open_quote(line: str, quote: str | None) -> str | None:
    """The triple quote that is open at the end of ``line``, given the one open at its start."""
    for mark in _TRIPLE.findall(line):
        if quote in (None, mark):
            quote = None if quote else mark
    return quote
