"""Where a run reads and writes, from wherever it is started."""

import pytest

from lorasoups.paths import Folders, project_root


@pytest.fixture
def clone(tmp_path):
    (tmp_path / "clone" / "notebooks" / "deep").mkdir(parents=True)
    (tmp_path / "clone" / "pyproject.toml").touch()
    return tmp_path / "clone"


def test_project_is_found_upwards_from_the_current_folder(clone, monkeypatch):
    for folder in (clone, clone / "notebooks", clone / "notebooks" / "deep"):
        monkeypatch.chdir(folder)
        assert project_root() == clone


def test_folders_lie_in_the_project_or_below_out(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(clone)
    own, other = Folders(""), Folders(out=tmp_path / "out")
    assert own == Folders(out="") and own.base == other.project == clone
    assert own.results == clone / "data" / "results"
    assert own.cache == clone / ".cache" / "lorasoups"
    assert other.results == tmp_path / "out" / "data" / "results"
    assert other.figures == tmp_path / "out" / "figures"
    assert other.notebooks == tmp_path / "out" / "notebooks"
    assert other.cache == tmp_path / "out" / "cache"
    assert own.data == other.data == clone / "data"


def test_relative_out_is_meant_from_the_project(clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Folders(out="here", root=clone).base == clone / "here"
