"""A search in bfloat16, and what must not be believed of it."""

from functools import partial

import pytest
import torch
from torch import nn

from aisec_lab.attacks import APGD, L2, PGD, AutoAttack, Linf, LowPrecision, Targeted
from aisec_lab.attacks.evasion.low_precision import BF16Model
from aisec_lab.models import PassCounter

BALL = Linf(0.1)


class Liar(nn.Module):
    """A model that answers one class too high wherever it is asked in bfloat16."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, x):
        logits = self.model(x)
        return logits.roll(1, 1) if torch.is_autocast_enabled("cpu") else logits


def right(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) == y


def test_it_really_searches_in_bfloat16(cnn, sample):
    """Logits come back in float32, near the model's by the 8 bits of bfloat16, and not equal to them."""
    x = sample[0][:50]
    with torch.no_grad():
        exact, rounded = cnn(x), BF16Model(cnn)(x)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded.bfloat16().float(), rounded)
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, rtol=0, atol=2**-6 * float(exact.abs().max()))


@pytest.mark.parametrize("make", [partial(PGD, steps=20), partial(APGD, steps=20)], ids=["PGD", "APGD"])
def test_a_success_that_is_none_is_attacked_again_in_float32(make, cnn, sample, seed):
    """To bfloat16 every row is won as it is; what comes back is what the attack does to the model itself."""
    x, y = sample
    rows = right(cnn, x, y)
    x_adv = LowPrecision(BALL, make)(Liar(cnn), x[rows], y[rows], generator=seed(0))
    fell = ~right(cnn, x_adv, y[rows])
    generator = seed(0)  # of which the search in bfloat16 has had its share
    make(BALL)(BF16Model(Liar(cnn)), x[rows], y[rows], generator=generator)
    alone = make(BALL)(cnn, x[rows], y[rows], generator=generator)
    assert fell.double().mean() > 0.3
    assert torch.equal(x_adv, alone)


@pytest.mark.parametrize("ball", [BALL, L2(0.5)], ids=repr)
def test_it_breaks_as_many_rows_as_float32(ball, cnn, sample, seed):
    """Within one row of 200 in each direction, and every claim is of the model itself."""
    x, y = sample
    half, whole = (
        attack(cnn, x, y, generator=seed(0))
        for attack in (LowPrecision(ball, partial(AutoAttack, version="quick")), AutoAttack(ball, "quick"))
    )
    assert abs(int(right(cnn, half, y).sum()) - int(right(cnn, whole, y).sum())) <= 1


def test_the_goal_of_the_attack_says_what_a_success_is(cnn, sample, seed):
    """Towards class 3: rows that reach it, as many as in float32 but for one or two."""
    x, target = sample[0], torch.full((200,), 3)
    make = partial(PGD, steps=20, goal=Targeted())
    half, whole = (attack(cnn, x, target, generator=seed(0)) for attack in (LowPrecision(BALL, make), make(BALL)))
    assert abs(int(right(cnn, half, target).sum()) - int(right(cnn, whole, target).sum())) <= 2


def test_passes_of_both_kinds_are_counted(cnn, sample, seed):
    """The search's own, and for each row the two that compare."""
    x, y = sample[0][:10], sample[1][:10]
    alone, counted = PassCounter(cnn), PassCounter(cnn)
    PGD(BALL, steps=3)(BF16Model(alone), x, y, generator=seed(0))
    LowPrecision(BALL, partial(PGD, steps=3))(counted, x, y, generator=seed(0))
    assert counted.forward_passes >= alone.forward_passes + 20


def test_what_the_attack_refuses_is_refused_at_once():
    """A wrong setting, before any model is there."""
    with pytest.raises(ValueError, match="must be positive"):
        LowPrecision(BALL, partial(PGD, steps=0))
