"""Auto-PGD: the schedule of the paper, and strength."""

import pytest
import torch

from aisec_lab.attacks import APGD, DLR, L1, L2, PGD, Linf, Targeted, TargetedAPGD, TargetedMargin
from aisec_lab.attacks.evasion.gradient.apgd import APGDState, checkpoints
from aisec_lab.attacks.evasion.gradient.apgd_l1 import L1APGDState
from aisec_lab.models import PassCounter


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
    state = APGDState.begin(torch.arange(3), zero, zero, torch.tensor([0.0, 0.0, 9.0]), eps=1.0)
    for f in ([1.0, 5.0, 1.0], [2.0, 4.0, 2.0], [3.0, 3.0, 3.0], [4.0, 4.5, 4.0]):
        state.update(torch.tensor(f)[:, None], -torch.tensor(f)[:, None], torch.tensor(f))
    state.update_step_size(4)
    assert state.eta.tolist() == [2, 1, 1]
    assert state.delta.squeeze(1).tolist() == [4, 5, 0]
    assert state.f.tolist() == [4, 5, 9]
    assert state.grad.squeeze(1).tolist() == [-4, -5, 0]
    state.update_step_size(
        0
    )  # nothing asked of the rises: halved only where neither eta nor the best has changed since
    assert state.eta.tolist() == [1, 1, 1]


def sparse_state(grad, delta, eps=0.3):
    return L1APGDState.begin(torch.arange(len(grad)), delta, grad, torch.zeros(len(grad)), eps)


def test_a_step_in_l1_goes_along_the_steepest_coordinates_that_can_move():
    """Two of ten, in the shares of their slopes; one that stands at a face is held there, and does not count."""
    x, grad = torch.full((2, 10), 0.5), torch.arange(10.0, 0, -1).repeat(2, 1)
    x[1, 0] = 0.9
    delta = torch.zeros_like(x)
    delta[1, 0] = 0.1  # at its face
    state = sparse_state(grad, delta)
    z = state.step(L1(0.3), x, first=True)
    assert z[0].tolist() == pytest.approx([0.3 * 10 / 19, 0.3 * 9 / 19] + [0] * 8)
    # row 1: 0.1 is held; of 0.3 / 17 * (9, 8) on top the projection takes so much off each that 0.2 is left
    excess = 0.3 * 9 / 17 + 0.3 * 8 / 17 - 0.2
    assert z[1].tolist() == pytest.approx(
        [0.1, 0.3 * 9 / 17 - excess / 2, 0.3 * 8 / 17 - excess / 2] + [0] * 7, abs=1e-6
    )
    assert L1(0.3).norm(z).tolist() == pytest.approx([0.3, 0.3])


def test_the_step_in_l1_gets_sparser_with_the_best_point():
    """A sparser best point brings back the first eta, another one a smaller."""
    state = sparse_state(torch.ones(2, 40), torch.ones(2, 40))
    assert state.sparsity.tolist() == [8, 8]
    best = torch.zeros(2, 40)
    best[0, :12], best[1, :39] = 1, 1
    state.update(best, torch.full((2, 40), 5.0), torch.ones(2))
    state.update(torch.ones(2, 40), torch.ones(2, 40), torch.zeros(2))
    state.update_step_size(1)
    assert state.sparsity.tolist() == [8, 26]
    assert state.eta.tolist() == pytest.approx([0.3, 0.2])
    assert torch.equal(state.delta[0], best[0])
    assert (state.grad[0] == 5).all()
    assert (state.delta[1] == 1).all()
    for _ in range(9):
        state.update_step_size(1)
    assert state.eta.tolist() == pytest.approx([0.03, 0.03])


@pytest.mark.parametrize("steps", [1, 3, 10, 25, 100])
def test_larger_balls_first_take_no_more_passes_and_end_in_their_own(steps, cnn, sample, seed):
    """Three tenths of the steps in each of two larger ones; a point found there counts only in its own ball."""
    right = cnn(sample[0][:20]).argmax(1) == sample[1][:20]
    x, y = sample[0][:20][right], sample[1][:20][right]
    counted = PassCounter(cnn)
    x_adv = APGD(L1(0.01), steps, larger_first=True)(counted, x, y, generator=seed(0))  # no row is won
    assert (L1(0).norm(x_adv - x) <= 0.01 + 1e-6).all()
    starts = 3 if steps >= 4 else 1
    assert counted.forward_passes == (1 + steps + starts) * len(x)


def test_larger_balls_first_are_stronger_in_l1(cnn, sample, seed):
    """Summed over seeds, at equal steps (table 2 of the paper)."""
    left = {
        larger: sum(survivors(APGD(L1(0.8), 40, larger_first=larger), cnn, sample, seed(s)) for s in range(3))
        for larger in (False, True)
    }
    assert left[True] <= left[False]


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
