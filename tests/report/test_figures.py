"""Figures: the same bytes every time, any number of seeds, and nothing cut off or overprinted."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tour_diagram
from matplotlib.image import imread
from matplotlib.text import Text
from results_example import MODULES, example_results

from lorasoups.errors import SoupError
from lorasoups.report.figures import alphas, methods, style
from lorasoups.results import reading

DRAWN = {f.__name__: f for f in (methods.accuracy, methods.outcomes, alphas.alpha_curves)}
NAMES = tuple(DRAWN)
FEW = ("base", "math", "code", "cat")


def draw(name, results):
    return DRAWN[name](results)


def unseen_tick_labels(ax):
    """Labels of ticks beyond an axis' limits: matplotlib keeps them but does not draw them."""
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                yield from (tick.label1, tick.label2)


def boxes(figure):
    """Text and its box in pixels, of everything written in the figure."""
    figure.draw_without_rendering()
    hidden = {id(text) for ax in figure.axes for text in unseen_tick_labels(ax)}
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    texts = [t for t in texts if id(t) not in hidden]
    found = [(t.get_text(), t.get_window_extent()) for t in texts]
    return [(text, box) for text, box in found if box.width > 0]


def check_texts(figure):
    width, height = figure.get_size_inches() * figure.dpi
    written = boxes(figure)
    cut = [t for t, b in written if b.x0 < -1 or b.y0 < -1 or b.x1 > width + 1 or b.y1 > height + 1]
    assert not cut
    overprinted = [
        (a, b)
        for (a, one), (b, two) in combinations(written, 2)
        if min(one.x1, two.x1) - max(one.x0, two.x0) > 1
        and min(one.y1, two.y1) - max(one.y0, two.y0) > 1.5
    ]
    assert not overprinted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_nothing_is_cut_off_or_overprinted(name, seeds):
    check_texts(draw(name, example_results(seeds)))


@pytest.mark.parametrize("name", NAMES)
def test_a_few_methods_and_problems_are_enough(name):
    check_texts(draw(name, example_results(1, FEW, n=8)))


@pytest.mark.parametrize("name", NAMES)
def test_extreme_accuracies_fit(name):
    check_texts(draw(name, example_results(2, FEW, chances={"cat": 1.0, "base": 0.0, "math": 0.0})))


def test_the_tour_diagram_is_not_cut_off():
    check_texts(tour_diagram.draw())
    committed = Path(__file__).parent.parent.parent / "figures" / "tour_diagram.png"
    drawn = imread(io.BytesIO(style.render(tour_diagram.draw(), "png")))
    assert abs(drawn - imread(committed)).mean() < 1e-3, "run python docs/tour_diagram.py"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_same_results_give_the_same_bytes(name, kind):
    first = style.render(draw(name, example_results(2, FEW)), kind)
    assert first == style.render(draw(name, example_results(2, FEW)), kind)
    for trace in (b"CreationDate", b"Software", b"matplotlib.org"):
        assert trace not in first


def test_the_callers_matplotlib_settings_change_nothing(monkeypatch):
    import matplotlib

    plain = style.render(draw("accuracy", example_results(1, FEW)), "png")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 30}):
        assert style.render(draw("accuracy", example_results(1, FEW)), "png") == plain
        assert matplotlib.rcParams["font.size"] == 20


def test_save_writes_png_and_pdf(tmp_path):
    path = style.save(draw("outcomes", example_results(1, FEW)), tmp_path / "figures", "outcomes")
    assert path == tmp_path / "figures" / "outcomes.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert len(list(path.parent.iterdir())) == 2


def test_a_figure_is_told_in_words_for_those_who_cannot_see_it():
    figure, (left, right) = style.panels(2.0, "Two of\nthem", columns=2)
    left.set(title="one", xlabel="steps", ylabel="loss")
    right.set(xlabel="rank")
    assert style.in_words(figure) == "Two of them. one, x: steps, y: loss. x: rank"


def test_save_into_an_impossible_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SoupError, match="cannot write"):
        style.save(tour_diagram.draw(), tmp_path / "file", "tour")


def test_groups_differ_in_grey():
    """Fills of equal brightness must differ in their hatch."""

    def brightness(colour):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    looks = list(style.GROUPS.values()) + [look[1:] for look in methods.OUTCOMES.values()]
    for family in (looks[: len(style.GROUPS)], looks[len(style.GROUPS) :]):
        for (one, hatch), (two, other) in combinations(family, 2):
            assert hatch != other or abs(brightness(one) - brightness(two)) > 15
    assert set(style.GROUPS) == set(reading.GROUPS)


def test_alphas_map_is_by_layer_and_type():
    weights = {name: [i, -i] for i, name in enumerate(MODULES)}
    values, types, layers = alphas.grid(weights)
    assert (types, layers) == (["q_proj", "v_proj", "down_proj"], [0, 1, 2])
    assert values[:, 0, 1].tolist() == [3, -3]


def test_alphas_map_leaves_absent_modules_empty():
    weights = {name: [0.5, None if name == MODULES[1] else 1.5] for name in MODULES[1:]}
    values, _, _ = alphas.grid(weights)
    assert np.isnan(values[:, 0, 0]).all() and np.isfinite(values).sum() == values.size - 3
    check_texts(alphas.alphas_map(weights, ["math", "code"]))


def test_outcome_shares_are_of_all_seeds_and_sum_to_one():
    results = example_results(2, FEW)
    found = methods.shares(results, "cat")
    assert sum(found.values()) == pytest.approx(1)
    assert found["ok"] == reading.estimate(results, "cat").mean
