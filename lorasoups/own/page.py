"""Reports on LoRAs and on their soup for people: HTML pages, and a model card."""

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lorasoups.lora.serving import VLLM_RANKS
from lorasoups.report.figures import style
from lorasoups.report.figures.alphas import alphas_map, place
from lorasoups.report.tables import markdown

LOAD = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, "PATH OF THIS FOLDER")"""
CSS = ("body{font:16px/1.5 sans-serif;max-width:52em;margin:2em auto;padding:0 1em}"
       "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;"
       "text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
       "pre{background:#f4f4f4;padding:1em;white-space:pre-wrap}")  # fmt: skip


def _load(report: Mapping[str, Any]) -> str:
    """The lines that load the soup; transformers wants a GGUF file's folder and its name."""
    base = '"PATH OF THE BASE"' if report.get("local") else f'"{report["base"]}"'
    if report["base"].endswith(".gguf"):
        base = f'"PATH OF ITS FOLDER", gguf_file="{report["base"]}"'
    return LOAD.format(base=base)


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
    data = "; ".join(f"{d['name']} ({d['train']} rows, {d['held_out']} held out)"
                     for d in report["data"])  # fmt: skip
    front = f"base_model: {report['base']}\n" if "/" in report["base"] else ""
    return (
        f"---\n{front}library_name: peft\ntags: [lora-soups, lora, model-merging]\n---\n\n"
        f"# A soup of {' and '.join(report['adapters'])}\n\n"
        f"CAT (learnable concatenation, arXiv 2410.13025) on {report['base']}: the LoRAs are "
        f"frozen, one weight per module and LoRA is learned. Rank {report['rank']}, scale 1.\n\n"
        f"Data: {data}.\n\nHeld-out loss, nats per token, with 95 % intervals over rows:\n\n"
        f"{markdown(table(report))}\n\n{' '.join([*report['notes'], report['verdict']])}\n\n"
        f"```python\n{_load(report)}\n```\n"
    )


def page(report: Mapping[str, Any]) -> str:
    """One self-contained HTML page: table, verdict, alphas by layer and module, loss by rank."""
    with pd.option_context("display.max_colwidth", None):  # names are shown whole
        shown = table(report).to_html(index=False, border=0)
    return _page(
        f"A soup of {' and '.join(report['adapters'])}",
        f"<p>Base: {html.escape(report['base'])}. Held-out loss in nats per token; in brackets "
        f"95 % intervals over rows, of this one fit.</p>{shown}"
        f"<p>{html.escape(' '.join(report['notes']))}</p>"
        f"<p><b>{html.escape(report['verdict'])}</b></p><h2>The learned alphas</h2>"
        f"{_image(_alphas(report), 'alphas by layer and module')}<h2>What a lower rank costs</h2>"
        f"{_image(_ranks(report), 'held-out loss by rank')}<h2>Load it</h2>"
        f"<pre>{html.escape(_load(report))}</pre>",
    )


def compared_page(compared: Mapping[str, Any], names: Sequence[str], told: str) -> str:
    """One self-contained HTML page of `interference`: what ``inspect`` says, and every module."""
    body = f"<pre>{html.escape(told)}</pre>"
    for pair in compared["pairs"]:
        one, other = (html.escape(names[pair[at]]) for at in ("i", "j"))
        body += f"<h2>{one} and {other}, module by module</h2>"
        body += _image(_modules(pair), "cosine and norm ratio of the deltas by layer and module")
    return _page(f"{', '.join(names)}: do they get in each other's way?", body)


def _page(title: str, body: str) -> str:
    title = html.escape(title)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{CSS}</style><h1>{title}</h1>{body}</html>\n"
    )


def _image(figure: Figure, alt: str) -> str:
    data = base64.b64encode(style.render(figure, "png", 100)).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


def _alphas(report: Mapping[str, Any]) -> Figure:
    known = [(m, np.array(v, float)) for m, v in report["alphas"]["values"].items()]
    entries = [{"seed": 0, "preset": "ours", "module": m, "values": v} for m, v in known]
    return alphas_map({"alphas": entries, "config": {"skills": report["adapters"]}})


@style.styled
def _modules(pair: Mapping[str, Any]) -> Figure:
    figure, axes = style.panels(3.2, columns=2)
    frame = pd.DataFrame.from_dict(pair["by_module"], orient="index")
    frame["module"], frame["layer"] = zip(*map(place, frame.index), strict=True)
    shown = {"cosine": "cosine of the deltas", "norm_ratio": "norm of the second to the first"}
    axes[0].set_ylim(-1, 1)
    axes[1].set_yscale("log", base=2)
    for ax, (key, label) in zip(axes, shown.items(), strict=True):
        seaborn.scatterplot(frame, x="layer", y=key, hue="module", style="module",
                            palette="colorblind", edgecolor=style.BLACK, ax=ax)  # fmt: skip
        ax.get_legend().remove()
        ax.set(ylabel="", title=label)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.axhline(0 if key == "cosine" else 1, color=style.BLACK, linewidth=0.8)
        ax.grid()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    return figure


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
