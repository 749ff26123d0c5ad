"""Black-box and transfer attacks against the field's reference libraries, at equal queries on the same rows."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from aisec_lab.attacks import L2, MIFGSM, Boundary, HopSkipJump, Linf, Oracle

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import foolbox
    import torchattacks
    from art.attacks import evasion as art
    from art.estimators.classification import PyTorchClassifier
    from foolbox.attacks import BoundaryAttack, HopSkipJumpAttack

ROWS = 20


class Single(nn.Module):
    """ART's line search asks in float64 under NumPy 2."""

    def __init__(self, oracle):
        super().__init__()
        self.oracle = oracle
        self.eval()

    def forward(self, x):
        return self.oracle(x.float())


@pytest.fixture
def right(cnn, sample):
    """Held-out rows that the model gets right."""
    x, y = sample
    rows = (cnn(x).argmax(1) == y).nonzero()[:ROWS, 0]
    return x[rows], y[rows]


def by_art(attack, **settings):
    def run(oracle, x, y):
        model = PyTorchClassifier(
            Single(oracle), nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
        )
        np.random.seed(0)
        x_adv = attack(model, targeted=False, verbose=False, **settings).generate(x.numpy(), y.numpy())
        return torch.from_numpy(x_adv)

    return run


def by_foolbox(attack):
    def run(oracle, x, y):
        np.random.seed(0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return attack.run(foolbox.PyTorchModel(oracle, bounds=(0, 1), device="cpu"), x, y)

    return run


PEERS = {
    "HopSkipJump-L2-ART": (HopSkipJump(L2(0)), by_art(art.HopSkipJump, norm=2, max_iter=8)),
    "HopSkipJump-Linf-ART": (HopSkipJump(Linf(0)), by_art(art.HopSkipJump, norm=np.inf, max_iter=8)),
    "HopSkipJump-L2-foolbox": (HopSkipJump(L2(0)), by_foolbox(HopSkipJumpAttack(steps=8))),
    "HopSkipJump-Linf-foolbox": (HopSkipJump(Linf(0)), by_foolbox(HopSkipJumpAttack(steps=8, constraint="linf"))),
    "Boundary-ART": (Boundary(), by_art(art.BoundaryAttack, max_iter=20)),
    "Boundary-foolbox": (Boundary(), by_foolbox(BoundaryAttack(steps=1500))),
}


@pytest.mark.parametrize(("attack", "peer"), PEERS.values(), ids=PEERS)
def test_medians_are_not_above_the_peers_at_equal_queries(attack, peer, cnn, right, seed):
    """By more than a tenth; the queries are counted, as many a row as the peer took on average."""
    x, y = right
    oracle = Oracle(cnn)
    theirs = attack.ball.size(peer(oracle, x, y) - x).median()
    ours = type(attack)(attack.ball, oracle.queries // ROWS)(cnn, x, y, generator=seed(0))
    assert theirs < torch.inf
    assert ours.distance.median() <= 1.1 * theirs


def test_mi_fgsm_takes_the_steps_of_torchattacks(cnn, right, seed):
    """The same points, but for pixels whose gradient is so small that rounding decides about its sign."""
    x, y = right
    theirs = torchattacks.MIFGSM(cnn, eps=0.1, alpha=0.01, steps=10, decay=1.0)(x, y)
    ours = MIFGSM(Linf(0.1), steps=10, step_size=0.1)(cnn, x, y, generator=seed(0))
    assert ((ours - theirs).abs() < 1e-6).double().mean() > 0.995
