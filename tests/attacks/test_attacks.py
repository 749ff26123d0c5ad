"""What every evasion attack owes: feasible points, the same answer for a row in any batch, refusals at the door."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from aisec_lab.attacks import (
    APGD,
    DLR,
    FGSM,
    L0,
    L1,
    L2,
    MIFGSM,
    NES,
    PGD,
    AutoAttack,
    KullbackLeibler,
    Linf,
    LowPrecision,
    Square,
    TargetedAPGD,
)

BALLS = [Linf(0.1), L2(0.7), L1(1.5), L0(3)]
ATTACKS = {
    "FGSM": FGSM,
    "PGD": lambda ball: PGD(ball, steps=8, step_size=0.25, restarts=2),
    "PGD to the end": lambda ball: PGD(ball, steps=8, step_size=0.25, early_stop=False),
    "APGD-CE": lambda ball: APGD(ball, steps=12, restarts=2),
    "APGD-DLR": lambda ball: APGD(ball, steps=12, loss=DLR()),
    "APGD-T": lambda ball: TargetedAPGD(ball, steps=8, targets=3),
    "APGD-CE, larger balls first": lambda ball: APGD(ball, steps=12, larger_first=True),
    "Square": lambda ball: Square(ball, queries=40),
    "NES": lambda ball: NES(ball, queries=300, step_size=0.3),
    "MI-FGSM": MIFGSM,
    "MI-FGSM with diversity and kernel": lambda ball: MIFGSM(ball, diversity=0.5, kernel=3),
    "PGD in halves": lambda ball: LowPrecision(ball, partial(PGD, steps=8, step_size=0.25)),
    "AutoAttack": lambda ball: AutoAttack(ball, steps=5, targets=2, queries=20),
    "AutoAttack, quick": lambda ball: AutoAttack(ball, "quick", steps=5, targets=2),
}
ONLY = {"Square": {"Linf", "L2", "L1"}, "AutoAttack": {"Linf", "L2", "L1"}}
CASES = [
    pytest.param(make(ball), id=f"{name}-{ball.name}")
    for name, make in ATTACKS.items()
    for ball in BALLS
    if ball.name in ONLY.get(name, {ball.name})
]


def accuracy(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


@pytest.mark.parametrize("attack", CASES)
def test_points_are_feasible_and_the_model_is_left_alone(attack, cnn, sample, seed):
    """Inside ball and box, finite, shape of x; accuracy falls; x, the weights and their flags stay as they were."""
    x, y = sample
    before, weights = x.clone(), [p.detach().clone() for p in cnn.parameters()]
    x_adv = attack(cnn, x, y, generator=seed(0))
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    assert not x_adv.requires_grad
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (attack.ball.norm(x_adv - x) <= attack.ball.eps * (1 + 1e-6) + 1e-6).all()
    assert accuracy(cnn, x_adv, y) < accuracy(cnn, x, y) - 0.05
    assert torch.equal(x, before)
    assert all(torch.equal(p, w) for p, w in zip(cnn.parameters(), weights, strict=True))
    assert all(p.requires_grad and p.grad is None for p in cnn.parameters())


@pytest.mark.parametrize("attack", CASES)
def test_float64_rows_do_not_notice_their_batch(attack, linear, seed):
    """Another order and other batch sizes, on a linear model in float64: the same points to 1e-9."""
    x = torch.rand(30, 1, 4, 4, generator=seed(1), dtype=torch.float64)
    model = linear(16, classes=5)
    y = model(x).argmax(1)
    whole = attack(model, x, y, generator=seed(0))
    order = torch.randperm(30, generator=seed(2))
    shuffled = attack(model, x[order], y[order], generator=seed(0))
    parts = [attack(model, x[i : i + 7], y[i : i + 7], generator=seed(0)) for i in range(0, 30, 7)]
    assert torch.equal(whole, attack(model, x, y, generator=seed(0)))
    assert torch.allclose(shuffled, whole[order], rtol=0, atol=1e-9)
    assert torch.allclose(torch.cat(parts), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("attack", CASES)
def test_float32_outcomes_hardly_notice_their_batch(attack, cnn, sample, seed):
    """At most 0.5 % of the rows fall in one batch size and stand in another."""
    x, y = sample
    whole = attack(cnn, x, y, generator=seed(0))
    parts = torch.cat([attack(cnn, a, b, generator=seed(0)) for a, b in zip(x.split(33), y.split(33), strict=True)])
    with torch.no_grad():
        differ = (cnn(whole).argmax(1) == y) != (cnn(parts).argmax(1) == y)
    assert differ.double().mean() <= 0.005


@pytest.mark.parametrize("attack", [c for c in CASES if "FGSM" not in c.id and "end" not in c.id])
def test_rows_that_are_wrong_already_come_back_untouched(attack, cnn, sample, seed):
    """With every label off by one nearly all rows are won at once, and a batch may be won as a whole, or be empty."""
    x, y = sample
    wrong = cnn(x).argmax(1) != (y + 1) % 10
    x_adv = attack(cnn, x, (y + 1) % 10, generator=seed(0))
    assert wrong.double().mean() > 0.9
    assert torch.equal(x_adv[wrong], x[wrong])
    assert torch.equal(attack(cnn, x[wrong], ((y + 1) % 10)[wrong], generator=seed(0)), x[wrong])
    assert attack(cnn, x[:0], y[:0], generator=seed(0)).shape == x[:0].shape


class PartlyTraining(nn.Module):
    """In evaluation mode itself, with a part that is not."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout()
        self.train(False)
        self.dropout.train()


X, Y = torch.full((3, 1, 8, 8), 0.5), torch.tensor([0, 1, 2])
REFUSED = {
    "training mode": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), X, Y, "training mode.*model.eval"),
    "a part in training mode": (PartlyTraining, X, Y, "'dropout' is in training mode"),
    "normalised pixels": (None, 4 * X - 2.5, Y, r"pixels must lie in \[0, 1\], got \[-0.5, -0.5\]: .*Normalised"),
    "pixels just outside": (None, X + 0.5 + 2e-6, Y, "pixels must lie"),
    "NaN": (None, X / 0 * 0, Y, "NaN"),
    "bytes": (None, (X * 255).to(torch.uint8), Y, "divide bytes by 255"),
    "a class too high": (None, X, Y + 8, r"0..9, the model's, got 10"),
    "a negative class": (None, X, Y - 1, "negative, got -1"),
    "float classes": (None, X, Y.float(), "int64 of shape"),
    "too few classes": (None, X, Y[:2], "3 rows and 2 classes"),
    "logits that are NaN": (lambda: Constant(torch.nan).eval(), X, Y, "logits are NaN"),
}


class Constant(nn.Module):
    """The same logits for all."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.full((10,), float(value)))

    def forward(self, x):
        return self.value + 0 * x.flatten(1)[:, :1]


@pytest.mark.parametrize("make", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize(("model", "x", "y", "message"), REFUSED.values(), ids=REFUSED)
def test_the_door_refuses_what_would_be_silently_wrong(make, model, x, y, message, cnn, seed):
    """With what was given and, where there is one, the mend."""
    with pytest.raises(ValueError, match=message):
        make(Linf(0.1))(model() if model else cnn, x, y, generator=seed(0))


class Brittle(nn.Module):
    """Answers with NaN wherever a pixel is not the one it was."""

    def __init__(self, model, x):
        super().__init__()
        self.model, self.x = model, x
        self.train(False)

    def forward(self, z):
        known = (z.flatten(1)[:, None] == self.x.flatten(1)).all(2).any(1)
        return self.model(z) + (0 / known.float())[:, None]


@pytest.mark.parametrize("make", [make for name, make in ATTACKS.items() if name != "FGSM"])
def test_a_model_that_breaks_down_under_attack_is_no_robust_one(make, cnn, sample, seed):
    """NaN at the clean rows is not the only one there is; FGSM looks at no other point."""
    right = cnn(sample[0]).argmax(1) == sample[1]
    x, y = sample[0][right], sample[1][right]
    with pytest.raises(ValueError, match="logits are NaN"):
        make(Linf(0.1))(Brittle(cnn, x), x, y, generator=seed(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: PGD(Linf(0.1), steps=0),
        lambda: PGD(Linf(0.1), step_size=0),
        lambda: PGD(Linf(0.1), step_size=math.nan),
        lambda: PGD(Linf(0.1), restarts=0),
        lambda: APGD(Linf(0.1), steps=0),
        lambda: TargetedAPGD(Linf(0.1), targets=0),
        lambda: Square(Linf(0.1), queries=1),
        lambda: Square(Linf(0.1), p=0),
    ],
)
def test_impossible_settings_are_refused(make):
    """When the attack is made, not when it runs."""
    with pytest.raises(ValueError, match="must be"):
        make()


def test_probabilities_in_place_of_classes_need_all_steps(cnn, sample, seed):
    """There is no margin against probabilities, so nothing to stop at."""
    x, _y = sample
    with pytest.raises(ValueError, match="int64"):
        PGD(Linf(0.1), loss=KullbackLeibler())(cnn, x, cnn(x).detach().softmax(1), generator=seed(0))
