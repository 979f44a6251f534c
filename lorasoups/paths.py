"""Where things lie: the project, and the folders that a run writes."""

from dataclasses import dataclass
from pathlib import Path


def project_root() -> Path:
    """The clone: the folder with ``pyproject.toml`` and ``notebooks/``.

    Looked for upwards from the current folder, then above this package (an editable install used
    from elsewhere). Where neither is a clone, the current folder.
    """
    cwd = Path.cwd()
    for folder in (cwd, *cwd.parents, Path(__file__).resolve().parent.parent):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return cwd


@dataclass
class Folders:
    """The folders of one run.

    Attributes:
        out: where results go; ``None`` or ``""`` means into the project itself.
        root: the project; found by :func:`project_root` if not given.
        project: the clone, whose notebooks and ``data`` are read.
        base: the folder below which this run writes.
        data: data that comes with the project (read only).
        results: ``<profile>.json`` and ``<profile>.times.json``.
        figures: PDF and PNG files.
        notebooks: executed ones; in the project itself they replace their sources.
        cache: of the artifact store: inside ``out`` if given, else git-ignored in the project.
    """

    out: Path | str | None = None
    root: Path | str | None = None

    def __post_init__(self) -> None:
        self.project = Path(self.root).resolve() if self.root else project_root()
        self.base = Path(self.out).expanduser().resolve() if self.out else self.project
        self.data = self.project / "data"
        self.results = self.base / "data" / "results"
        self.figures = self.base / "figures"
        self.notebooks = self.base / "notebooks"
        self.cache = self.base / "cache" if self.out else self.base / ".cache" / "lorasoups"
