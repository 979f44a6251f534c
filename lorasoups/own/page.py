"""Reports on a soup of one's own LoRAs for people: an HTML page, and a model card."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from lorasoups.lora.serving import VLLM_RANKS
from lorasoups.report.figures import style
from lorasoups.report.figures.alphas import alphas_map
from lorasoups.report.tables import markdown

LOAD = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, "PATH OF THIS FOLDER")"""
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True, keep_trailing_newline=True,
    autoescape=select_autoescape(),
)  # fmt: skip


def _common(report: Mapping[str, Any]) -> dict[str, Any]:
    """What page and card show: title, report, the lines that load the soup (``told``)."""
    base = '"PATH OF THE BASE"' if report.get("local") else f'"{report["base"]}"'
    if report["base"].endswith(".gguf"):  # transformers wants its folder and its name
        base = f'"PATH OF ITS FOLDER", gguf_file="{report["base"]}"'
    title = f"A soup of {' and '.join(report['adapters'])}"
    return {"title": title, "report": report, "told": LOAD.format(base=base)}


def table(report: Mapping[str, Any]) -> pd.DataFrame:
    """The table: held-out loss per skill with its interval, the mean, the difference to CAT."""
    heads = [f"loss on {name}'s rows" for name in report["adapters"]]
    lines = []
    for entry in report["methods"]:
        cells = (f"{m:.3f} [{lo:.3f}, {hi:.3f}]" for m, lo, hi in entry["losses"])
        diff, lo, hi = entry["minus_cat"]
        apart = "" if entry["name"] == "CAT" else f"{diff:+.3f} [{lo:+.3f}, {hi:+.3f}]"
        line = {"method": entry["name"], **dict(zip(heads, cells, strict=True))}
        lines.append(line | {"mean": f"{entry['mean']:.3f}", "minus CAT": apart})
    return pd.DataFrame(lines)


def text(report: Mapping[str, Any]) -> str:
    """The table and the verdict as lines for a terminal."""
    shown = table(report).set_index("method").rename_axis(index=None, columns="method")
    a = report["alphas"]
    means = np.nanmean(np.array(list(a["values"].values()), float), axis=0)
    alphas = ", ".join(f"{n} {m:.2f}" for n, m in zip(report["adapters"], means, strict=True))
    told = f"mean alphas: {alphas} (lr {a['lr']:g} of {len(a['tried']) or 1}, {a['steps']} steps)"
    return "\n".join([shown.to_string(), "", told, *report["notes"], report["verdict"]])


def card(report: Mapping[str, Any]) -> str:
    """The folder's README.md."""
    shown = _common(report) | {"table": markdown(table(report))}
    return TEMPLATES.get_template("card.md").render(shown)


def page(report: Mapping[str, Any]) -> str:
    """One self-contained HTML page: table, verdict, alphas by layer and module, loss by rank."""
    with pd.option_context("display.max_colwidth", None):  # names are shown whole
        shown = _common(report) | {"table": table(report).to_html(index=False, border=0)}
    drawn = alphas_map(report["alphas"]["values"], report["adapters"])
    shown |= {"alphas": _image(drawn), "ranks": _image(_ranks(report))}
    return TEMPLATES.get_template("page.html").render(shown)


def _image(figure: Figure) -> str:
    """A figure as the address of an image."""
    data = base64.b64encode(style.render(figure, "png", 100)).decode()
    return f"data:image/png;base64,{data}"


@style.styled
def _ranks(report: Mapping[str, Any]) -> Figure:
    figure, [ax] = style.panels(2.8, "Held-out loss of the soup cut to a rank")
    ranks, losses = zip(*((e["rank"], e["loss"]) for e in report["ranks"]), strict=True)
    ax.plot(ranks, losses, "-", color=style.BLUE)
    for rank, loss in zip(ranks, losses, strict=True):
        fill = style.BLUE if rank in VLLM_RANKS else style.WHITE
        ax.plot(rank, loss, "o", mfc=fill, mec=style.BLACK)
    ax.set_xscale("log", base=2)
    ax.set_xticks(ranks, [str(rank) for rank in ranks])
    ax.set(xlabel="rank (filled: one that vLLM's --max-lora-rank accepts)",
           ylabel="loss, mean over skills", ylim=(0, 1.2 * max(losses)))  # fmt: skip
    ax.grid()
    return figure
