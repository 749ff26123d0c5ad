"""The layers and the initialisation that the lab's classifiers share."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from aisec_lab.models.contexts import trains

COMPUTING = (prune.BasePruningMethod, WeightNorm, SpectralNorm)  # hooks that set a weight before each pass
FLOOR = 1e-12  # a probability of 0 is taken for this: its logarithm has to be finite


class Architecture(Protocol):
    """A frozen dataclass of hyper-parameters that, called, builds a classifier."""

    def __call__(self, shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
        """Build a classifier of inputs of `shape` into `classes` classes, its weights drawn from `generator`."""
        ...


class Normalised(nn.Module):
    """The affine layer (x - mean) / std that keeps normalisation inside the model.

    Args:
        mean, std: one number for all channels or columns, or one for each; in units of the [0, 1] input.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float | list[float] = 0.5, std: float | list[float] = 0.5) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).reshape(-1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).reshape(-1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, shape (N, C, H, W) or (N, D); the same shape comes back."""
        channels = (-1, *(1,) * (x.ndim - 2))
        return (x - self.mean.view(channels)) / self.std.view(channels)


class TwoLogits(nn.Module):
    """A binary model of one logit as a classifier of two: the logits (0, z), whose softmax is (1 - p, p).

    Args:
        model: answers (N, 1) or (N,), the logit of class 1.
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
    """Refuse, for whoever looks inside a model, one that shows no more than its answers.

    Args:
        model: any module; it or a part of it is opaque if it has an attribute `opaque` that is True.

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
    """Refuse, for whoever changes weights in place, layers of any kind with a weight that is computed in each pass.

    Raises:
        ValueError: with the layer's name; its weight is no parameter, so that a change of it would be lost. An opaque
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
    """The weight, of that name, that a layer's next pass would use: hooks of `torch.nn.utils` are run that compute it.

    Without a pass since `load_state_dict` such a layer still shows the weight from before.
    """
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, COMPUTING):
            hook(layer, ())
    weight: Tensor = getattr(layer, name)
    return weight


def _computed(layer: nn.Module) -> list[str]:
    """The names of the matrices and kernels of a layer that are no parameters."""
    if parametrize.is_parametrized(layer):
        return [name for name in layer.parametrizations if getattr(layer, name).ndim > 1]  # type: ignore[union-attr]
    plain = {name for name, value in vars(layer).items() if isinstance(value, Tensor) and value.ndim > 1}
    hooked = {name for name in plain if any(f"{name}_{part}" in layer._parameters for part in ("orig", "g", "v"))}
    return sorted(hooked | (plain & {"weight"} if isinstance(layer, nn.Linear | _ConvNd) else set()))


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm over groups of four channels (Wu & He, 2018): per example, so that the model can be trained with DP."""
    return nn.GroupNorm(max(1, channels // 4), channels)


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights anew: He et al. (2015, eq. 14) for weights, zeros for biases.

    Args:
        model: a module of linear, convolutional and normalising layers; changed in place.
        generator: the only source of randomness, whatever the global one did at construction.
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
