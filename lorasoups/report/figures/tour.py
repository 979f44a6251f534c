"""Three ways to one model with two skills: data mixing, linear merge of factors, CAT.

Matrices are drawn in their shapes: A [r, in] lies, B [out, r] stands, the delta weight is B A.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

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
    figure = style.new_figure(4.25)
    axes = figure.subplots(1, 3)
    for ax, panel in zip(axes, (_data_mixing, _linear, _cat), strict=True):
        ax.set(xlim=(0, 10), ylim=(-0.3, 17.1), aspect="equal")
        ax.set_axis_off()
        _data(ax, 0.5, "math data", ONE)
        _data(ax, 5.5, "code data", TWO)
        panel(ax)
    return figure


def _data_mixing(ax: Axes) -> None:
    _text(ax, 5, 16.4, "data mixing", weight="bold", size=10)
    _arrow(ax, (1.6, 13.3), (4.2, 7.0))
    _arrow(ax, (8.4, 13.3), (5.8, 7.0))
    _text(ax, 5, 12.2, "train one LoRA\non both")
    _factors(ax, 2.7, RESULT_TOP, BOTH, "$B$", "$A$")
    _formula(
        ax, r"$\Delta W = B\,A$", "needs all the data, and a new\ntraining for every combination"
    )


def _linear(ax: Axes) -> None:
    _text(ax, 5, 16.4, "linear merge of factors", weight="bold", size=10)
    _skills(ax)
    _text(ax, 5, 7.35, "average A's and B's, apart")
    _factors(ax, 2.7, RESULT_TOP, BOTH, r"$\bar B$", r"$\bar A$")
    _formula(
        ax,
        r"$\Delta W = \frac{1}{2}(B_1A_1 + B_2A_2 + B_1A_2 + B_2A_1)$",
        "no training, but cross terms\nthat belong to no skill",
    )


def _cat(ax: Axes) -> None:
    _text(ax, 5, 16.4, "CAT", weight="bold", size=10)
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
    _formula(
        ax,
        r"$\Delta W = \alpha_1 B_1A_1 + \alpha_2 B_2A_2$",
        "one pair of alphas per module,\nlearned on 5 % of the skills' data",
    )


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


def _matrix(
    ax: Axes, x: float, top: float, width: float, height: float, look: dict, name: str
) -> None:
    ax.add_patch(Rectangle((x, top - height), width, height, ec=style.BLACK, lw=0.8, **look))
    place = {"boxstyle": "round,pad=0.1", "fc": style.WHITE, "ec": "none"}
    _text(ax, x + width / 2, top - height / 2, name, size=7.5, bbox=place)


def _data(ax: Axes, x: float, name: str, look: dict) -> None:
    box = FancyBboxPatch((x, 13.5), 4, 1.7, "round,pad=0,rounding_size=0.4", ec=style.BLACK, lw=0.8)
    box.set(**look)
    ax.add_patch(box)
    place = {"boxstyle": "round,pad=0.15", "fc": style.WHITE, "ec": "none"}
    _text(ax, x + 2, 14.35, name, bbox=place)


def _formula(ax: Axes, formula: str, words: str) -> None:
    _text(ax, 5, 1.85, formula, size=9)
    _text(ax, 5, 0.5, words)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": style.BLACK, "lw": 1})


def _text(ax: Axes, x: float, y: float, text: str, size: float = 8, **options) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=size, **options)
