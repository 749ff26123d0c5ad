"""Figures: what they draw, and that every word of them can be read."""

from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from aisec_lab.data.catalog import GTSRB
from aisec_lab.evaluation import adversarial_grid, changed_features, learning_curve, pareto, security_curves

CAPTION = (
    "Accuracy of the model trained with adversarial_training (seed 0, defense median_filter) under APGD-CE, APGD-DLR, "
    "APGD-T, FGSM, PGD and SQUARE, on 500 GTSRB test inputs; at eps = 0 nothing is changed. The band is the 95 % "
    "Clopper-Pearson interval."
)
NAMES = [f"adversarial_training, median_filter {k}" for k in range(9)]
FEATURES = ["age", "capital-gain", "native-country=Outlying-US(Guam-USVI-etc)"]


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def history(epochs: int) -> list[dict[str, float]]:
    """What `Fit` returns."""
    return [{"epoch": e, "loss": 12 / (e + 1), "accuracy": 1 - 0.9 / (e + 1)} for e in range(epochs)]


def rates(names: list[str], worst: bool = False) -> pd.DataFrame:
    """Falling lines, the last one at zero; nullable types, as the table has them; the levels not in order."""
    rows = [
        {"defense": name, "level": level, "value": value, "low": value * 0.9, "high": min(1, value * 1.1 + 0.01)}
        for k, name in enumerate(names)
        for level in (0.1, 0.0, 0.3, 0.2)
        for value in [max(0.0, 0.95 - 0.05 * k - (2 + k) * level)]
    ]
    frame = pd.DataFrame(rows).assign(worst=False)
    stars = frame[frame.level == 0.1].assign(worst=True, value=lambda at: at.value / 2)
    frame = pd.concat([frame, stars]) if worst else frame.drop(columns="worst")
    return frame.astype({"value": "Float64", "low": "Float64", "high": "Float64"})


def points(names: list[str]) -> pd.DataFrame:
    """Two seeds for each name."""
    rows = [
        {
            "defense": name, "seed": s,
            "clean": 0.97 - 0.02 * k - 0.001 * s, "clean_low": 0.95 - 0.02 * k, "clean_high": 0.98 - 0.02 * k,
            "robust": 0.02 + 0.1 * k, "robust_low": 0.1 * k, "robust_high": 0.05 + 0.1 * k,
        }
        for k, name in enumerate(names)
        for s in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype(dict.fromkeys(("clean", "robust", "clean_low", "robust_high"), "Float64"))


def shown(channels: int, names: tuple[str, ...], columns: int = 8) -> dict:
    """Images, changed ones, and titles out of the longest class names of the catalog."""
    x = torch.rand(columns, channels, 8, 8, generator=seed(0))
    x_adv = (x + 0.1 * torch.randn(x.shape, generator=seed(1))).clamp(0, 1)
    longest = sorted(GTSRB, key=len)[-2 * columns :]
    titles = [f"{a} → {b}" for a, b in zip(longest[::2], longest[1::2], strict=True)]
    return dict.fromkeys(names, (x, x_adv, titles))


FIGURES: dict[str, Callable[[], Figure]] = {
    "learning curve": lambda: learning_curve(history(20), CAPTION),
    "learning curve of one epoch": lambda: learning_curve(history(1), CAPTION),
    "security curves": lambda: security_curves(rates(["standard", "trades"], worst=True), "Linf", CAPTION),
    "security curve alone": lambda: security_curves(rates(["standard"]), "L2", "Short."),
    "many security curves": lambda: security_curves(rates(NAMES, worst=True), "Linf", CAPTION),
    "pareto": lambda: pareto(points(["standard", "adversarial_training", "trades"]), CAPTION),
    "pareto of many": lambda: pareto(points(NAMES), "Short."),
    "grid": lambda: adversarial_grid(shown(1, ("standard", "adversarial_training")), CAPTION),
    "grid in colour": lambda: adversarial_grid(shown(3, (NAMES[0],)), CAPTION),
    "grid of two": lambda: adversarial_grid(shown(1, ("standard",), columns=2), CAPTION),
    "features": lambda: changed_features(torch.rand(5, 3, generator=seed(0)), FEATURES, CAPTION),
    "many features": lambda: changed_features(
        torch.rand(5, 40, generator=seed(0)), [f"{FEATURES[2]} {k}" for k in range(40)], CAPTION
    ),
}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """No figure stays open."""
    yield
    plt.close("all")


@pytest.fixture(scope="module", params=FIGURES)
def figure(request: pytest.FixtureRequest) -> Figure:
    """Each figure in turn, laid out."""
    drawn = FIGURES[request.param]()
    FigureCanvasAgg(drawn).draw()
    return drawn


def words(figure: Figure) -> dict[Text, Bbox]:
    """Every text that is seen, and its place in pixels; ticks outside their axis are not drawn."""
    hidden = {
        label
        for axis in figure.findobj(Axis)
        for tick, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
        if not min(axis.get_view_interval()) - 1e-9 <= tick <= max(axis.get_view_interval()) + 1e-9
    }
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return {text: text.get_window_extent() for text in texts if text not in hidden}


def test_no_word_is_cut_off(figure: Figure) -> None:
    """Every label, title, legend and caption lies inside the canvas."""
    for text, box in words(figure).items():
        inside = figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
        assert inside, f"{text.get_text()!r} at {box} leaves {figure.bbox}"
        assert box.y1 <= figure.bbox.y1, f"{text.get_text()!r} at {box} leaves {figure.bbox}"


def test_no_word_stands_on_another(figure: Figure) -> None:
    """Nor a title on its neighbour, nor a label on the caption."""
    for (one, here), (other, there) in combinations(words(figure).items(), 2):
        overlap = Bbox.intersection(here, there)
        apart = overlap is None or min(overlap.width, overlap.height) < 1
        assert apart, f"{one.get_text()!r} stands on {other.get_text()!r}"


def test_the_caption_is_whole_and_lowest(figure: Figure) -> None:
    """Word for word, under everything else, and close to it: no empty band."""
    caption = next(text for text in words(figure) if text.get_text().replace("\n", " ") in (CAPTION, "Short."))
    boxes = words(figure)
    rest = min(box.y0 for text, box in boxes.items() if text is not caption)
    images = min(axes.get_window_extent().y0 for axes in figure.axes)
    assert boxes[caption].y1 <= min(rest, images)
    assert min(rest, images) - boxes[caption].y1 < 0.25 * figure.dpi


def test_a_legend_lies_above_the_axes_and_inside_the_canvas(figure: Figure) -> None:
    """So that it hides no data."""
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        assert box.y0 >= max(axes.get_window_extent().y1 for axes in figure.axes)
    assert not any(axes.get_legend() for axes in figure.axes)


def test_the_images_of_a_grid_stand_in_even_columns() -> None:
    """Whatever the length of the words above them."""
    drawn = FIGURES["grid in colour"]()
    FigureCanvasAgg(drawn).draw()
    left = np.array([axes.get_window_extent().x0 for axes in drawn.axes]).reshape(3, 8)
    assert np.ptp(left, axis=0).max() < 1
    assert np.ptp(np.diff(left[0])) < 1


def test_a_figure_is_the_same_bytes_each_time() -> None:
    """Nothing random, no date."""
    for draw in (FIGURES["security curves"], FIGURES["grid of two"]):
        files = [BytesIO(), BytesIO()]
        for file in files:
            draw().savefig(file, format="png")
        assert files[0].getvalue() == files[1].getvalue()


def test_a_learning_curve_shows_loss_and_accuracy_by_epoch() -> None:
    """Epochs are counted from 1, and marked by whole numbers."""
    left, right = learning_curve(history(4), CAPTION).axes
    assert left.lines[0].get_xydata().tolist() == [[1, 12], [2, 6], [3, 4], [4, 3]]
    assert right.lines[0].get_xydata()[:, 1].tolist() == pytest.approx([0.1, 0.55, 0.7, 0.775])
    assert all(tick == int(tick) for tick in left.get_xticks())


def test_security_curves_draw_every_defense_with_its_band_and_star() -> None:
    """In the order given, each in a style of its own; the levels in order; the worst case not on the line."""
    drawn = security_curves(rates(NAMES, worst=True), "Linf", CAPTION)
    (axes,) = drawn.axes
    curves, stars = axes.lines[::2], axes.lines[1::2]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == NAMES
    assert curves[0].get_xydata()[:, 1].tolist() == pytest.approx([0.95, 0.75, 0.55, 0.35])
    assert len({(to_rgba(c.get_color()), str(c.get_marker())) for c in curves}) == len(NAMES)
    for curve, star, band in zip(curves, stars, axes.collections, strict=True):
        assert curve.get_xdata().tolist() == [0, 0.1, 0.2, 0.3]
        assert star.get_xydata().tolist() == [[0.1, pytest.approx(curve.get_ydata()[1] / 2)]]
        low, high = band.get_paths()[0].get_extents().intervaly
        assert high == pytest.approx(min(1, curve.get_ydata()[0] * 1.1 + 0.01))
        assert low == pytest.approx(curve.get_ydata()[3] * 0.9)
        assert to_rgba(star.get_color()) == to_rgba(curve.get_color())
    assert "Linf" in axes.get_xlabel()


def test_pareto_draws_every_model_with_its_intervals() -> None:
    """A marker for each seed, bars to the ends of its intervals."""
    drawn = pareto(points(NAMES), CAPTION)
    (axes,) = drawn.axes
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == NAMES
    for k, container in enumerate(axes.containers):
        markers, _, (across, along) = container
        assert markers.get_xydata().tolist() == [
            [pytest.approx(0.97 - 0.02 * k - 0.001 * s), pytest.approx(0.02 + 0.1 * k)] for s in (0, 1)
        ]
        assert across.get_segments()[0][:, 0].tolist() == pytest.approx([0.95 - 0.02 * k, 0.98 - 0.02 * k])
        assert along.get_segments()[0][:, 1].tolist() == pytest.approx([0.1 * k, 0.05 + 0.1 * k])
    styles = {(to_rgba(c[0].get_color()), c[0].get_marker()) for c in axes.containers}
    assert len(styles) == len(axes.containers) == len(NAMES)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_clean_adversarial_and_difference(channels: int) -> None:
    """The pixels as they are; the difference around grey, stretched so that the largest change is at an end."""
    rows = shown(channels, ("standard",), columns=4)
    x, x_adv, titles = rows["standard"]
    drawn = adversarial_grid(rows, CAPTION)
    pictures = [np.asarray(axes.images[0].get_array()).reshape(8, 8, channels) for axes in drawn.axes]
    for k in range(4):
        assert np.allclose(pictures[k], x[k].permute(1, 2, 0))
        assert np.allclose(pictures[4 + k], x_adv[k].permute(1, 2, 0))
    difference = np.stack(pictures[8:])
    change = (x_adv - x).permute(0, 2, 3, 1).numpy()
    assert np.allclose(difference - 0.5, change / (2 * abs(change).max()), atol=1e-6)
    assert [axes.get_title().replace("\n", " ") for axes in drawn.axes[4:8]] == titles
    assert drawn.subfigs[0].get_suptitle() == "standard"


def test_a_grid_without_any_change_is_grey() -> None:
    """Not a division by zero."""
    x = torch.rand(2, 1, 8, 8, generator=seed(0))
    drawn = adversarial_grid({"standard": (x, x, ["a → a", "b → b"])}, CAPTION)
    assert all((np.asarray(axes.images[0].get_array()) == 0.5).all() for axes in drawn.axes[4:])


def test_features_are_those_that_move_most() -> None:
    """Twenty of them at most, the largest at the top, by absolute change."""
    drawn = changed_features(torch.stack([torch.arange(30.0), -torch.arange(30.0)]) / 30, list(map(str, range(30))), "")
    (axes,) = drawn.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([k / 30 for k in range(10, 30)])
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(k) for k in range(10, 30)]
