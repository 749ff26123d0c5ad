"""What is measured of a stolen copy, and how it is drawn."""

from itertools import combinations

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from torch import nn

from aisec_lab.attacks import FGSM, Linf
from aisec_lab.core import clopper_pearson
from aisec_lab.data import Dataset
from aisec_lab.evaluation import tidy
from aisec_lab.evaluation.extraction import defense_prices, extraction_curves, fidelity, transfer
from tests.evaluation.test_figures import CAPTION, NAMES, words

CELL = {"study": "extraction", "data": "noise", "model": "linear", "attack": "knockoff", "level": 250}


def linear(weights: list[list[float]]) -> nn.Module:
    """A linear classifier without a bias of rows about 1/2."""
    layer = nn.Linear(len(weights[0]), len(weights))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    return nn.Sequential(layer).eval()


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Rows near the middle of the box, so that it binds nowhere, and classes that are right for three out of four."""
    generator = torch.Generator().manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(400, 6, generator=generator)
    right = linear(VICTIM)(x).argmax(1)
    return Dataset(x, torch.where(torch.arange(400) % 4 == 0, 1 - right, right), ("a", "b"), "noise")


VICTIM = [[1.0, -2.0, 0.5, 1.0, 0.0, 1.5], [-1.0, 1.0, 0.5, 2.0, -1.0, 1.0]]
COPY = [[1.0, -1.0, 1.0, 0.5, -0.5, 1.0], [-1.0, 1.0, 0.0, 2.0, -1.5, 2.0]]


def test_fidelity_counts_equal_answers(rows):
    """Row by row, whatever the true classes are; a copy is its victim's equal, whatever it adds to all logits."""
    victim, copy = linear(VICTIM), linear(COPY)
    equal = sum(int(victim(x[None]).argmax()) == int(copy(x[None]).argmax()) for x in rows.x)
    row = fidelity(copy, victim, rows.x, **CELL)
    assert (row["metric"], row["n"], row["value"]) == ("fidelity", 400, equal / 400)
    assert (row["low"], row["high"]) == clopper_pearson(equal, 400)
    assert 0.5 < row["value"] < 1
    assert fidelity(victim, victim, rows.x)["value"] == 1
    table = tidy([row, fidelity(victim, victim, rows.x, **CELL | {"level": 500})])
    assert table.value.tolist() == [equal / 400, 1]


def test_to_reject_is_an_answer_too(rows):
    """Where both refuse they agree; where one does they do not."""
    reject = linear([*VICTIM, [0.0] * 6])  # wins where both other logits are negative
    refused = (reject(rows.x).argmax(1) == 2).double().mean().item()
    assert 0 < refused < 1
    assert fidelity(reject, reject, rows.x)["value"] == 1
    assert fidelity(linear(VICTIM), reject, rows.x)["value"] == pytest.approx(1 - refused)


@pytest.mark.parametrize("eps", [0.02, 0.05])
def test_transfer_meets_the_closed_form_on_linear_models(eps, rows):
    """One step against the copy's margin moves the victim's by -eps * <w_y - w_other, sign(copy's)>.

    Rows that the victim gets wrong do not count.
    """
    victim, copy = linear(VICTIM), linear(COPY)
    y = victim(rows.x).argmax(1)
    counted = y == rows.y

    ours, theirs = (torch.tensor(weights)[y] - torch.tensor(weights)[1 - y] for weights in (COPY, VICTIM))
    moved = ((rows.x - 0.5) * theirs).sum(1) - eps * (theirs * ours.sign()).sum(1)
    expected = int((moved < 0)[counted].sum())
    row = transfer(FGSM(Linf(eps)), copy, victim, rows, seed=0, **CELL)
    assert (row["metric"], row["n"], row["seed"]) == ("transfer_asr", int(counted.sum()), 0)
    assert row["value"] == pytest.approx(expected / int(counted.sum()))
    assert 0 < row["value"] < transfer(FGSM(Linf(eps)), victim, victim, rows, seed=0)["value"]


def test_a_victim_that_is_never_right_has_nothing_to_lose(rows):
    """A rate over no rows is refused."""
    wrong = Dataset(rows.x, 1 - linear(VICTIM)(rows.x).argmax(1), rows.classes, rows.name)
    with pytest.raises(ValueError, match="at least one row"):
        transfer(FGSM(Linf(0.1)), linear(COPY), linear(VICTIM), wrong, seed=0)


def rates(names: list[str]) -> pd.DataFrame:
    """Both measures of some attacks at three budgets, in no order."""
    rows = [
        {"attack": name, "metric": metric, "level": level, "value": value, "low": value - 0.05, "high": value + 0.05}
        for k, name in enumerate(names)
        for metric, top in (("clean_accuracy", 0.85), ("fidelity", 0.9))
        for level, value in ((5000, top - k / 100), (250, 0.6 - k / 100), (1000, 0.7 - k / 100))
    ]
    return pd.DataFrame(rows).astype({"value": "Float64", "low": "Float64", "high": "Float64"})


def prices(names: list[str]) -> pd.DataFrame:
    """Two seeds of some defenses."""
    rows = [
        {
            "defense": name, "seed": seed,
            "useful": 0.9 - k / 50, "useful_low": 0.88 - k / 50, "useful_high": 0.91 - k / 50,
            "fidelity": 0.9 - k / 20, "fidelity_low": 0.87 - k / 20, "fidelity_high": 0.92 - k / 20,
        }
        for k, name in enumerate(names)
        for seed in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_extraction_curves_draw_both_measures_of_each_attack():
    """Fidelity on the left and accuracy on the right, by queries on a logarithmic scale, bands to their ends."""
    figure = extraction_curves(rates(["knockoff", "copycat"]), CAPTION)
    for axes, label, top in zip(figure.axes, ("fidelity to the victim", "accuracy"), (0.9, 0.85), strict=True):
        assert (axes.get_ylabel(), axes.get_xscale()) == (label, "log")
        assert axes.lines[0].get_xydata().tolist() == [[250, 0.6], [1000, 0.7], [5000, top]]
        assert axes.lines[1].get_ydata()[0] == pytest.approx(0.59)
        low, high = axes.collections[0].get_paths()[0].get_extents().intervaly
        assert (low, high) == pytest.approx((0.55, top + 0.05))
        assert [text.get_text() for text in axes.get_xticklabels()] == ["250", "1000", "5000"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["knockoff", "copycat"]
    plt.close(figure)


def test_prices_stand_a_thiefs_fidelity_against_what_is_left_to_honest_users():
    """A marker a seed, with both intervals."""
    figure = defense_prices(prices(["none", "rounded"]), CAPTION)
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("accuracy left to honest users", "fidelity of the thief's copy")
    markers, _, (across, along) = axes.containers[1]
    assert markers.get_xydata()[0].tolist() == pytest.approx([0.88, 0.85])
    assert across.get_segments()[0][:, 0].tolist() == pytest.approx([0.86, 0.89])
    assert along.get_segments()[0][:, 1].tolist() == pytest.approx([0.82, 0.87])
    plt.close(figure)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: extraction_curves(rates(["knockoff", "copycat"]), CAPTION),
        lambda: extraction_curves(rates(NAMES), "Short."),
        lambda: defense_prices(prices(NAMES), CAPTION),
    ],
    ids=["curves", "many curves", "prices"],
)
def test_every_word_can_be_read(draw):
    """Inside the canvas, and none on another."""
    figure = draw()
    FigureCanvasAgg(figure).draw()
    for text, box in words(figure).items():
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0, text
        assert box.y1 <= figure.bbox.y1, text
    for (one, here), (other, there) in combinations(words(figure).items(), 2):
        overlap = Bbox.intersection(here, there)
        assert overlap is None or min(overlap.width, overlap.height) < 1, (one, other)
    plt.close(figure)
