"""Extraction beside ART's at equal budgets, with one architecture, optimizer and number of epochs for both.

ART 1.20.1 learns labels unless told otherwise, and takes what `predict` gives for probabilities when it is told. Its
adaptive strategy may ask about a row twice, and steps after each answer with the optimizer of the final training.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from art.attacks.extraction import CopycatCNN, KnockoffNets
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from aisec_lab.attacks import Oracle
from aisec_lab.attacks.extraction.bandit import BanditSampling
from aisec_lab.attacks.extraction.copycat import Copycat
from aisec_lab.attacks.extraction.knockoff import Knockoff
from aisec_lab.core import clopper_pearson
from aisec_lab.evaluation.extraction import fidelity
from aisec_lab.models import MLP, Fit
from benchmarks.peers import seeded_globally

pytestmark = pytest.mark.xdist_group("parity")

BUDGET, COPY, SEEDS = 200, MLP((64,)), (0, 1)
FIT = Fit(epochs=20, batch_size=32, learning_rate=0.02, momentum=0.9)
QUIET = {"verbose": False}


class Case(NamedTuple):
    ours: Knockoff | Copycat
    labels_only: bool
    theirs: Callable[..., KnockoffNets | CopycatCNN]
    settings: dict[str, object]


CASES = {
    "random, probabilities": Case(Knockoff(COPY, BUDGET, FIT), False, KnockoffNets, QUIET | {"use_probability": True}),
    "random, labels": Case(Knockoff(COPY, BUDGET, FIT), True, KnockoffNets, QUIET),
    "adaptive, labels": Case(
        Knockoff(COPY, BUDGET, FIT, policy=BanditSampling()),
        True,
        KnockoffNets,
        QUIET | {"sampling_strategy": "adaptive"},
    ),
    "copycat": Case(Copycat(COPY, BUDGET, FIT), True, CopycatCNN, {}),
}


def classifier(model: nn.Module) -> PyTorchClassifier:
    """As ART sees a model; one that it trains has Fit's own optimizer."""
    optimizer, _ = FIT.descent(model, total=1)
    return PyTorchClassifier(model, nn.CrossEntropyLoss(), (1, 8, 8), 10, optimizer=optimizer, device_type="cpu")


def stolen_by_art(case: Case, victim: nn.Module, x: Tensor, y: Tensor, seed: int) -> nn.Module:
    """ART's copy, from the same pool."""
    attack = case.theirs(
        classifier(nn.Sequential(victim, nn.Softmax(1))),
        batch_size_fit=FIT.batch_size,
        batch_size_query=BUDGET,
        nb_epochs=FIT.epochs,
        nb_stolen=BUDGET,
        **case.settings,
    )
    copy = COPY((1, 8, 8), 10, generator=torch.Generator().manual_seed(seed))
    with seeded_globally(seed):
        attack.extract(x.numpy(), y.numpy(), thieved_classifier=classifier(copy))
    return copy.eval()


@pytest.mark.parametrize("name", CASES)
def test_our_copies_know_their_victim_as_well_as_arts(name, splits, models):
    """Our mean over seeds is not below the low end of the interval about ART's."""
    case, victim, x = CASES[name], models["plain"], splits.test.x
    ours, arts = [], []
    for seed in SEEDS:
        oracle = Oracle(victim, labels_only=case.labels_only, budget=BUDGET)
        copy = case.ours(oracle, splits.train, generator=torch.Generator().manual_seed(seed)).model
        ours.append(fidelity(copy, victim, x)["value"])
        arts.append(fidelity(stolen_by_art(case, victim, splits.train.x, splits.train.y, seed), victim, x)["value"])
        assert oracle.queries == BUDGET
    low, _ = clopper_pearson(round(sum(arts) / len(SEEDS) * len(x)), len(x))
    assert min(ours + arts) > 0.5, "both have learned far more than chance"
    assert sum(ours) / len(SEEDS) >= low, (ours, arts)
