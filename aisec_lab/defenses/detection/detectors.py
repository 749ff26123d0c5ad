"""Detectors of adversarial inputs. Call contract: docs/defenses.md, "Detector"."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.core.modes import in_training_mode
from aisec_lab.defenses.preprocessing.transforms import BitDepth, MedianFilter
from aisec_lab.models import refuse_opaque
from aisec_lab.models.checked import CheckedModel, checked_model

BATCH = 500  # rows in one pass over clean data


@dataclass(frozen=True)
class Reading:
    """What one pass of a classifier shows of inputs; several detectors of one model can share it.

    Args:
        x: inputs (N, *input).
        logits: (N, K), with their graph.
        seen: the inputs of the linear layer that was called last, as it got them; none if there is none.
    """

    x: Tensor
    logits: Tensor
    seen: tuple[Tensor, ...]

    @property
    def features(self) -> Tensor:
        """The features (N, D): the input of the linear layer that is called last, with its graph.

        Raises:
            ValueError: a model without a linear layer, or one whose last linear layer does not see N rows.
        """
        if not self.seen:
            raise ValueError("this model calls no nn.Linear whose inputs could serve as features")
        rows = len(self.seen[-1])
        if rows != len(self.x):
            raise ValueError(
                f"the last linear layer of this model sees {rows // len(self.x)} rows of features for each of "
                f"{len(self.x)}: features are of rows, so bring the places of a row together before it"
            )
        return self.seen[-1].flatten(1)


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    """The linear layers of a classifier, whose inputs `read_model` looks at; none of an opaque model.

    Args:
        model: classifier.

    Returns:
        The layers, in the order of `model.modules()`.
    """
    if any(getattr(part, "opaque", False) for part in model.modules()):
        return []
    return [layer for layer in model.modules() if isinstance(layer, nn.Linear)]


def read_model(model: nn.Module, x: Tensor, layers: Sequence[nn.Linear] | None = None) -> Reading:
    """Run a classifier once, and keep what its last linear layer gets.

    Args:
        model: classifier.
        x: inputs (N, *input).
        layers: `linear_layers(model)`, for who reads often; looked up by default.

    Returns:
        The reading; of an opaque model its logits alone.
    """
    seen: list[Tensor] = []
    with ExitStack() as hooks:
        for layer in linear_layers(model) if layers is None else layers:
            hooks.enter_context(layer.register_forward_pre_hook(lambda _, args: seen.__setitem__(slice(None), args)))
        logits = model(x)
    return Reading(x, logits, tuple(seen))


class FittedDetector(nn.Module, ABC):
    """A detector after `fit`; it contains the model.

    Args:
        model: classifier; the detector is in its mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = CheckedModel(model)
        self.training = in_training_mode(model)

    def score(self, x: Tensor) -> Tensor:
        """Score inputs: a higher score means that an input is more likely adversarial.

        Args:
            x: inputs (N, *input) in [0, 1].

        Returns:
            Scores (N,), with their graph, so that an attack can lower them.
        """
        return self.score_of(read_model(self.model, x))

    @abstractmethod
    def score_of(self, reading: Reading) -> Tensor:
        """Score inputs that the model has answered already.

        Args:
            reading: by `read_model`, of the model of this detector.

        Returns:
            Scores (N,), those of `score`.
        """


class Detector(Protocol):
    """A detector before `fit`: its settings."""

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> FittedDetector:
        """Fit the detector to clean data.

        Args:
            x: clean inputs (N, *input) in [0, 1].
            y: their classes (N,), int64.
            model: classifier, whose predictions or features are used.

        Returns:
            The fitted detector.
        """
        ...


def features(model: nn.Module, x: Tensor) -> Tensor:
    """The features of a classifier: the input of the linear layer that it calls last.

    Args:
        model: classifier with at least one `nn.Linear`.
        x: inputs (N, *input).

    Returns:
        (N, D), with their graph.

    Raises:
        ValueError: what `Reading.features` refuses, or an opaque model.
    """
    refuse_opaque(model)
    return read_model(model, x).features


@torch.no_grad()
def features_of(model: nn.Module, x: Tensor) -> Tensor:
    """The features of many inputs, batch by batch, in evaluation mode.

    Args:
        model: classifier with at least one `nn.Linear`.
        x: inputs (N, *input).

    Returns:
        (N, D), without a graph.
    """
    with checked_model(model):
        return torch.cat([features(model, batch) for batch in x.split(BATCH)])


class EnergyScore(FittedDetector):
    """Scores of `Energy`: minus temperature times logsumexp(z / temperature).

    Args:
        model: classifier.
        temperature: positive.
    """

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__(model)
        self.temperature = temperature

    def score_of(self, reading: Reading) -> Tensor:
        return -self.temperature * (reading.logits / self.temperature).logsumexp(1)


@dataclass(frozen=True)
class Energy:
    """The free energy of the logits (Liu et al., 2020, arXiv:2010.03759, eq. 4).

    Call contract: docs/defenses.md, "Detector"; `fit` uses no data.

    Args:
        temperature: divides the logits; positive.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> EnergyScore:
        """Make the detector; x and y are unused (docs/defenses.md)."""
        return EnergyScore(model, self.temperature)


class SqueezingScore(FittedDetector):
    """Scores of `FeatureSqueezing`: the largest L1 distance of probabilities with and without squeezing.

    Args:
        model: classifier.
        squeezed: classifiers that squeeze their input first.
    """

    def __init__(self, model: nn.Module, squeezed: Sequence[nn.Module]) -> None:
        super().__init__(model)
        self.squeezed = nn.ModuleList(squeezed)
        self.squeezed.training = in_training_mode(model)

    def score_of(self, reading: Reading) -> Tensor:
        check_not_probabilities(reading.logits)
        plain = reading.logits.softmax(1)
        distances = [(plain - squeezed(reading.x).softmax(1)).abs().sum(1) for squeezed in self.squeezed]
        return torch.stack(distances).amax(0)


@dataclass(frozen=True)
class FeatureSqueezing:
    """Compare predictions with and without squeezing the input (Xu et al., 2018, arXiv:1704.01155, section V).

    Call contract: docs/defenses.md, "Detector"; `fit` uses no data. Piecewise constant squeezers have no gradient:
    attack through `BPDA`.

    Args:
        squeezers: inference-time defenses such as `BitDepth`, at least one.
    """

    squeezers: Sequence[Callable[[nn.Module], nn.Module]] = (BitDepth(), MedianFilter())

    def __post_init__(self) -> None:
        if not self.squeezers:
            raise ValueError("FeatureSqueezing compares with at least one squeezer, got none")

    def fit(self, x: Tensor, y: Tensor, *, model: nn.Module) -> SqueezingScore:
        """Make the detector; x and y are unused (docs/defenses.md)."""
        return SqueezingScore(model, [squeezer(CheckedModel(model)) for squeezer in self.squeezers])
