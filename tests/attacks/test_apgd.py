"""Auto-PGD: the schedule of the paper, and strength."""

import pytest
import torch

from aisec_lab.attacks import APGD, DLR, L1, L2, PGD, Linf, Targeted, TargetedAPGD, TargetedMargin
from aisec_lab.attacks.evasion.climb import Climb, checkpoints


def survivors(attack, model, sample, generator):
    x, y = sample
    with torch.no_grad():
        return int((model(attack(model, x, y, generator=generator)).argmax(1) == y).sum())


def test_checkpoints_are_those_of_the_paper():
    """p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06), w_j = ceil(p_j N)."""
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(50) == [0, 11, 21, 29, 35, 40, 44, 47, 50]
    assert checkpoints(1) == [0, 1]


def test_step_halves_and_goes_back_to_the_best_where_the_loss_hardly_rose():
    """Row 0 rose in all four steps, row 1 in two of four, row 2 in three of four but not beyond its best."""
    zero = torch.zeros(3, 1)
    climb = Climb.begin(torch.arange(3), zero, zero, torch.tensor([0.0, 0.0, 9.0]), eta=2.0)
    for f in ([1.0, 5.0, 1.0], [2.0, 4.0, 2.0], [3.0, 3.0, 3.0], [4.0, 4.5, 4.0]):
        climb.move(torch.tensor(f)[:, None], -torch.tensor(f)[:, None], torch.tensor(f))
    climb.check(4)
    assert climb.eta.tolist() == [2, 1, 1]
    assert climb.delta.squeeze(1).tolist() == [4, 5, 0]
    assert climb.f.tolist() == [4, 5, 9]
    assert climb.grad.squeeze(1).tolist() == [-4, -5, 0]
    climb.check(0)  # nothing asked of the rises: halved only where neither eta nor the best has changed since
    assert climb.eta.tolist() == [1, 1, 1]


@pytest.mark.parametrize("ball", [Linf(0.06), Linf(0.12), L2(0.5), L1(1.0)], ids=repr)
def test_apgd_is_as_strong_as_pgd_at_equal_steps(ball, cnn, sample, seed):
    """Rows that survive, within 1 % of the sample; over nine targets no more than untargeted."""
    pgd = survivors(PGD(ball, steps=30), cnn, sample, seed(0))
    untargeted = survivors(APGD(ball, steps=30), cnn, sample, seed(0))
    targeted = survivors(TargetedAPGD(ball, steps=30), cnn, sample, seed(0))
    assert untargeted <= pgd + 2
    assert targeted <= untargeted + 2


def test_more_restarts_and_targets_never_do_worse(cnn, sample, seed):
    """The rows won so far are not touched again."""
    ball = Linf(0.08)
    by_restarts = [survivors(APGD(ball, 10, n, DLR()), cnn, sample, seed(0)) for n in (1, 2, 3)]
    by_targets = [survivors(TargetedAPGD(ball, 10, n), cnn, sample, seed(0)) for n in (1, 3, 9, 99)]
    assert by_restarts == sorted(by_restarts, reverse=True)
    assert by_targets == sorted(by_targets, reverse=True)
    assert by_targets[-1] == by_targets[-2]


def test_targeted_goal_reaches_its_target(cnn, sample, seed):
    """Any other class does not count."""
    x, y = sample
    target = (y + 3) % 10
    x_adv = APGD(Linf(0.35), steps=30, goal=Targeted())(cnn, x, target, generator=seed(0))
    assert (cnn(x_adv).argmax(1) == target).double().mean() > 0.95


def test_two_classes_are_told_which_loss_to_take(linear, seed):
    """The ratio losses need more classes; the margin losses do not."""
    model, x = linear(12, classes=2), torch.full((2, 12), 0.5, dtype=torch.float64)
    y = model(x).argmax(1)
    with pytest.raises(ValueError, match="use Margin"):
        APGD(Linf(0.1), loss=DLR())(model, x, y, generator=seed(0))
    with pytest.raises(ValueError, match="use TargetedMargin"):
        TargetedAPGD(Linf(0.1))(model, x, y, generator=seed(0))
    TargetedAPGD(Linf(0.1), loss=TargetedMargin())(model, x, y, generator=seed(0))
