"""What made a results file: versions, device, processor, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from lorasoups.paths import project_root

_PACKAGES = (
    "lorasoups torch transformers peft accelerate datasets safetensors scipy numpy nevergrad "
    "pydantic-monty"
).split()


def provenance(**more: Any) -> dict[str, Any]:
    """What made these results: versions, device, processor, commit. No paths, no user names.

    Args:
        more: further fields; the schema wants ``base_sha256``, ``world_version`` and ``wall_s``
            (seconds), which are null unless given.
    """
    import torch

    from lorasoups.models.devices import cpu_name

    cuda = torch.cuda.is_available()
    return {
        "versions": {"python": platform.python_version()} | _versions(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "git": git_state(project_root()),
        "base_sha256": None,
        "world_version": None,
        "wall_s": None,
    } | more


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return versions


def git_state(root: Path) -> dict[str, Any] | None:
    """``{"commit", "dirty"}`` of a checkout, or None without git.

    ``dirty``: a tracked file differs from the commit. What a run itself rewrites (results,
    figures, executed notebooks) does not count.
    """
    own = [":(exclude)data/results", ":(exclude)figures", ":(exclude)notebooks"]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *own)
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()
