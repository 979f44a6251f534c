"""Programs that misbehave, and how the sandbox may answer.

``ATTACKS`` maps a name to ``(source, statuses)``: the statuses that are a right answer to it.
``ok`` stands there only where the program does no harm and returns a number.
"""

TIMEOUT, MEMORY, REFUSED = {"timeout"}, {"memory"}, {"refused"}
SYNTAX, ERROR, TYPE = {"syntax"}, {"exception"}, {"bad_type"}
STOPPED = TIMEOUT | MEMORY  # which limit is met first depends on the machine
NO_WAY = REFUSED | ERROR


def body(*lines: str, head: str = "") -> str:
    """A program whose ``solution`` has these lines."""
    return head + "def solution():\n" + "".join(f"    {line}\n" for line in lines)


def value(expression: str, head: str = "") -> str:
    return body(f"return {expression}", head=head)


TIME = {
    "endless loop": (body("while True:", "    pass"), TIMEOUT),
    "endless loop that catches everything": (
        body("while True:", "    try:", "        while True:", "            pass",
             "    except BaseException:", "        pass"),
        TIMEOUT,
    ),
    "endless loop at module level": ("while True:\n    pass\n", TIMEOUT),
    "ignore signals, then loop": (
        body("signal.signal(15, signal.SIG_IGN)", "while True:", "    pass",
             head="import signal\n"),
        NO_WAY,
    ),
    "cancel the alarm": (body("signal.alarm(0)", "return 1", head="import signal\n"), NO_WAY),
    "sleep": (body("time.sleep(60)", "return 1", head="import time\n"), TIMEOUT),
    "sleep, catching": (
        body("try:", "    time.sleep(60)", "except BaseException:", "    return 1",
             head="import time\n"),
        TIMEOUT,
    ),
    "many short sleeps": (
        body("for _ in range(1000):", "    time.sleep(0.05)", "return 1", head="import time\n"),
        TIMEOUT,
    ),
    "regex backtracking": (
        value("re.match('(a+)+$', 'a' * 60 + 'b') is None", head="import re\n"),
        STOPPED | {"ok"},
    ),
    "sum of a huge range": (value("sum(range(10 ** 13))"), TIMEOUT),
    "infinite generator": (value("sum(1 for _ in iter(int, 1))"), STOPPED | REFUSED),
    "yield for ever": (body("while True:", "    yield 1"), REFUSED | TYPE),
}  # fmt: skip

MEMORY_AND_BIG_NUMBERS = {
    "10 ** 10 ** 10": (value("10 ** 10 ** 10"), STOPPED),
    "power tower": (value("9 ** 9 ** 9 ** 9"), STOPPED | NO_WAY),
    "huge shift": (value("1 << 10 ** 11"), STOPPED),
    "squaring": (body("x = 7", "for _ in range(60):", "    x = x * x", "return x"), STOPPED),
    "huge list": (body("a = [0] * 10 ** 12", "return len(a)"), STOPPED),
    "list doubling": (body("a = [0]", "while True:", "    a = a + a"), STOPPED),
    "str doubling": (body("a = 'x'", "while True:", "    a = a + a"), STOPPED),
    "dict growth": (body("a = {}", "while True:", "    a[len(a)] = len(a)"), STOPPED),
    "list of a huge range": (value("len(list(range(10 ** 11)))"), STOPPED),
    "percent width": (value("len('%1000000000d' % 1)"), STOPPED | NO_WAY),
    "f-string width": (value("len(f'{1:4000000000}')"), STOPPED | NO_WAY),
    "zfill": (value("len('1'.zfill(4000000000))"), STOPPED),
    "round to minus a billion digits": (value("round(7, -10 ** 9)"), STOPPED | ERROR | {"ok"}),
    "huge power": (value("pow(7, 10 ** 10)"), STOPPED),
    "factorial": (value("math.factorial(10 ** 8)", head="import math\n"), STOPPED),
    "10 ** 4000 returned": (value("10 ** 4000"), TYPE),
    "long literal": (value("9" * 100_000), SYNTAX),
    "long text to int": (value("int('9' * 100000)"), ERROR),
}

STACK_AND_PARSER = {
    "self recursion": (body("return solution()"), ERROR),
    "deeper recursion allowed": (
        body("sys.setrecursionlimit(10 ** 9)", "return solution()", head="import sys\n"),
        NO_WAY,
    ),
    "text of a deep list": (
        body("a = []", "for _ in range(200000):", "    a = [a]", "return len(str(a)) < 0"),
        ERROR | STOPPED | {"ok"},
    ),
    "deep list returned": (
        body("a = []", "for _ in range(200000):", "    a = [a]", "return a"),
        TYPE | ERROR | STOPPED,
    ),
    "list in itself": (body("a = []", "a.append(a)", "return a"), TYPE),
    "many brackets": (value("(" * 5000 + "1" + ")" * 5000), SYNTAX),
    "many minus signs": (value("-" * 50_000 + "1"), SYNTAX),
    "many attributes": (value("a" + ".real" * 50_000, head="a = 1\n"), SYNTAX | ERROR | STOPPED),
    "many nested ifs": (
        "def solution():\n"
        + "".join(" " * i + "if 1:\n" for i in range(1, 500))
        + " " * 501
        + "pass",
        SYNTAX | TYPE,
    ),
    "10 MB of source": ("x = 1\n" * 1_700_000 + value("0"), MEMORY | TIMEOUT),
}

PROCESSES = {
    name: (source, NO_WAY)
    for name, source in {
        "fork and outlive": body("if os.fork() == 0:", "    while True:", "        pass",
                                 "return 1", head="import os\n"),
        "forty forks": body("for _ in range(40):", "    os.fork()", "return 1", head="import os\n"),
        "double fork": body("os.fork()", "os.setsid()", "os.fork()", "return 1",
                            head="import os\n"),
        "threads": body("for _ in range(30):", "    threading.Thread(target=solution).start()",
                        "return 1", head="import threading\n"),
        "os.system": value("os.system('touch escaped')", head="import os\n"),
        "subprocess": value("subprocess.call(['touch', 'escaped'])", head="import subprocess\n"),
        "execv": value("os.execv('/bin/sh', ['sh'])", head="import os\n"),
        "posix_spawn": value("os.posix_spawn('/bin/sh', ['sh'], {})", head="import os\n"),
        "kill the parent": value("os.kill(os.getppid(), 9)", head="import os\n"),
        "kill the group": value("os.killpg(0, 9)", head="import os\n"),
        "stop oneself": value("os.kill(os.getpid(), 19)", head="import os\n"),
        "multiprocessing": value("multiprocessing.Process().start()",
                                 head="import multiprocessing\n"),
    }.items()
}  # fmt: skip

FILES_AND_NETWORK = {
    name: (source, NO_WAY)
    for name, source in {
        "read /etc/passwd": value("len(open('/etc/passwd').read())"),
        "read with pathlib": value("len(Path('/etc/passwd').read_text())",
                                   head="from pathlib import Path\n"),
        "write an absolute path": body("open('/escaped', 'w').write('x')", "return 1"),
        "write here": body("open('escaped', 'w').write('x')", "return 1"),
        "delete": body("os.remove('/etc/hostname')", "return 1", head="import os\n"),
        "chmod": body("os.chmod('/', 0o777)", "return 1", head="import os\n"),
        "list a folder": value("len(os.listdir('/'))", head="import os\n"),
        "socket": body("socket.socket()", "return 1", head="import socket\n"),
        "urllib": body("urllib.request.urlopen('http://localhost')", "return 1",
                       head="import urllib.request\n"),
        "environment": value("len(os.environ)", head="import os\n"),
        "getenv": value("len(os.getenv('PATH'))", head="import os\n"),
        "memory of the parent": value("len(open('/proc/self/mem', 'rb').read(9))"),
        "environment of the parent": value("len(open('/proc/1/environ').read())"),
    }.items()
}  # fmt: skip

INTROSPECTION = {
    "__import__": (value("__import__('os').getpid()"), NO_WAY),
    "__mro__": (value("len(().__class__.__mro__[-1].__subclasses__())"), NO_WAY),
    "wrap_close gadget": (
        body("for c in ().__class__.__base__.__subclasses__():",
             "    if c.__name__ == '_wrap_close':",
             "        return c.__init__.__globals__['system']('id')"),
        NO_WAY,
    ),
    "getattr with a split name": (value("getattr((), '__cla' + 'ss__')"), NO_WAY | TYPE),
    "format into a class": (value("'{0.__class__}'.format(1)"), NO_WAY | TYPE),
    "format_map": (value("'{a.__class__}'.format_map({'a': 1})"), NO_WAY | TYPE),
    "fullwidth eval": (
        value("\uff45\uff56\uff41\uff4c('__import__(\"os\").getpid()')"),
        NO_WAY | SYNTAX,
    ),
    "fullwidth __class__": (value("().__\uff43lass__"), NO_WAY | SYNTAX),
    "eval": (value("eval('__import__(\"os\").getpid()')"), NO_WAY),
    "exec": (body("exec('import subprocess')", "return 1"), NO_WAY),
    "compile": (value("compile('1', '', 'eval')"), NO_WAY | TYPE),
    "globals": (value("globals()"), NO_WAY | TYPE),
    "vars": (value("vars()"), NO_WAY | TYPE),
    "class made by type": (value("type('A', (int,), {})(3)"), NO_WAY | TYPE),
    "class with __eq__ and __float__": (
        "class A:\n    def __eq__(self, other):\n        return True\n"
        "    def __float__(self):\n        return 0.0\n" + value("A()"),
        TYPE | NO_WAY,
    ),
    "frame": (value("sys._getframe().f_back", head="import sys\n"), NO_WAY),
    "gc": (value("len(gc.get_objects())", head="import gc\n"), NO_WAY),
    "frame of a generator": (value("(i for i in ()).gi_frame"), NO_WAY),
    "frame of a traceback": (
        body("try:", "    1 / 0", "except Exception as e:",
             "    return e.__traceback__.tb_frame.f_globals"),
        NO_WAY,
    ),
    "ctypes": (value("ctypes.string_at(0)", head="import ctypes\n"), NO_WAY),
    "walrus on a builtin": (value("(abs := 5)"), {"ok"}),
    "decorator": ("@exec\n@input\nclass A:\n    pass\n" + value("1"), NO_WAY | SYNTAX),
    "star import": ("from os import *\n" + value("getpid()"), NO_WAY),
    "empty __builtins__": ("__builtins__ = {}\n" + value("len([])"), NO_WAY | {"ok"}),
    "delete from __builtins__": ("del __builtins__['len']\n" + value("len([])"), NO_WAY),
}  # fmt: skip

EXIT_AND_VERDICT = {
    "sys.exit": (body("sys.exit(0)", head="import sys\n"), NO_WAY),
    "os._exit": (body("os._exit(0)", head="import os\n"), NO_WAY),
    "exit": (body("exit()"), NO_WAY),
    "raise SystemExit": (body("raise SystemExit(0)"), NO_WAY),
    "raise KeyboardInterrupt": (body("raise KeyboardInterrupt"), ERROR),
    "raise GeneratorExit": (body("raise GeneratorExit"), NO_WAY),
    "SystemExit at module level": ("raise SystemExit\n" + value("1"), NO_WAY),
    "write to all descriptors": (
        body("for fd in range(64):", "    os.write(fd, b'ok 0')", "return 1", head="import os\n"),
        NO_WAY,
    ),
    "close all descriptors": (
        body("os.closerange(0, 64)", "while True:", "    pass", head="import os\n"),
        NO_WAY,
    ),
    "monkeypatch builtins": (
        "import builtins\nbuiltins.float = lambda x: 0.0\nbuiltins.abs = lambda x: 0\n"
        + value("12345"),
        NO_WAY,
    ),
    "monkeypatch struct": ("import struct\nstruct.pack = None\n" + value("12345"), NO_WAY),
    "shadow float and abs": (
        "float = abs = lambda x: 0\n" + value("12345"),
        {"ok"},
    ),
    "atexit": ("import atexit\natexit.register(print)\n" + value("12345"), NO_WAY),
    "replace solution in solution": (
        body("global solution", "solution = None", "return 12345"),
        {"ok"} | REFUSED,
    ),
}

OUTPUT_AND_INPUT = {
    "print for ever": (body("while True:", "    print('x' * 100000)"), STOPPED),
    "print for ever to stderr": (
        body("while True:", "    print('x' * 100000, file=sys.stderr)", head="import sys\n"),
        STOPPED | NO_WAY,
    ),
    "input": (value("int(input())"), NO_WAY),
    "read stdin": (value("len(sys.stdin.read())", head="import sys\n"), NO_WAY),
}

RETURN_VALUES = {
    "nan": (value("float('nan')"), {"ok"}),
    "inf": (value("float('inf')"), {"ok"}),
    "1e999": (value("1e999"), {"ok"}),
    "text number": (value("'42'"), {"ok"}),
    "text": (value("'forty-two'"), TYPE),
    "very long text": (value("'4' * 1000000"), TYPE),
    "50 MB of text": (value("'4' * 50000000"), TYPE | MEMORY),
    "True": (value("True"), {"ok"}),
    "None": (value("None"), TYPE),
    "nothing": (body("pass"), TYPE),
    "list": (value("[42]"), TYPE),
    "tuple": (value("(1, 2)"), TYPE),
    "set": (value("{42}"), TYPE),
    "bytes": (value("b'42'"), TYPE),
    "ellipsis": (value("..."), TYPE),
    "generator": (value("(i for i in (42,))"), TYPE),
    "complex": (value("42j"), TYPE),
    "Decimal": (value("Decimal('42')", head="from decimal import Decimal\n"), {"ok"}),
    "Fraction": (value("Fraction(84, 2)", head="from fractions import Fraction\n"), REFUSED),
    "lambda": (value("lambda: 42"), TYPE),
    "the function itself": (value("solution"), TYPE),
    "a class": ("class A:\n    pass\n" + value("A"), TYPE),
    "subclass of int": ("class A(int):\n    pass\n" + value("A(42)"), TYPE | REFUSED),
    "an exception": (value("ValueError(42)"), TYPE | REFUSED),
}

FORM = {
    "no solution": ("x = 42\n", {"no_solution"}),
    "solution is a number": ("solution = 5\n", {"no_solution"}),
    "solution is a text": ("solution = '5'\n", {"no_solution"}),
    "required argument": ("def solution(n):\n    return n\n", ERROR),
    "redefined": (value("1") + value("2"), {"ok"}),
    "empty": ("", {"no_solution"}),
    "NUL byte": (value("1\0"), SYNTAX),
    "syntax error": ("def solution(:\n    return 1\n", SYNTAX),
    "bad indent": ("def solution():\nreturn 1\n", SYNTAX),
    "mixed tabs": ("def solution():\n        a = 1\n\treturn a\n", SYNTAX | {"ok"}),
    "lone surrogate": (value("'\ud800'"), SYNTAX),
    "byte order mark": ("\ufeff" + value("1"), {"ok"} | SYNTAX),
    "CRLF": ("def solution():\r\n    return 1\r\n", {"ok"}),
    "bidi override": (value("1 # \u202e"), {"ok"} | SYNTAX),
    "rot13": ("# coding: rot13\n" + value("1"), {"ok"} | SYNTAX),
    "is with a literal": (value("5 is 5"), {"ok"}),
    "bad escape": (value(r"len('\d')"), {"ok"}),
    "fence left in": ("```python\n" + value("1") + "```\n", SYNTAX),
    "async def": ("async def solution():\n    return 1\n", TYPE | REFUSED),
    "match": (body("match 1:", "    case 1:", "        return 1"), {"ok"} | REFUSED),
    "open bracket": ("def solution():\n    return (1\n", SYNTAX),
    "open quotes": ("def solution():\n    return '''1\n", SYNTAX),
}

ATTACKS: dict[str, tuple[str, set[str]]] = {
    **TIME,
    **MEMORY_AND_BIG_NUMBERS,
    **STACK_AND_PARSER,
    **PROCESSES,
    **FILES_AND_NETWORK,
    **INTROSPECTION,
    **EXIT_AND_VERDICT,
    **OUTPUT_AND_INPUT,
    **RETURN_VALUES,
    **FORM,
}
