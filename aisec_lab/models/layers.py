"""Layers and initialisation of the lab's classifiers, and checks on the weights of any model."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from aisec_lab.models.contexts import trains

COMPUTING = (prune.BasePruningMethod, WeightNorm, SpectralNorm)  # hooks that compute a weight before each pass
FLOOR = 1e-12  # smaller probabilities are raised to this, so that their logarithm is finite


class Architecture(Protocol):
    """A frozen dataclass of hyper-parameters that is called to build a classifier."""

    def __call__(self, shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
        """Build a classifier.

        Args:
            shape: of one input, such as (channels, height, width).
            classes: number of classes K.
            generator: source of the initial weights.

        Returns:
            A classifier of inputs (N, *shape) in [0, 1] to logits (N, K); most begin with `Normalised`.

        Raises:
            ValueError: a shape that the architecture does not take.
        """
        ...


class Normalised(nn.Module):
    """The affine layer (x - mean) / std that keeps normalisation inside the model.

    Args:
        mean, std: one number for all channels or columns, or one for each, in units of the [0, 1] input; std positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | list[float] = 0.5, std: float | list[float] = 0.5) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).reshape(-1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).reshape(-1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x of shape (N, C, H, W) or (N, D); the shape stays the same."""
        channels = (-1, *(1,) * (x.ndim - 2))
        return (x - self.mean.view(channels)) / self.std.view(channels)


class TwoLogits(nn.Module):
    """Wrap a binary model with one logit z as a classifier with the logits (0, z).

    Args:
        model: returns the logit of class 1, (N, 1) or (N,).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = trains(model)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2) of inputs (N, *input)."""
        logit = self.model(x).reshape(len(x), 1)
        return torch.cat([torch.zeros_like(logit), logit], 1)


class LogProbabilities(nn.Module):
    """A model that ends in a softmax as a classifier of logits: the logarithms of its probabilities.

    A softmax gives the probabilities back. Where one of them was rounded to 0 or to 1, its slope was lost before: where
    there is a choice, take the module before the softmax.

    Args:
        model: answers with probabilities (N, K).
    """

    publishes: ClassVar[str] = "probabilities"  # as an `Oracle` says it: their logarithms are handed on

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = trains(model)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, K) of inputs (N, *input)."""
        return sloping_logarithms(self.model(x))


def refuse_opaque(model: nn.Module) -> None:
    """Refuse a model that gives access to its outputs alone, where weights, activations or gradients are needed.

    Args:
        model: any module; it or a part of it is opaque if its attribute `opaque` is True.

    Raises:
        ValueError: with the name of the opaque part.
    """
    for part in model.modules():
        if getattr(part, "opaque", False) is True:
            raise ValueError(
                f"{type(part).__name__} shows answers and nothing of its inside, neither weights nor activations nor "
                "gradients: give the model itself, or take what only asks"
            )


def refuse_computed(model: nn.Module) -> None:
    """Refuse a model with weights that are computed in each pass, where weights are to be changed in place.

    Args:
        model: any module.

    Raises:
        ValueError: with the name of a layer whose weight is not a parameter, so that a change would be lost; an opaque
            model.
    """
    refuse_opaque(model)
    for name, layer in model.named_modules():
        for weight in _computed(layer):
            raise ValueError(
                f"the {weight} of {name or 'the model'} is computed in each pass, by a parametrisation or a hook of "
                "torch.nn.utils, so that a change of it is lost: make it plain first "
                "(torch.nn.utils.parametrize.remove_parametrizations, prune.remove, remove_weight_norm or "
                "remove_spectral_norm)"
            )


def weight_of(layer: nn.Module, name: str = "weight") -> Tensor:
    """The weight, of that name, that a layer's next pass would use.

    Hooks of `torch.nn.utils` that compute it are run first: after `load_state_dict`, the layer still has the old weight
    until the next pass.

    Args:
        layer: a layer with a `weight`.
    """
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, COMPUTING):
            hook(layer, ())
    weight: Tensor = getattr(layer, name)
    return weight


def _computed(layer: nn.Module) -> list[str]:
    """The names of a layer's matrices and kernels that are not parameters."""
    if parametrize.is_parametrized(layer):
        return [name for name in layer.parametrizations if getattr(layer, name).ndim > 1]  # type: ignore[union-attr]
    plain = {name for name, value in vars(layer).items() if isinstance(value, Tensor) and value.ndim > 1}
    hooked = {name for name in plain if any(f"{name}_{part}" in layer._parameters for part in ("orig", "g", "v"))}
    return sorted(hooked | (plain & {"weight"} if isinstance(layer, nn.Linear | _ConvNd) else set()))


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm over groups of four channels (Wu & He, 2018); it does not mix rows, so DP-SGD supports it."""
    return nn.GroupNorm(max(1, channels // 4), channels)


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Initialise linear and 2d convolutional layers: He et al. (2015, eq. 14) for weights, zeros for biases.

    Args:
        model: any module; changed in place.
        generator: source of the weights.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def logarithms(probabilities: Tensor, floor: float = FLOOR) -> Tensor:
    """Probabilities (N, K) as logits, of their shape and type: softmax gives them back, to within the floor."""
    return probabilities.clamp(min=floor).log()


def sloping_logarithms(probabilities: Tensor) -> Tensor:
    """As `logarithms`, with a slope down to the smallest probability that their type can tell from 0."""
    return logarithms(probabilities, torch.finfo(probabilities.dtype).tiny)
