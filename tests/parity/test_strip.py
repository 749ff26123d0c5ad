"""STRIP beside ART's on the same inputs under the same overlays.

ART 1.20.1 asks scipy for the entropy along axis 0 of the answers (overlays, classes): that of each class over the
overlays, where the paper (eq. 2 to 4) has that of each answer over the classes. Its numbers are compared as they are
with a formula of their own, and ours with its procedure after that one axis has been put right.
"""

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from art.estimators.poison_mitigation.strip import strip
from torch import Tensor, nn

from aisec_lab.attacks import Backdoor, Checkerboard
from aisec_lab.defenses import Standard, scores_of
from aisec_lab.defenses.backdoors.strip import STRIP, STRIPDetector
from aisec_lab.models import CNN, Fit, frozen

pytestmark = pytest.mark.xdist_group("parity")

OVERLAYS, TRIGGER, TARGET, ROWS = 20, Checkerboard(2), 0, 60  # 20 is ART's own number


@pytest.fixture(scope="module")
def backdoored(splits) -> nn.Module:
    """A network with a backdoor to class 0."""
    generator = torch.Generator().manual_seed(0)
    poisoned = Backdoor(TRIGGER, TARGET, 0.05)(splits.train, generator=generator)
    model = CNN(width=8)(splits.train.shape, 10, generator=generator)
    Fit(epochs=8)(model, poisoned.dataset, Standard(), generator=generator)
    return model


@pytest.fixture(scope="module")
def fitted(splits, backdoored) -> STRIPDetector:
    """Ours, with images mixed as ART mixes them."""
    return STRIP(OVERLAYS, weight=0.5).fit(splits.train.x, splits.train.y, model=backdoored)


@pytest.fixture(scope="module")
def rows(splits) -> Tensor:
    """Digits, and the same with the trigger."""
    x = splits.test.x[splits.test.y != TARGET][:ROWS]
    return torch.cat([x, TRIGGER.apply(x)])


def probabilities(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """ART takes what `predict` gives for probabilities."""
    with frozen(model), torch.no_grad():
        return model(torch.from_numpy(x)).double().softmax(1).numpy()


def entropies(fitted: STRIPDetector, rows: Tensor, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """What ART computes for each row: its rows are drawn on first, its overlays are then ours."""
    kept: list[float] = []

    class Recording:
        @staticmethod
        def fit(values: list[float]) -> tuple[float, float]:
            kept.extend(values)
            return scipy.stats.norm.fit(values)

        ppf = scipy.stats.norm.ppf

    pool = torch.cat([rows, fitted.overlays]).numpy()
    monkeypatch.setattr(strip, "norm", Recording)
    monkeypatch.setattr(strip, "tqdm", lambda rows: rows)
    monkeypatch.setattr(strip.np.random, "choice", lambda rows, n: np.arange(len(rows))[-n:])
    strip.STRIPMixin(partial(probabilities, fitted.model), OVERLAYS).mitigate(pool)
    return np.array(kept[: len(rows)])


def test_the_entropies_are_those_of_art_along_the_axis_of_the_paper(fitted, rows, monkeypatch):
    """Row by row; they differ from row to row, so that a constant would not do."""
    monkeypatch.setattr(strip, "entropy", lambda p, base, axis: scipy.stats.entropy(p, base=base, axis=1))
    theirs = entropies(fitted, rows, monkeypatch)
    assert theirs.std() > 0.05
    assert np.allclose(-scores_of(fitted, rows).numpy(), theirs, atol=1e-5)


def test_art_as_it_is_measures_something_else(fitted, rows, monkeypatch):
    """Each class's share of the answers over the overlays, by hand: where this fails, ART has been mended."""
    theirs = entropies(fitted, rows, monkeypatch)
    mixed = (rows[:, None] + fitted.overlays) / 2
    answers = probabilities(fitted.model, mixed.flatten(0, 1).numpy()).reshape(len(rows), OVERLAYS, -1)
    shares = answers / answers.sum(1, keepdims=True)
    by_hand = -(shares * np.log(shares)).sum(1).sum(1) / math.log(2) / OVERLAYS
    assert np.allclose(theirs, by_hand, atol=1e-6)
    assert not np.allclose(theirs, -scores_of(fitted, rows).numpy(), atol=0.1)
