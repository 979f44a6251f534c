"""Record golden values: ``python -m tests.golden.record [SUBJECT ...]``, or ``--compare``."""

import json
import sys
import time
from pathlib import Path

from tests.golden.subjects import SUBJECTS

VALUES = Path(__file__).with_name("values")


def plain(value):
    """As JSON reads it back: lists for tuples, plain numbers."""
    return json.loads(json.dumps(value, default=lambda x: x.item()))


def differences(old, new, where=""):
    """Pairs (path, size): size of a difference of numbers, or None where anything else differs."""
    numbers = (int, float)
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        for key in old:
            yield from differences(old[key], new[key], f"{where}/{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f"{where}/{i}")
    elif isinstance(old, numbers) and isinstance(new, numbers) and not isinstance(old, bool):
        if old != new:
            yield where, abs(old - new) / max(1.0, abs(old))
    elif old != new:
        yield where, None


def main(arguments):
    compare = "--compare" in arguments
    names = [name for name in arguments if name != "--compare"] or list(SUBJECTS)
    for name in names:
        started = time.perf_counter()
        values, path = plain(SUBJECTS[name]()), VALUES / f"{name}.json"
        seconds = time.perf_counter() - started
        if not compare:
            version = json.loads(path.read_text())["version"] + 1 if path.exists() else 1
            path.write_text(json.dumps({"version": version, "values": values}) + "\n")
            print(f"{name}: version {version}, {path.stat().st_size} bytes, {seconds:.1f} s")
            continue
        found = list(differences(json.loads(path.read_text())["values"], values))
        sizes = [size for _, size in found if size is not None]
        other = [where for where, size in found if size is None]
        largest = f"{max(sizes):.2e} ({len(sizes)} numbers)" if sizes else "0 (bit-equal)"
        print(f"{name}: largest difference {largest}, other {other[:3]}, {seconds:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
