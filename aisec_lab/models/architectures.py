"""Architectures: small CNNs for images of any size from 8x8 up, an MLP for tables, a ResNet for 32x32."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from aisec_lab.models.layers import Normalised, group_norm, initialise


def _image(shape: tuple[int, ...], smallest: int, name: str) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise ValueError(f"{name} takes images (C, H, W) from {smallest}x{smallest} up, got shape {shape}: use MLP")
    channels, height, width = shape
    return channels, height, width


def _conv(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), group_norm(outputs), nn.ReLU()]


@dataclass(frozen=True)
class CNN:
    """Three convolutions, two of them with stride 2, and two linear layers, with GroupNorm.

    Args:
        width: channels of the first convolution; the others have 2 and 4 times as many.
        hidden: units of the hidden linear layer.
    """

    width: int = 16
    hidden: int = 64

    def __call__(self, shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
        """Build a classifier.

        Args:
            shape: of one input: (channels, height, width), 8x8 or larger.
            classes: number of classes K.
            generator: source of the initial weights.

        Returns:
            A classifier of inputs (N, *shape) in [0, 1] to logits (N, K).

        Raises:
            ValueError: another shape, or smaller images.
        """
        channels, height, width = _image(shape, 8, "CNN")
        pixels = -(-height // 4) * -(-width // 4)  # two strides of 2, rounded up
        model = nn.Sequential(
            Normalised(),
            *_conv(channels, self.width, 1),
            *_conv(self.width, 2 * self.width, 2),
            *_conv(2 * self.width, 4 * self.width, 2),
            nn.Flatten(),
            nn.Linear(4 * self.width * pixels, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )
        initialise(model, generator)
        return model


@dataclass(frozen=True)
class StridedCNN:
    """Two convolutions of stride 2 and two linear layers, without GroupNorm, small enough for certified bounds.

    Wong & Kolter (2018, arXiv:1711.00851, section 5).

    Args:
        width: channels of the first convolution; the second has twice as many.
        hidden: units of the hidden linear layer.
    """

    width: int = 16
    hidden: int = 100

    def __call__(self, shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
        """Build a classifier.

        Args:
            shape: of one input: (channels, height, width), 8x8 or larger.
            classes: number of classes K.
            generator: source of the initial weights.

        Returns:
            A classifier of inputs (N, *shape) in [0, 1] to logits (N, K).

        Raises:
            ValueError: another shape, or smaller images.
        """
        channels, height, width = _image(shape, 8, "StridedCNN")
        pixels = (height // 4) * (width // 4)  # two halvings, rounded down
        model = nn.Sequential(
            Normalised(),
            nn.Conv2d(channels, self.width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(self.width, 2 * self.width, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * self.width * pixels, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, classes),
        )
        initialise(model, generator)
        return model


@dataclass(frozen=True)
class MLP:
    """Linear layers with ReLU, for tables or flattened images.

    Args:
        hidden: units of each hidden layer; () for a linear classifier.
    """

    hidden: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # a list in a file of settings: the same network

    def __call__(self, shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
        """Build a classifier.

        Args:
            shape: of one input: any shape, which is flattened.
            classes: number of classes K.
            generator: source of the initial weights.

        Returns:
            A classifier of inputs (N, *shape) in [0, 1] to logits (N, K).
        """
        sizes = [torch.Size(shape).numel(), *self.hidden]
        layers: list[nn.Module] = [Normalised(), nn.Flatten()]
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))
        initialise(model, generator)
        return model


class ResidualBlock(nn.Module):
    """Two convolutions F and a shortcut: relu(shortcut(x) + F(x)).

    Args:
        inputs, outputs: numbers of channels.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(*_conv(inputs, outputs, stride), *_conv(outputs, outputs, 1)[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), group_norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (N, outputs, H / stride, W / stride) for x of shape (N, inputs, H, W)."""
        return torch.relu(self.shortcut(x) + self.residual(x))


@dataclass(frozen=True)
class ResNet:
    """Residual network for 32x32 images, 6n + 2 layers deep (He et al., 2016, section 4.2), with GroupNorm.

    Args:
        n: residual blocks in each of the three stages.
        width: channels of the first stage; the others have 2 and 4 times as many.
    """

    n: int = 1
    width: int = 16

    def __call__(self, shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
        """Build a classifier.

        Args:
            shape: of one input: (channels, height, width), 16x16 or larger.
            classes: number of classes K.
            generator: source of the initial weights.

        Returns:
            A classifier of inputs (N, *shape) in [0, 1] to logits (N, K).

        Raises:
            ValueError: another shape, or smaller images.
        """
        channels, _, _ = _image(shape, 16, "ResNet")
        layers: list[nn.Module] = [Normalised(), *_conv(channels, self.width, 1)]
        inputs = self.width
        for stage in range(3):
            for block in range(self.n):
                outputs = self.width * 2**stage
                layers.append(ResidualBlock(inputs, outputs, stride=2 if stage and not block else 1))
                inputs = outputs
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
        initialise(model, generator)
        return model
