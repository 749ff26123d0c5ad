"""Whether a backdoor opens, and whether a detector finds it: against counting by hand."""

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

from aisec_lab.attacks import Checkerboard
from aisec_lab.data import Dataset
from aisec_lab.evaluation import detection_rates, rate_grid, roc, roc_curves, success_rate


class Corner(nn.Module):
    """Class 1 where the lower right corner is lit, else class 0."""

    def forward(self, x):
        lit = x[:, 0, -1, -1]
        return torch.stack([1 - lit, lit], 1)


def images(n, y):
    return Dataset(torch.zeros(n, 1, 4, 4), torch.tensor(y), ("zero", "one", "two"), "images")


def test_success_counts_marked_rows_of_other_classes_only():
    """Six of the ten rows are not of the target class; all of them go there with the mark, none without."""
    dataset = images(10, [0] * 3 + [1] * 4 + [2] * 3)
    row = success_rate(Corner().eval(), Checkerboard(1), 1, dataset, attack="badnets")
    assert (row["metric"], row["value"], row["n"], row["attack"]) == ("asr", 1.0, 6, "badnets")
    unmarked = success_rate(Corner().eval(), Unmarked(), 1, dataset)
    assert unmarked["value"] == 0.0
    with pytest.raises(ValueError, match="all 4 rows are of class 1"):
        success_rate(Corner().eval(), Checkerboard(1), 1, images(4, [1] * 4))


class Unmarked:
    def apply(self, x):
        return x


scores = st.lists(st.integers(0, 12), min_size=4, max_size=60)


@given(clean=scores, poisoned=scores, fpr=st.sampled_from([0.0, 0.01, 0.1, 0.5]), seed=st.integers(0, 3))
def test_the_threshold_keeps_its_promise_where_it_was_chosen(clean, poisoned, fpr, seed):
    """On its half no more false alarms than allowed, and one step lower there were; the other half is counted apart."""
    score = torch.tensor(clean + poisoned, dtype=torch.float32)
    where = torch.arange(len(score)) >= len(clean)
    found, alarms = detection_rates(score, where, fpr, generator=torch.Generator().manual_seed(seed), attack="a")
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))
    chosen, held = score[~where][order].tensor_split(2)
    allowed = [t for t in [*score.unique().tolist(), -1.0] if (chosen > t).double().mean() <= fpr]
    expected = min(t for t in allowed if t in chosen.tolist())
    assert found["value"] == (score[where] > expected).double().mean().item()
    assert alarms["value"] == (held > expected).double().mean().item()
    assert (found["n"], alarms["n"]) == (len(poisoned), len(held))
    assert (found["knob"], found["level"]) == ("fpr", fpr)


@given(clean=scores, poisoned=scores)
def test_the_curve_has_the_area_of_the_rank_statistic(clean, poisoned):
    """Against scikit-learn's area; from (0, 0) to (1, 1), never down."""
    score = torch.tensor(clean + poisoned, dtype=torch.float32)
    where = torch.arange(len(score)) >= len(clean)
    curve = roc(score, where)
    area = (curve.fpr.diff().iloc[1:] * curve.tpr.rolling(2).mean().iloc[1:]).sum()
    assert area == pytest.approx(roc_auc_score(where.numpy(), score.numpy()), abs=1e-5)
    assert (curve.diff().iloc[1:] >= 0).all().all()
    assert curve.iloc[0].tolist() == [0, 0]
    assert curve.iloc[-1].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("score", "where", "message"),
    [
        ([1.0, float("nan"), 2.0], [True, False, False], "got 1 NaN"),
        ([1.0, 1.0, 2.0], [False, False, False], "0 poisoned"),
        ([1.0, 1.0, 2.0], [True, True, False], "two clean rows"),
    ],
)
def test_what_cannot_be_judged_is_refused(score, where, message):
    with pytest.raises(ValueError, match=message):
        detection_rates(torch.tensor(score), torch.tensor(where), 0.01, generator=torch.Generator())


def test_the_grid_shows_every_cell_and_leaves_what_is_missing_open():
    rows = pd.DataFrame(
        [
            ("badnets", "strip", 0.9, 0.8, 0.95),
            ("badnets", "spectral", 0.1, 0.0, 0.2),
            ("warp", "strip", 0.5, 0.4, 0.6),
        ],
        columns=["attack", "defense", "value", "low", "high"],
    )
    figure = rate_grid(rows, ["badnets", "warp"], ["strip", "spectral"], "TPR", "What finds what.")
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == ["90%", "80% to 95%", "10%", "0% to 20%", "50%", "40% to 60%", "-"]


def test_the_curves_are_drawn_by_name():
    curve = roc(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([False, False, True, True]))
    figure = roc_curves({"spectral": curve, "strip": curve}, "Curves.")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["spectral", "strip"]
