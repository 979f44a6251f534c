"""Draws figures/tour_diagram.{png,pdf}: ``python docs/tour_diagram.py``. It shows no result.

Three ways to one model with two skills: data mixing, linear merge of factors, CAT.

Matrices are drawn in their shapes: A [r, in] lies, B [out, r] stands, the delta weight is B A.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from lorasoups.paths import Folders
from lorasoups.report.figures import style

ONE = {"facecolor": style.SKY, "hatch": ""}
TWO = {"facecolor": style.ORANGE, "hatch": "///"}
BOTH = {"facecolor": style.GREY, "hatch": "xxx"}
LONG, THIN = 3.4, 0.75  # sides of a factor, in the panel's units
SMALL = 0.62  # the single LoRAs are drawn smaller
RESULT_TOP = 6.1


@style.styled
def draw() -> Figure:
    """The diagram; it shows no result, so it takes none."""
    figure, axes = style.panels(4.4, columns=3)
    ways = {"data mixing": _data_mixing, "linear merge of factors": _linear, "CAT": _cat}
    for ax, (name, panel) in zip(axes, ways.items(), strict=True):
        ax.set(xlim=(0, 10), ylim=(-1.2, 17.1), aspect="equal")
        ax.set_axis_off()
        _text(ax, 5, 16.4, name, weight="bold", size=10)
        _data(ax, 0.5, "math data", ONE)
        _data(ax, 5.5, "code data", TWO)
        panel(ax)
    return figure


def _data_mixing(ax: Axes) -> None:
    _arrow(ax, (1.6, 13.3), (4.2, 7.0))
    _arrow(ax, (8.4, 13.3), (5.8, 7.0))
    _text(ax, 5, 12.2, "train one LoRA\non both")
    _factors(ax, 2.7, RESULT_TOP, BOTH, "$B$", "$A$")
    _text(ax, 5, 1.85, r"$\Delta W = B\,A$", size=9)
    _text(ax, 5, -0.4, "needs all the data, and a new\ntraining for every combination")


def _linear(ax: Axes) -> None:
    _skills(ax)
    _text(ax, 5, 7.35, r"add A's and B's apart, each times $\sqrt{w_i}$")
    _factors(ax, 2.7, RESULT_TOP, BOTH, "$B$", "$A$")
    _text(ax, 5, 1.85, r"$\Delta W = w_1B_1A_1 + w_2B_2A_2$", size=9)
    _text(ax, 5, 0.95, r"$\qquad +\ \sqrt{w_1w_2}\,(B_1A_2 + B_2A_1)$", size=9)
    _text(ax, 5, -0.4, "no training, but cross terms\nthat belong to no skill")


def _cat(ax: Axes) -> None:
    _skills(ax)
    _text(ax, 5, 7.35, r"concatenate, learn only $\alpha$")
    x, top = 1.5, RESULT_TOP
    _matrix(ax, x, top, THIN, LONG, ONE, "$B_1$")
    _matrix(ax, x + THIN, top, THIN, LONG, TWO, "$B_2$")
    for i, look in enumerate((ONE, TWO)):
        y = top + 0.1 - 0.95 * (i + 0.5)
        ax.add_patch(Circle((x + 2.4, y), 0.42, fc=style.WHITE, ec=style.BLACK, lw=0.8))
        _text(ax, x + 2.4, y, rf"$\alpha_{i + 1}$")
        _matrix(ax, x + 3.3, top - THIN * i, LONG, THIN, look, f"$A_{i + 1}$")
    _text(ax, 5, 1.85, r"$\Delta W = \alpha_1 B_1A_1 + \alpha_2 B_2A_2$", size=9)
    _text(ax, 5, -0.4, "one pair of alphas per module,\nlearned on 5 % of the skills' data")


def _skills(ax: Axes) -> None:
    """Each data set trains its own small LoRA; both go into the merge."""
    for x, look, i in ((0.9, ONE, 1), (5.9, TWO, 2)):
        _arrow(ax, (x + 1.6, 13.3), (x + 1.6, 11.3))
        _factors(ax, x, 11.0, look, f"$B_{i}$", f"$A_{i}$", SMALL)
        _arrow(ax, (x + 1.9, 9.7), (4.2 if i == 1 else 5.8, 7.95))
    _text(ax, 5, 12.3, "train")


def _factors(ax: Axes, x: float, top: float, look: dict, b: str, a: str, size: float = 1.0) -> None:
    _matrix(ax, x, top, THIN * size, LONG * size, look, b)
    _matrix(ax, x + (THIN + 0.35) * size, top, LONG * size, THIN * size, look, a)


def _matrix(ax: Axes, x: float, top: float, width: float, height: float, look: dict, name: str):
    ax.add_patch(Rectangle((x, top - height), width, height, ec=style.BLACK, lw=0.8, **look))
    _text(ax, x + width / 2, top - height / 2, name, size=7.5, bbox=_plate(0.1))


def _data(ax: Axes, x: float, name: str, look: dict) -> None:
    round_box = "round,pad=0,rounding_size=0.4"
    ax.add_patch(FancyBboxPatch((x, 13.5), 4, 1.7, round_box, ec=style.BLACK, lw=0.8, **look))
    _text(ax, x + 2, 14.35, name, bbox=_plate(0.15))


def _plate(pad: float) -> dict:
    """A white plate under a text."""
    return {"boxstyle": f"round,pad={pad}", "fc": style.WHITE, "ec": "none"}


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": style.BLACK, "lw": 1})


def _text(ax: Axes, x: float, y: float, text: str, size: float = 8, **options) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=size, **options)


if __name__ == "__main__":
    style.save(draw(), Folders().figures, "tour_diagram")
