"""Minimum-norm attacks against foolbox: medians at equal steps, on the same rows of the same networks."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aisec_lab.attacks import DDN, EAD, FMN, L0, L1, L2, PGD, BrendelBethge, Linf
from aisec_lab.data import Dataset
from aisec_lab.defenses import AdversarialTraining, Standard
from aisec_lab.models import CNN, Fit

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import foolbox
    from foolbox import attacks as theirs
    from foolbox.attacks import brendel_bethge

STEPS = 100
OURS = {
    "Linf": [FMN(Linf(0), steps=STEPS)],
    "L2": [FMN(L2(0), steps=STEPS), DDN(steps=STEPS)],
    "L1": [FMN(L1(0), steps=STEPS)],
    "L0": [FMN(L0(0), steps=STEPS)],
}
# EAD and Carlini-Wagner take STEPS for each constant; Brendel & Bethge's is far slower without numba, and comes below
THEIRS = {
    "Linf": [theirs.LInfFMNAttack(steps=STEPS), theirs.LinfDeepFoolAttack(steps=STEPS)],
    "L2": [
        theirs.L2FMNAttack(steps=STEPS),
        theirs.DDNAttack(steps=STEPS),
        theirs.L2DeepFoolAttack(steps=STEPS),
        theirs.L2CarliniWagnerAttack(steps=STEPS, binary_search_steps=3, initial_const=1.0),
    ],
    "L1": [
        theirs.L1FMNAttack(steps=STEPS),
        theirs.EADAttack(steps=STEPS, binary_search_steps=3, initial_const=1.0, decision_rule="L1"),
    ],
    "L0": [theirs.L0FMNAttack(steps=STEPS)],
}
OBJECTIVES = {
    "undefended": Standard(),
    "adversarially trained": AdversarialTraining(PGD(Linf(0.1), steps=4, step_size=0.4, early_stop=False)),
}


@pytest.fixture(scope="module", params=OBJECTIVES)
def network(request, digits):
    """A small CNN trained on all digits but those it is attacked on."""
    model = CNN(width=8, hidden=32)((1, 8, 8), 10, generator=torch.Generator().manual_seed(0))
    dataset = Dataset(digits[0][200:], digits[1][200:], tuple("0123456789"), "digits")
    Fit(epochs=8)(model, dataset, OBJECTIVES[request.param], generator=torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("norm", OURS)
def test_the_median_is_at_most_2_percent_above_the_best_of_foolbox(norm, network, sample, seed):
    """Over the best attack of each; rows that are wrong as they are count as 0, those never won as infinite."""
    x, y = sample
    size = OURS[norm][0].ball.norm
    ours = [attack(network, x, y, generator=seed(0)).distance.median() for attack in OURS[norm]]
    with torch.no_grad():
        wrong = network(x).argmax(1) != y
    best = torch.inf
    for attack in THEIRS[norm]:
        x_adv = attack.run(foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu"), x, y)
        with torch.no_grad():
            won = network(x_adv).argmax(1) != y
        distance = torch.where(won, size(x_adv - x), torch.inf).masked_fill(wrong, 0)
        best = min(best, distance.median().item())
    assert 0 < best < torch.inf
    assert min(ours) <= 1.02 * best


def median(x_adv, network, x, y, size):
    """Of the distances that count: rows that are wrong as they are at 0, those never won at infinity."""
    with torch.no_grad():
        won, wrong = network(x_adv).argmax(1) != y, network(x).argmax(1) != y
    return torch.where(won, size(x_adv - x), torch.inf).masked_fill(wrong, 0).median().item()


@pytest.mark.parametrize("elastic_net", [False, True], ids=["L1", "EN"])
def test_ead_is_as_near_as_foolboxs(elastic_net, network, sample, seed):
    """At equal steps, constants and beta, by both decision rules, in their own measure; to 2 %."""
    x, y = sample[0][:60], sample[1][:60]
    settings = {"steps": STEPS, "initial_const": 1.0, "binary_search_steps": 4, "initial_stepsize": 0.02}
    their_attack = theirs.EADAttack(
        **settings, regularization=0.005, decision_rule="EN" if elastic_net else "L1", abort_early=False
    )
    attack = EAD(steps=STEPS, searches=4, step_size=0.02, beta=0.005, first_c=1.0, elastic_net=elastic_net)

    def size(delta):
        return L1(0).norm(delta) if not elastic_net else 0.005 * L1(0).norm(delta) + L2(0).norm(delta) ** 2

    their_x = their_attack.run(foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu"), x, y)
    best = median(their_x, network, x, y, size)
    assert 0 < best < torch.inf
    assert median(attack(network, x, y, generator=seed(0)).x_adv, network, x, y, size) <= 1.02 * best


BRENDEL_BETHGE = {
    "Linf": (Linf(0), theirs.LinfinityBrendelBethgeAttack, brendel_bethge.LinfOptimizer),
    "L2": (L2(0), theirs.L2BrendelBethgeAttack, brendel_bethge.L2Optimizer),
    "L1": (L1(0), theirs.L1BrendelBethgeAttack, brendel_bethge.L1Optimizer),
}


@pytest.mark.parametrize("norm", BRENDEL_BETHGE)
def test_brendel_bethge_is_as_near_as_foolboxs(norm, network, sample, seed, monkeypatch):
    """From the same starting points, at equal steps and radii: the median is at most 2 % above.

    foolbox compiles its solver with numba, without which it refuses; here Python runs it as it is written. Its radius
    is multiplied by the number of rows, too.
    """
    ball, kind, optimizer = BRENDEL_BETHGE[norm]
    monkeypatch.setattr(brendel_bethge, "NUMBA_IMPORT_ERROR", None)
    monkeypatch.setattr(brendel_bethge, "numba", SimpleNamespace(__version__="none"), raising=False)
    monkeypatch.setattr(kind, "instantiate_optimizer", lambda _: optimizer())
    with torch.no_grad():
        right = (network(sample[0]).argmax(1) == sample[1]).nonzero()[:6, 0]
        x, y = sample[0][right], sample[1][right]
        others = sample[0][network(sample[0]).argmax(1) == sample[1]]
        classes = network(others).argmax(1)
    start = torch.stack([others[classes != label][0] for label in y])
    steps, step_size = 25, 0.004
    attack = kind(steps=steps, lr=step_size / len(x))
    with np.errstate(all="ignore"):
        their_x = attack.run(foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu"), x, y, starting_points=start)
    ours = BrendelBethge(ball, steps, step_size)(network, x, y, generator=seed(0), start=start)
    best = median(their_x, network, x, y, ball.norm)
    assert 0 < best < ball.norm(start - x).median()
    assert ours.distance.median() <= 1.02 * best
