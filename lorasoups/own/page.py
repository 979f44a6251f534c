"""The report on a fitted soup for people: one HTML page, and a model card."""

import base64
import html
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from lorasoups.report.figures import style
from lorasoups.report.figures.alphas import alphas_map

LOAD = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "PATH OF THIS FOLDER")"""
CSS = ("body{font:16px/1.5 sans-serif;max-width:52em;margin:2em auto;padding:0 1em}"
       "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;"
       "text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
       "pre{background:#f4f4f4;padding:1em;overflow:auto}")  # fmt: skip


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """The table: held-out loss per skill with its interval, the mean, the difference to CAT."""
    head = ["method", *(f"loss on {name}'s rows" for name in report["adapters"]), "mean",
            "minus CAT"]  # fmt: skip
    table = [head]
    for entry in report["methods"]:
        cells = [f"{m:.3f} [{lo:.3f}, {hi:.3f}]" for m, lo, hi in entry["losses"]]
        diff, lo, hi = entry["minus_cat"]
        apart = "" if entry["name"] == "CAT" else f"{diff:+.3f} [{lo:+.3f}, {hi:+.3f}]"
        table.append([entry["name"], *cells, f"{entry['mean']:.3f}", apart])
    return table


def text(report: Mapping[str, Any]) -> str:
    """The table and the verdict as lines for a terminal."""
    table = rows(report)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in table]
    a = report["alphas"]
    means = [sum(v) / len(a["values"]) for v in zip(*a["values"].values(), strict=True)]
    shown = ", ".join(f"{n} {m:.2f}" for n, m in zip(report["adapters"], means, strict=True))
    return "\n".join([*lines, "", f"mean alphas: {shown} (lr {a['lr']:g}, {a['steps']} steps)",
                      report["verdict"]])  # fmt: skip


def card(report: Mapping[str, Any]) -> str:
    """The folder's README.md."""
    head, *body = rows(report)
    lines = [head, ["---"] * len(head), *body]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    data = "; ".join(f"{d['name']} ({d['train']} rows, {d['held_out']} held out)"
                     for d in report["data"])  # fmt: skip
    front = f"base_model: {report['base']}\n" if "/" in report["base"] else ""
    return (
        f"---\n{front}library_name: peft\ntags: [lora-soups, lora, model-merging]\n---\n\n"
        f"# A soup of {' and '.join(report['adapters'])}\n\n"
        f"CAT (learnable concatenation, arXiv 2410.13025) on {report['base']}: the LoRAs are "
        f"frozen, one weight per module and LoRA is learned. Rank {report['rank']}, scale 1.\n\n"
        f"Data: {data}.\n\nHeld-out loss, nats per token, with 95 % intervals over rows:\n\n{table}"
        f"\n\n{report['verdict']}\n\n```python\n{LOAD.format(base=report['base'])}\n```\n"
    )


def page(report: Mapping[str, Any]) -> str:
    """One self-contained HTML page: table, verdict, alphas by layer and module, loss by rank."""
    head, *body = rows(report)

    def line(cells: list[str], tag: str) -> str:
        inside = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{inside}</tr>"

    title = html.escape(f"A soup of {' and '.join(report['adapters'])}")
    table = "".join([line(head, "th"), *(line(row, "td") for row in body)])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{CSS}</style><h1>{title}</h1><p>Base: {html.escape(report['base'])}. Held-out "
        f"loss in nats per token; in brackets 95 % intervals over rows.</p><table>{table}</table>"
        f"<p><b>{html.escape(report['verdict'])}</b></p><h2>The learned alphas</h2>"
        f"{_image(_alphas(report), 'alphas by layer and module')}<h2>What a lower rank costs</h2>"
        f"{_image(_ranks(report), 'held-out loss by rank')}<h2>Load it</h2>"
        f"<pre>{html.escape(LOAD.format(base=report['base']))}</pre></html>\n"
    )


def _image(figure: Figure, alt: str) -> str:
    data = base64.b64encode(style.render(figure, "png", 100)).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


def _alphas(report: Mapping[str, Any]) -> Figure:
    values = report["alphas"]["values"].items()
    entries = [{"seed": 0, "preset": "ours", "module": m, "values": v} for m, v in values]
    return alphas_map({"alphas": entries, "config": {"skills": report["adapters"]}})


@style.styled
def _ranks(report: Mapping[str, Any]) -> Figure:
    figure, [ax] = style.panels(2.8, "Held-out loss of the soup cut to a rank")
    ranks, losses = zip(*((e["rank"], e["loss"]) for e in report["ranks"]), strict=True)
    ax.plot(ranks, losses, "o-", color=style.BLUE, mec=style.BLACK)
    ax.set_xscale("log", base=2)
    ax.set_xticks(ranks, [str(rank) for rank in ranks])
    ax.set(xlabel="rank (all but the last: what vLLM's --max-lora-rank accepts)",
           ylabel="loss, mean over skills")  # fmt: skip
    ax.grid()
    return figure
