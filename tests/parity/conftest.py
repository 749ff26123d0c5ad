"""What is attacked: two small networks that the lab has trained, and digits that they have not seen."""

import pytest
import torch
from torch import nn

from aisec_lab.attacks import PGD, Linf
from aisec_lab.data import Dataset, Prepared, Splits, prepare
from aisec_lab.defenses import AdversarialTraining, Standard
from aisec_lab.models import CNN, Fit

ROWS = 300
OBJECTIVES = {
    "plain": Standard(),
    "adversarial": AdversarialTraining(PGD(Linf(0.15), steps=5, step_size=0.3, early_stop=False)),
}


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """The digits, as `aisec data digits` prepares them; 300 rows in the test split."""
    root = tmp_path_factory.mktemp("data")
    prepare("digits", root)
    return Prepared("digits", test_size=ROWS)(root)


@pytest.fixture(scope="session")
def sample(splits: Splits) -> Dataset:
    """The rows that are attacked."""
    return splits.test


@pytest.fixture(scope="session")
def models(splits: Splits) -> dict[str, nn.Module]:
    """A network trained on clean digits and one trained on adversarial ones."""
    models = {}
    for name, objective in OBJECTIVES.items():
        generator = torch.Generator().manual_seed(0)
        models[name] = CNN(width=8)(splits.train.shape, len(splits.train.classes), generator=generator)
        Fit(epochs=8)(models[name], splits.train, objective, generator=generator)
    return models
