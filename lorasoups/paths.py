"""Where things lie: the project, and the folders that a run writes."""

from dataclasses import dataclass
from pathlib import Path


def project_root() -> Path:
    """The clone around the current folder or around this package; else the current folder."""
    cwd = Path.cwd()
    for folder in (cwd, *cwd.parents, Path(__file__).resolve().parent.parent):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return cwd


@dataclass
class Folders:
    """The folders of one run.

    out: where results go, by default into the project; a relative path is meant from there. root:
    the project, by default the clone. project, data, adapters: read only. base: what the run writes
    below: results, figures, executed notebooks and the store's cache.
    """

    out: Path | str | None = None
    root: Path | str | None = None

    def __post_init__(self) -> None:
        self.project = Path(self.root).resolve() if self.root else project_root()
        self.base = (self.project / Path(self.out or "").expanduser()).resolve()
        self.data = self.project / "data"
        self.results = self.base / "data" / "results"
        self.figures = self.base / "figures"
        self.notebooks = self.base / "notebooks"
        here = self.base == self.project
        self.cache = self.base / ".cache" / "lorasoups" if here else self.base / "cache"
        self.adapters = self.data / "adapters"  # shipped: <study>/<name>/
