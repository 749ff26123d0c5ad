"""Detectors: how unlike clean data an input looks to a model.

`detector.fit(x, y, model=model)` looks at clean rows and gives a fitted one, whose `score(x)` is bigger the more
suspicious a row is and has a gradient, so that it can be attacked.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.defenses.preprocessing.transforms import BitDepth, MedianFilter
from aisec_lab.models import refuse_opaque
from aisec_lab.models.asked import Checked, asked
from aisec_lab.models.contexts import trains

BATCH = 500  # rows a pass, when clean rows are looked at


class FittedDetector(nn.Module, ABC):
    """A detector that has seen clean rows; the model is a part of it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = Checked(model)
        self.training = trains(model)

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """How suspicious each of the inputs (N, *input) is: shape (N,), bigger is more so."""


class Detector(Protocol):
    """Settings of a detector."""

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> FittedDetector:
        """Look at clean inputs (N, *input) in [0, 1] and their classes (N,) through a classifier."""
        ...


def features(model: nn.Module, x: Tensor) -> Tensor:
    """What the linear layer that a classifier calls last is given for x (N, *input): shape (N, D), with its graph.

    Raises:
        ValueError: a model that calls no linear layer, or calls its last one with other rows than x has; an opaque one.
    """
    refuse_opaque(model)
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                hooks.enter_context(
                    layer.register_forward_pre_hook(lambda _, args: seen.__setitem__(slice(None), args))
                )
        model(x)
    if not seen:
        raise ValueError(f"{type(model).__name__} calls no nn.Linear whose inputs could serve as features")
    if len(seen[-1]) != len(x):
        raise ValueError(
            f"the last linear layer of this {type(model).__name__} sees {len(seen[-1]) // len(x)} rows of features for "
            f"each of {len(x)}: features are of rows, so bring the places of a row together before it"
        )
    return seen[-1].flatten(1)


@torch.no_grad()
def features_of(model: nn.Module, x: Tensor) -> Tensor:
    """The features of many rows, batch by batch, in evaluation mode."""
    with asked(model):
        return torch.cat([features(model, batch) for batch in x.split(BATCH)])


class EnergyScore(FittedDetector):
    """Minus temperature times logsumexp(z / temperature)."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__(model)
        self.temperature = temperature

    def score(self, x: Tensor) -> Tensor:
        return -self.temperature * (self.model(x) / self.temperature).logsumexp(1)


@dataclass(frozen=True)
class Energy:
    """The free energy of the logits (Liu et al., 2020, arXiv:2010.03759, eq. 4); it learns nothing from the rows."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> EnergyScore:
        """As `Detector.fit`."""
        return EnergyScore(model, self.temperature)


class Disagreement(FittedDetector):
    """The largest L1 distance between the model's probabilities and those of its squeezed versions."""

    def __init__(self, model: nn.Module, squeezed: Sequence[nn.Module]) -> None:
        super().__init__(model)
        self.squeezed = nn.ModuleList(squeezed)
        self.squeezed.training = trains(model)

    def score(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        check_not_probabilities(logits)
        plain = logits.softmax(1)
        distances = [(plain - squeezed(x).softmax(1)).abs().sum(1) for squeezed in self.squeezed]
        return torch.stack(distances).amax(0)


@dataclass(frozen=True)
class FeatureSqueezing:
    """Whether squeezing the input changes the answer (Xu et al., 2018, arXiv:1704.01155, section V).

    It learns nothing from the rows. Squeezers with steps have no gradient: attack through `BPDA`.

    Args:
        squeezers: sanitizers, each of which makes a classifier of the classifier.
    """

    squeezers: Sequence[Callable[[nn.Module], nn.Module]] = (BitDepth(), MedianFilter())

    def __post_init__(self) -> None:
        if not self.squeezers:
            raise ValueError("FeatureSqueezing compares with at least one squeezer, got none")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> Disagreement:
        """As `Detector.fit`."""
        return Disagreement(model, [squeezer(Checked(model)) for squeezer in self.squeezers])
