"""Minimum-norm attacks against foolbox: medians at equal steps, on the same rows of the same networks."""

import warnings

import pytest
import torch

from aisec_lab.attacks import DDN, FMN, L0, L1, L2, PGD, Linf
from aisec_lab.data import Dataset
from aisec_lab.defenses import AdversarialTraining, Standard
from aisec_lab.models import CNN, Fit

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import foolbox
    from foolbox import attacks as theirs

STEPS = 100
OURS = {
    "Linf": [FMN(Linf(0), steps=STEPS)],
    "L2": [FMN(L2(0), steps=STEPS), DDN(steps=STEPS)],
    "L1": [FMN(L1(0), steps=STEPS)],
    "L0": [FMN(L0(0), steps=STEPS)],
}
# Brendel & Bethge's needs numba, which foolbox does not bring; EAD and Carlini-Wagner take STEPS for each constant
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
    size = OURS[norm][0].ball.size
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
