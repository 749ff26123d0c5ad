"""Never weaker than the reference libraries: at equal model, rows, ball, steps, step sizes and random starts."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, FastGradientMethod, SquareAttack
from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
    ProjectedGradientDescentPyTorch,
)
from foolbox import attacks as foolbox
from torch import Tensor

from aisec_lab.attacks import APGD, DLR, FGSM, L0, L1, L2, PGD, Attack, Linf, Square, TargetedAPGD
from benchmarks.peers import Peer, of_art, of_foolbox, of_torchattacks

pytestmark = pytest.mark.xdist_group("parity")  # the networks are trained once

POINT = 0.01
REPEATS = 3  # starts whose mean is compared; from one start to the next a rate varies by up to a point
STEPS, STEP_SIZE = 20, 0.1  # of PGD; in units of eps
CLIMB = 30  # steps of APGD; its first step is 2 eps, which ART has to be told
TARGETS = 3
PROPOSALS = 100  # of Square, after a look at the clean row and one at the start, which only our budget counts
LINF, EUCLIDEAN, SUM, COUNT = Linf(0.08), L2(0.5), L1(1.2), L0(2)  # neither network is broken altogether, or hardly


class Pair(NamedTuple):
    ours: Attack
    theirs: Peer


def art_pgd(ball: Any) -> Peer:
    settings = {"eps_step": STEP_SIZE * ball.eps, "max_iter": STEPS, "num_random_init": 1, "verbose": False}
    return of_art(ProjectedGradientDescentPyTorch, ball, **settings)


def art_apgd(ball: Any) -> Peer:
    settings = {"eps_step": 2 * ball.eps, "max_iter": CLIMB, "nb_random_init": 1, "verbose": False}
    return of_art(AutoProjectedGradientDescent, ball, **settings)


FOOLBOX = {  # one step, and many
    LINF: (foolbox.LinfFastGradientAttack, foolbox.LinfProjectedGradientDescentAttack),
    EUCLIDEAN: (foolbox.L2FastGradientAttack, foolbox.L2ProjectedGradientDescentAttack),
    SUM: (foolbox.L1FastGradientAttack, foolbox.L1ProjectedGradientDescentAttack),
}
PAIRS = {}
for ball, (once, often) in FOOLBOX.items():
    fgsm, pgd = FGSM(ball), PGD(ball, STEPS, STEP_SIZE)
    PAIRS |= {
        f"FGSM-{ball.name}-foolbox": Pair(fgsm, of_foolbox(once(), ball)),
        f"FGSM-{ball.name}-ART": Pair(fgsm, of_art(FastGradientMethod, ball)),
        f"PGD-{ball.name}-foolbox": Pair(pgd, of_foolbox(often(rel_stepsize=STEP_SIZE, steps=STEPS), ball)),
        f"PGD-{ball.name}-ART": Pair(pgd, art_pgd(ball)),
        f"APGD-{ball.name}-ART": Pair(APGD(ball, CLIMB), art_apgd(ball)),
    }
for ball in (LINF, EUCLIDEAN):
    settings = {"norm": ball.name, "steps": CLIMB}
    PAIRS |= {
        f"APGD-{ball.name}-torchattacks": Pair(APGD(ball, CLIMB), of_torchattacks("APGD", ball, **settings)),
        f"APGD-DLR-{ball.name}-torchattacks": Pair(
            APGD(ball, CLIMB, loss=DLR()), of_torchattacks("APGD", ball, loss="dlr", **settings)
        ),
        f"APGD-T-{ball.name}-torchattacks": Pair(
            TargetedAPGD(ball, CLIMB, TARGETS), of_torchattacks("APGDT", ball, n_classes=TARGETS + 1, **settings)
        ),
        f"Square-{ball.name}-torchattacks": Pair(
            Square(ball, PROPOSALS + 2), of_torchattacks("Square", ball, norm=ball.name, n_queries=PROPOSALS)
        ),
    }
PAIRS |= {
    "FGSM-Linf-torchattacks": Pair(FGSM(LINF), of_torchattacks("FGSM", LINF)),
    "PGD-Linf-torchattacks": Pair(
        PGD(LINF, STEPS, STEP_SIZE), of_torchattacks("PGD", LINF, alpha=STEP_SIZE * LINF.eps, steps=STEPS)
    ),
    # both from x: torchattacks draws the radius uniformly, not the point, and after 20 steps that start still tells
    "PGD-L2-torchattacks": Pair(
        PGD(EUCLIDEAN, STEPS, STEP_SIZE, random_start=False),
        of_torchattacks("PGDL2", EUCLIDEAN, alpha=STEP_SIZE * EUCLIDEAN.eps, steps=STEPS, random_start=False),
    ),
    # not in L2: ART's tiles are the fifth of a side wide, and on 8 pixels a tile of 1 is 0 / 0 there
    "Square-Linf-ART": Pair(Square(LINF, PROPOSALS + 2), of_art(SquareAttack, LINF, max_iter=PROPOSALS, verbose=False)),
    "PGD-L1-foolbox sparse": Pair(
        PGD(SUM, STEPS, STEP_SIZE),
        of_foolbox(foolbox.SparseL1DescentAttack(rel_stepsize=STEP_SIZE, steps=STEPS, random_start=True), SUM),
    ),
    "PGD-L0-foolbox": Pair(PGD(COUNT, STEPS, STEP_SIZE), of_foolbox(foolbox.L0FMNAttack(steps=STEPS), COUNT)),
}


@pytest.fixture(scope="module")
def standing(models, sample) -> Callable[..., float]:
    """The share of rows, over all repeats, that a network still gets right; points out of ball or box do not count."""

    def share(name: str, ball: Any, attack: Callable[[torch.nn.Module, Tensor, Tensor, int], Tensor]) -> float:
        model, x, y = models[name], sample.x, sample.y
        right = 0
        for seed in range(REPEATS):
            x_adv = attack(model, x, y, seed)
            assert x_adv.min() >= 0
            assert x_adv.max() <= 1
            assert (ball.norm(x_adv - x) <= ball.eps * (1 + 1e-5)).all()
            with torch.no_grad():
                right += int((model(x_adv).argmax(1) == y).sum())
        return right / (REPEATS * len(y))

    return share


@pytest.fixture(scope="module")
def ours(standing) -> Callable[[str, Any], float]:
    """What is left standing by an attack of ours, which several peers are compared with."""

    @cache
    def share(name: str, attack: Any) -> float:
        return standing(
            name,
            attack.ball,
            lambda model, x, y, seed: attack(model, x, y, generator=torch.Generator().manual_seed(seed)),
        )

    return share


@pytest.mark.parametrize("name", ["plain", "adversarial"])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_ours_leaves_no_more_standing_than_theirs(pair, name, models, sample, standing, ours):
    """Within one point; where the peer breaks hardly anything, or nearly all, nothing would have been compared."""
    with torch.no_grad():
        clean = (models[name](sample.x).argmax(1) == sample.y).double().mean().item()
    theirs = standing(name, pair.ours.ball, pair.theirs)
    assert 0.05 < theirs < clean - 0.05
    assert ours(name, pair.ours) <= theirs + POINT


def test_the_peers_leave_the_global_generators_alone(models, sample):
    """Each of them draws from, or seeds, what belongs to the whole process."""
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for theirs in (PAIRS["APGD-Linf-torchattacks"], PAIRS["PGD-Linf-foolbox"], PAIRS["PGD-Linf-ART"]):
        theirs.theirs(models["plain"], sample.x[:5], sample.y[:5], 3)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
