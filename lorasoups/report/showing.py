"""Showing things in a notebook: a figure that is also saved, a table, a sentence made by code.

Importing this first keeps noise of other packages out of a notebook's outputs.
"""

import os
import warnings
from pathlib import Path

import pandas as pd
from IPython.display import Image, Markdown
from matplotlib.figure import Figure

from lorasoups.report.figures.style import render, save
from lorasoups.report.tables import markdown

SCREEN_DPI = 80  # in the notebook; the saved PNG has more

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # "Loading weights: 100%|..."
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # PEFT asks for it


def figure(drawn: Figure, folder: Path | str, name: str) -> Image:
    """Save ``name.png`` and ``name.pdf`` in ``folder``; show it with a screen's resolution."""
    save(drawn, folder, name)
    return Image(data=render(drawn, "png", SCREEN_DPI))


def table(frame: pd.DataFrame) -> Markdown:
    """A data frame as a plain table without its index."""
    return Markdown(markdown(frame))


def say(*sentences: str) -> Markdown:
    """Sentences, one paragraph each; Markdown is understood."""
    return Markdown("\n\n".join(sentences))
