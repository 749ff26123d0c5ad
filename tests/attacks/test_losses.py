"""Goals and losses: signs, invariances, class counts, and outputs with -inf."""

import math

import pytest
import torch

from aisec_lab.attacks import (
    DLR,
    CrossEntropy,
    KullbackLeibler,
    Margin,
    Targeted,
    TargetedDLR,
    TargetedMargin,
    Untargeted,
)

LOGITS = torch.tensor([[3.0, 1.0, 0.0, -2.0], [0.0, 5.0, 4.0, 1.0]], dtype=torch.float64)
Y = torch.tensor([0, 2])  # row 0 is right by 2, row 1 is wrong by 1


def test_margins_are_negative_exactly_when_the_attacker_has_won():
    """Untargeted: once y lost the lead. Targeted: once y has it."""
    assert Untargeted().margin(LOGITS, Y).tolist() == [2, -1]
    assert Targeted().margin(LOGITS, Y).tolist() == [-2, 1]
    assert (Untargeted().sign, Targeted().sign) == (1, -1)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (CrossEntropy(), [math.log(1 + math.exp(-2) + math.exp(-3) + math.exp(-5)), None]),
        (Margin(), [-2, 1]),
        (DLR(), [-2 / 3, 1 / 4]),
    ],
    ids=repr,
)
def test_losses_have_their_closed_form_and_rise_as_the_true_class_falls(loss, expected):
    """Values by hand; a lower logit of the true class raises the loss."""
    value = loss(LOGITS, Y)
    for got, wanted in zip(value.tolist(), expected, strict=True):
        assert wanted is None or got == pytest.approx(wanted, abs=1e-9)
    lowered = LOGITS.scatter_add(1, Y[:, None], torch.full((2, 1), -0.1, dtype=torch.float64))
    assert (loss(lowered, Y) > value).all()


def test_targeted_losses_push_from_the_true_class_to_the_target():
    """z_t - z_y, and the same over (z_1st - (z_3rd + z_4th) / 2)."""
    target = torch.tensor([1, 1])
    assert TargetedMargin()(LOGITS, Y, target).tolist() == [-2, 1]
    assert TargetedDLR()(LOGITS, Y, target).tolist() == pytest.approx([-2 / 4, 1 / 4.5])


@pytest.mark.parametrize("loss", [DLR(), lambda z, y: TargetedDLR()(z, y, (y + 1) % 4)], ids=["DLR", "TargetedDLR"])
def test_ratios_ignore_shift_and_scale(loss):
    """What makes DLR immune to a model that is very sure of itself."""
    assert torch.allclose(loss(100 * LOGITS - 7, Y), loss(LOGITS, Y))


def test_divergence_is_that_of_the_textbook():
    """Sum of p (log p - log q), zero at q = p, zero probabilities included."""
    p = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    q = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64)
    assert KullbackLeibler()(q.log(), p).item() == pytest.approx(math.log(2))
    assert KullbackLeibler()(p.log(), p).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("loss", "classes", "instead"),
    [(DLR(), 2, "Margin"), (lambda z, y: TargetedDLR()(z, y, y), 3, "TargetedMargin")],
    ids=["DLR", "TargetedDLR"],
)
def test_too_few_classes_are_refused_with_the_loss_to_take(loss, classes, instead):
    """The ratio's denominator needs a third, or a fourth, logit."""
    with pytest.raises(ValueError, match=f"at least {classes + 1} classes, the model has {classes}: use {instead}"):
        loss(LOGITS[:, :classes], torch.tensor([0, 1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", [CrossEntropy(), Margin(), DLR(), KullbackLeibler()], ids=repr)
def test_logits_of_minus_infinity_do_no_harm(loss, dtype):
    """The logarithm of probabilities rounded to 0, of the true class or another: finite losses and gradients."""
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]], dtype=dtype).log().requires_grad_()
    y = torch.tensor([0, 1, 1])
    if isinstance(loss, KullbackLeibler):
        y = torch.eye(3, dtype=dtype)[y]
    losses = loss(logits, y)
    (grad,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.isfinite().all()
    assert grad.isfinite().all()
    assert not Untargeted().margin(logits, torch.tensor([0, 1, 1])).isnan().any()
