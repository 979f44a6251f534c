"""Working in a notebook: the start in one line, a figure that is also saved, a table, a sentence.

Importing this first keeps noise of other packages out of a notebook's outputs.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from IPython.display import Image, Markdown
from matplotlib.figure import Figure

from lorasoups.errors import SoupError
from lorasoups.report.figures.style import in_words, render, save
from lorasoups.report.tables import markdown
from lorasoups.results.file import load_results
from lorasoups.study.profile import load_profile
from lorasoups.study.run import run_study
from lorasoups.study.stages import Stages
from lorasoups.study.store import VERSIONS

SCREEN_DPI = 80  # in the notebook; the saved PNG has more

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # "Loading weights: 100%|..."
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # PEFT asks for it


def start(
    profile: str = "mini", seeds: int = 1, out: str = "runs/local", force: bool = False,
    train: bool = False, study: str = "hard_math",
) -> Stages:  # fmt: skip
    """The experiment that a notebook works with; the arguments are its parameters.

    Unless ``train``, the skills' adapters of the first seed are those that lie in ``data/adapters``
    (made by ``python docs/ship.py``). ``force``: what is built is built again. SoupError without
    ``train`` for another profile or more seeds: only these are shipped.
    """
    loaded = load_profile(profile, study)
    if not train and (loaded.name != "mini" or seeds != 1):
        what = f"profile {loaded.name} with {seeds} seeds is not shipped: parameters"
        raise SoupError(f"{what}; set train = True")
    experiment = Stages(loaded, seeds, out, tuple(VERSIONS) if force else ())
    if not train:
        experiment.profile = loaded.shipped(experiment.folders.adapters)
    return experiment


def study_results(experiment: Stages, train: bool = False, only: Sequence[str] = ()) -> dict:
    """The results of the experiment's study: measured now (``train``), or the committed ones.

    Measured of ``only`` these methods (and base, skills and CAT), they are not written.
    """
    profile = experiment.profile
    if not train:
        return load_results(profile.name, profile.study, experiment.folders.project)
    return run_study(experiment.variant(methods=only) if only else experiment, save=not only)


def show_figure(drawn: Figure, folder: Path | str, name: str) -> Image:
    """Save ``name.png`` and ``name.pdf`` in ``folder``; show it with a screen's resolution.

    For those who cannot see it, the title and the axes are told in words.
    """
    save(drawn, folder, name)
    return Image(data=render(drawn, "png", SCREEN_DPI), alt=in_words(drawn))


def show_table(frame: pd.DataFrame) -> Markdown:
    """A data frame as a plain table without its index."""
    return Markdown(markdown(frame))


def say(*sentences: str) -> Markdown:
    """Sentences, one paragraph each; Markdown is understood."""
    return Markdown("\n\n".join(sentences))
