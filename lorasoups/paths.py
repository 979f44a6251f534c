"""Where things lie: the project, and the folders that a run writes.

Kernels start in the project's root, and notebooks ask this module instead of using paths relative
to wherever they happen to be opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


def _is_project(folder: Path) -> bool:
    return (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir()


def project_root() -> Path:
    """The clone: the folder with ``pyproject.toml`` and ``notebooks/``.

    Looked for upwards from the current folder, then above this package (an editable install used
    from elsewhere). Where neither is a clone, the current folder.
    """
    cwd = Path.cwd()
    above_package = Path(__file__).resolve().parent.parent
    for folder in (cwd, *cwd.parents, above_package):
        if _is_project(folder):
            return folder
    return cwd


@dataclass(frozen=True)
class Folders:
    """The folders of one run.

    Attributes:
        out: where results go; ``None`` or ``""`` means into the project itself.
        root: the project; found by :func:`project_root` if not given.
    """

    out: Path | str | None = None
    root: Path | str | None = None

    @property
    def project(self) -> Path:
        """The clone, whose notebooks and ``data/mini`` are read."""
        return Path(self.root).resolve() if self.root else project_root()

    @property
    def base(self) -> Path:
        """The folder below which this run writes."""
        return Path(self.out).expanduser().resolve() if self.out else self.project

    @property
    def data(self) -> Path:
        """Data that comes with the project (read only)."""
        return self.project / "data"

    @property
    def results(self) -> Path:
        """``<profile>.json`` and ``<profile>.times.json``."""
        return self.base / "data" / "results"

    @property
    def figures(self) -> Path:
        return self.base / "figures"

    @property
    def notebooks(self) -> Path:
        """Executed notebooks; in the project itself they replace their sources."""
        return self.base / "notebooks"

    @property
    def cache(self) -> Path:
        """Root of the artifact store: inside ``out`` if given, else git-ignored in the project."""
        return self.base / "cache" if self.out else self.base / ".cache" / "lorasoups"
