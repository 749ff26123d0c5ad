"""A defense around a model leaves the parts of the model in their modes, whatever these are."""

import pytest
import torch
from torch import nn

from aisec_lab.attacks import PGD, Linf
from aisec_lab.defenses import (
    JPEG,
    AveragedModel,
    BitDepth,
    LabelsOnly,
    MedianFilter,
    OutputNoise,
    RandomResizing,
    ReverseSigmoid,
    RoundedProbabilities,
    Smoothing,
    TemperatureScaling,
    TopK,
    TotalVariation,
)
from aisec_lab.models import frozen, logits_of

DEFENSES = [BitDepth(3), MedianFilter(), JPEG(), RandomResizing(), Smoothing(0.1), TotalVariation(), TopK(1),
            RoundedProbabilities(2), LabelsOnly(), TemperatureScaling(2.0),
            ReverseSigmoid(), OutputNoise(0.1)]  # fmt: skip


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("defense", DEFENSES, ids=repr)
def test_each_part_keeps_its_mode(defense, training):
    """As of a model that draws its dropout anew at each answer, or that is trained on frozen statistics."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[2].training, model[1].training = True, False
    model.training = training
    before = modes(model)
    wrapped = defense(model)
    own = set(model.modules())
    assert modes(model) == before
    assert {module.training for module in wrapped.modules() if module not in own} == {training}


def test_an_ensemble_of_models_that_are_used_can_be_attacked():
    """It is in the mode of its members, the list that holds them included."""
    members = [nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval() for _ in range(2)]
    x, generator = torch.rand(3, 1, 8, 8), torch.Generator().manual_seed(0)
    z = PGD(Linf(0.1))(AveragedModel(members), x, torch.zeros(3, dtype=torch.int64), generator=generator)
    assert z.shape == x.shape


def test_running_a_model_restores_each_part():
    """And not all of them to the mode of the whole."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2))
    model[1].eval()
    before = modes(model)
    logits_of(model, torch.rand(3, 1, 8, 8))
    with frozen(model):
        assert set(modes(model).values()) == {False}
    assert modes(model) == before
