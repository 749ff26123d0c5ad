"""The security curve from one run of a minimum-norm attack."""

import math

import pytest
import torch
from torch import nn

from aisec_lab.attacks import FMN, L2, FixedEpsilon, Linf
from aisec_lab.data import Dataset
from aisec_lab.evaluation import curve_from_distances, run_attack, run_minimum_norm, tidy


def test_a_row_is_broken_at_its_distance_and_beyond():
    """Wrong rows never count as robust, rows that were never won always do; the rows fit the table."""
    distance = torch.tensor([0.0, 0.1, 0.25, math.inf], dtype=torch.float64)
    cell = {
        "study": "evasion",
        "data": "d",
        "model": "m",
        "defense": "none",
        "attack": "fmn",
        "knob": "Linf",
        "seed": 0,
    }
    rows = curve_from_distances(distance, [0, 0.1, 0.2, 0.25, 9], **cell)
    assert [row["value"] for row in rows] == [0.75, 0.5, 0.5, 0.25, 0.25]
    assert all(row["low"] < row["value"] < row["high"] and row["n"] == 4 for row in rows)
    assert len(tidy(rows)) == 5


@pytest.mark.parametrize("wrong", [-0.1, math.nan])
def test_distances_that_are_none_are_refused(wrong):
    """They would count as broken."""
    with pytest.raises(ValueError, match="at least 0"):
        curve_from_distances(torch.tensor([0.1, wrong]), [0.1])


@pytest.mark.parametrize("ball", [Linf(0.04), L2(0.15)], ids=repr)
def test_batches_are_put_together_and_agree_with_the_attack_at_each_level(ball):
    """More rows than go into a batch; at the ball's own radius as many survive as of the attack held to it."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).eval()
    nn.init.normal_(model[1].weight, generator=generator)
    nn.init.zeros_(model[1].bias)
    x = torch.rand(300, 1, 3, 3, generator=generator)
    data = Dataset(x, model(x).argmax(1), ("a", "b", "c"), "blobs")
    attack = FMN(ball.with_eps(0), steps=50)
    found, passes = run_minimum_norm(attack, model, data, seed=0)
    assert found.x_adv.shape == x.shape
    assert torch.equal(found.distance, ball.norm(found.x_adv - x))
    assert passes.backward_passes <= 300 * 50 < passes.forward_passes
    x_adv, _ = run_attack(FixedEpsilon(ball, attack), model, data, seed=0)
    survive = (model(x_adv).argmax(1) == data.y).sum().item()
    (row,) = curve_from_distances(found.distance, [ball.eps])
    assert row["value"] * 300 == pytest.approx(survive, abs=1)
