"""Several targets in one pass: what comes out is what one target after the other gives, whoever shares the batch."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from aisec_lab.attacks import L2, FixedEpsilon, Linf, TargetedAPGD, TargetedFAB, Untargeted
from aisec_lab.attacks.evasion.gradient.apgd_attacks import run_apgd
from aisec_lab.attacks.evasion.minimum_norm.fab import fab_steps, plane_towards
from aisec_lab.attacks.evasion.minimum_norm.tracker import FINAL_STEPS, MinimumNormTracker, top_wrong_classes
from aisec_lab.attacks.evasion.search.best import PASS_ROWS, LowestMargin
from aisec_lab.models import frozen

FEW, MANY = 40, 300


class Asked(nn.Module):
    """A model that knows how many passes forward it made, and over how many rows."""

    def __init__(self, model):
        super().__init__()
        self.model, self.passes, self.rows = model, 0, 0
        self.eval()

    def forward(self, x):
        self.passes, self.rows = self.passes + 1, self.rows + len(x)
        return self.model(x)


def apgd_one_by_one(attack, model, x, y, generator):
    """Each target on the rows that those before have left standing."""
    with frozen(model):
        found = LowestMargin(model, x, y, Untargeted())
        for target in top_wrong_classes(found.logits, y, attack.targets).T:
            run_apgd(model, found, attack.loss, y, target, ball=attack.ball, steps=attack.steps, generator=generator)
    return found.x_adv


def fab_one_by_one(attack, model, x, y, generator):
    """As above; a point outside the ball is none."""
    steps, targets = attack.attack.steps, attack.attack.targets
    with frozen(model):
        found = MinimumNormTracker(model, x, y, Untargeted(), attack.ball)
        for target in top_wrong_classes(found.logits, y, targets).T:
            fab_steps(model, found, steps, partial(plane_towards, model, attack.ball, y, target))
        found.regula_falsi(model, FINAL_STEPS)
        result = found.result(model)
    return torch.where((result.distance <= attack.ball.eps).view(-1, 1, 1, 1), result.x_adv, x)


CASES = {
    "APGD-T-Linf": (TargetedAPGD(Linf(0.07), steps=15), apgd_one_by_one),
    "APGD-T-L2": (TargetedAPGD(L2(0.5), steps=15), apgd_one_by_one),
    "FAB-T-Linf": (FixedEpsilon(Linf(0.07), TargetedFAB(steps=8)), fab_one_by_one),
    "FAB-T-L2": (FixedEpsilon(L2(0.5), TargetedFAB(steps=8)), fab_one_by_one),
}
each = pytest.mark.parametrize(("attack", "one_by_one"), CASES.values(), ids=CASES)


def standing(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) == y


@pytest.fixture(scope="module")
def exact(cnn, digits):
    """The CNN in float64, where a row's outcome does not depend on its batch."""
    return copy.deepcopy(cnn).double(), digits[0][:200].double(), digits[1][:200]


@each
def test_few_rows_take_fewer_passes_to_the_same_points(attack, one_by_one, exact, seed):
    """Nine targets in about two groups: a third of the passes, over hardly more rows."""
    model, x, y = exact[0], exact[1][:FEW], exact[2][:FEW]
    together, apart = Asked(model), Asked(model)
    x_adv = attack(together, x, y, generator=seed(0))
    expected = one_by_one(attack, apart, x, y, seed(0))
    won = standing(model, x, y) & ~standing(model, x_adv, y)
    assert torch.allclose(x_adv, expected, rtol=0, atol=1e-9)
    assert 5 < won.sum() < FEW - 5  # or there would be little to see
    assert together.passes < 0.4 * apart.passes
    assert together.rows < 1.1 * apart.rows


@each
def test_many_rows_are_searched_as_before_to_the_bit(attack, one_by_one, cnn, digits, seed):
    """In float32 too, as long as no two targets fit in one pass."""
    x, y = digits[0][:MANY], digits[1][:MANY]
    attack = replace(attack, ball=attack.ball.with_eps(attack.ball.eps / 4))
    together, apart = Asked(cnn), Asked(cnn)
    x_adv = attack(together, x, y, generator=seed(0))
    assert torch.equal(x_adv, one_by_one(attack, apart, x, y, seed(0)))
    assert (together.passes, together.rows) == (apart.passes, apart.rows)
    assert PASS_ROWS // 2 < standing(cnn, x_adv, y).sum() < standing(cnn, x, y).sum()


@each
def test_rows_do_not_notice_how_many_targets_share_their_pass(attack, one_by_one, exact, seed):
    """Of 200 rows, of 50 and of 9 another number goes together; the points are the same to 1e-9."""
    model, x, y = exact
    whole = attack(model, x, y, generator=seed(0))
    for size in (50, 9):
        parts = [attack(model, a, b, generator=seed(0)) for a, b in zip(x.split(size), y.split(size), strict=True)]
        assert torch.allclose(torch.cat(parts), whole, rtol=0, atol=1e-9)


def test_a_row_is_won_by_the_first_target_that_wins_it():
    """A later one that has won waits for the earlier; an earlier one that has won ends the later."""
    logits = torch.tensor([1.0, 0.0, 0.0]).expand(3, 3)
    found = LowestMargin(lambda x: logits, torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), Untargeted())
    for several, target in found.per_target(torch.tensor([[1, 2], [2, 1], [1, 2]])):
        assert target.tolist() == [1, 2, 1, 2, 1, 2]
        won = torch.tensor([0.0, 0.0, 2.0])
        several.update(torch.tensor([3]), torch.full((1, 2), 0.3), won[None])
        assert several.active_mask.tolist() == [True, True, True, False, True, True]
        several.update(torch.tensor([0, 1]), torch.full((2, 2), 0.1), (won / 1.5).expand(2, 3))
        assert several.active_mask.tolist() == [False, False, True, False, False, True]
        several.update(torch.tensor([5]), torch.full((1, 2), 0.5), torch.tensor([[0.5, 0.0, 0.0]]))
    assert found.x_adv[:, 0].tolist() == pytest.approx([0.1, 0.1, 0.5])
    assert found.active_rows.tolist() == [2]
