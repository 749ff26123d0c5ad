"""Networks trained together or in parallel: each comes out as it would alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models import CNN, MLP, Fit, logits_of
from aisec_lab.models.training.fit_stack import ModelStack, fit_stack
from aisec_lab.models.training.parallel import fit_in_parallel

ARCHITECTURE = MLP(hidden=(12, 8))
FIT = Fit(epochs=4, batch_size=16, learning_rate=0.01)


def seed(number):
    return torch.Generator().manual_seed(number)


def seeds(first, count):
    return [seed(first + k) for k in range(count)]


@pytest.fixture(scope="module")
def rows():
    """Three classes of 4x5 images that a network can tell apart."""
    x = torch.rand(120, 1, 4, 5, generator=seed(0))
    return Dataset(x, (3 * x[:, 0, 0, 0]).long().clamp(max=2), ("low", "middle", "high"), "images")


@pytest.fixture(scope="module")
def included():
    """Of five members, one of whom has a batch's worth of rows more than another."""
    coins = torch.rand(5, 120, generator=seed(1)) < 0.5
    coins[0, :40] = False
    return coins


def distance(a, b):
    return max(float((p - q).detach().abs().max()) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_members_begin_with_the_weights_that_they_would_draw_alone(rows):
    stack = ModelStack(ARCHITECTURE, rows.shape, 3, seeds(10, 3))
    for k in range(3):
        assert distance(stack.unstacked(k), ARCHITECTURE(rows.shape, 3, generator=seed(10 + k))) == 0


def test_the_stack_answers_as_its_members_do(rows):
    """The same rows for all, and rows of each one's own; a member taken out is a classifier in evaluation mode."""
    stack = ModelStack(ARCHITECTURE, rows.shape, 3, seeds(10, 3)).double()
    members = [stack.unstacked(k).double() for k in range(3)]
    x = rows.x.double()
    together = stack.logits(x)
    own = stack(x.view(3, 40, *rows.shape))
    for k, member in enumerate(members):
        assert not member.training
        assert torch.allclose(together[k], logits_of(member, x))
        assert torch.allclose(own[k], member(x[40 * k : 40 * (k + 1)]))


@pytest.mark.parametrize("fit", [FIT, replace(FIT, momentum=0.9, learning_rate=0.05)], ids=["adamw", "sgd"])
def test_a_member_learns_what_it_would_learn_alone(fit, rows, included):
    """Same weights as `Fit` up to float, though members make different numbers of steps; and it does learn."""
    assert len({fit.steps_an_epoch(int(own.sum())) for own in included}) > 1
    stack = ModelStack(ARCHITECTURE, rows.shape, 3, seeds(10, 5))
    loss = fit_stack(stack, rows, included, fit=fit, generators=seeds(20, 5))
    for k in range(5):
        alone = ARCHITECTURE(rows.shape, 3, generator=seed(10 + k))
        before = ARCHITECTURE(rows.shape, 3, generator=seed(10 + k))
        history = fit(alone, rows.subset(included[k].nonzero()[:, 0]), Standard(), generator=seed(20 + k))
        assert distance(stack.unstacked(k), alone) < 2e-5
        assert distance(alone, before) > 0.02
        assert loss[k] < history[0]["loss"]
    assert not stack.training


def test_a_member_does_not_depend_on_its_neighbours(rows, included):
    """In a stack of one and of five, and with other rows beside it."""
    outcomes = []
    for chosen in ([2], [0, 1, 2, 3, 4], [2, 0]):
        stack = ModelStack(ARCHITECTURE, rows.shape, 3, [seed(10 + k) for k in chosen])
        generators = [seed(20 + k) for k in chosen]
        fit_stack(stack, rows, included[chosen], fit=FIT, generators=generators)
        outcomes.append(stack.unstacked(chosen.index(2)))
    assert distance(outcomes[0], outcomes[1]) < 2e-5
    assert distance(outcomes[0], outcomes[2]) < 2e-5


def test_rows_that_are_not_included_leave_no_trace(rows, included):
    """Their inputs and classes may change at will."""
    outcomes = []
    for change in (False, True):
        stack = ModelStack(ARCHITECTURE, rows.shape, 3, seeds(10, 1))
        x, y, out = rows.x.clone(), rows.y.clone(), ~included[0]
        if change:
            x[out], y[out] = 1 - x[out], 2 - y[out]
        fit_stack(stack, replace(rows, x=x, y=y), included[:1], fit=FIT, generators=seeds(20, 1))
        outcomes.append(stack.unstacked(0))
    assert distance(*outcomes) == 0


def test_what_does_not_fit_is_refused(rows, included):
    stack = ModelStack(ARCHITECTURE, rows.shape, 3, seeds(10, 5))
    with pytest.raises(ValueError, match=r"must be bool \(5, 120\), members by rows, got torch.float32 \(5, 120\)"):
        fit_stack(stack, rows, included.float(), fit=FIT, generators=seeds(20, 5))
    with pytest.raises(ValueError, match="5 members and 2 generators"):
        fit_stack(stack, rows, included, fit=FIT, generators=seeds(20, 2))
    lonely = included.clone()
    lonely[3] = False
    with pytest.raises(ValueError, match="member 3 has no row"):
        fit_stack(stack, rows, lonely, fit=FIT, generators=seeds(20, 5))
    with pytest.raises(ValueError, match="at least one member"):
        ModelStack(ARCHITECTURE, rows.shape, 3, [])


def test_a_loss_that_is_not_finite_names_the_member(rows, included):
    stack = ModelStack(ARCHITECTURE, rows.shape, 3, seeds(10, 5))
    nn.init.constant_(stack.weights[0][4], torch.nan)
    with pytest.raises(FloatingPointError, match=r"member 4 became nan in step 0: lower fit\.learning_rate"):
        fit_stack(stack, rows, included, fit=FIT, generators=seeds(20, 5))


def test_processes_give_the_same_bits_whatever_their_number(included):
    """Three CNNs in this process on one thread, and in two others; each as `Fit` makes it."""
    x = torch.rand(120, 1, 8, 8, generator=seed(0))
    rows = Dataset(x, (x[:, 0, 0, 0] > 0.5).long(), ("low", "high"), "images")
    architecture, fit = CNN(width=4, hidden=8), Fit(epochs=2, batch_size=32)
    runs = [
        fit_in_parallel(architecture, rows, included[:3], Standard(), fit=fit, seeds=[5, 6, 7], workers=workers)
        for workers in (1, 2)
    ]
    for k in range(3):
        generator = seed(5 + k)
        alone = architecture(rows.shape, 2, generator=generator)
        fit(alone, rows.subset(included[k].nonzero()[:, 0]), Standard(), generator=generator)
        assert distance(runs[0][k], alone) == distance(runs[1][k], alone) == 0
        assert not runs[1][k].training


def test_what_processes_cannot_do_is_refused(included):
    rows = Dataset(torch.rand(120, 3), torch.zeros(120, dtype=torch.int64), ("only",), "table")
    with pytest.raises(ValueError, match="at least one worker, got 0"):
        fit_in_parallel(MLP(), rows, included[:2], Standard(), fit=FIT, seeds=[0, 1], workers=0)
    with pytest.raises(ValueError, match=r"bool \(3, 120\), seeds by rows"):
        fit_in_parallel(MLP(), rows, included[:2], Standard(), fit=FIT, seeds=[0, 1, 2])
