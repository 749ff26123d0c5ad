"""A small CNN with bounded activations, for DP-SGD."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SMALLEST = 14  # side in pixels from which on no layer has an empty output


class TemperedSigmoid(nn.Module):
    """The activation scale * sigmoid(temperature * x) - offset (Papernot et al., 2021, arXiv:2007.14191).

    Args:
        scale: difference of the two limits, positive.
        temperature: steepness, positive.
        offset: subtracted constant. The default (2, 2, 1) is tanh.

    Raises:
        ValueError: a scale or a temperature that is not positive.
    """

    def __init__(self, scale: float = 2.0, temperature: float = 2.0, offset: float = 1.0) -> None:
        super().__init__()
        if not (scale > 0 and temperature > 0):
            raise ValueError(f"scale and temperature must be positive, got {scale} and {temperature}: tanh is 2, 2, 1")
        self.scale, self.temperature, self.offset = scale, temperature, offset

    def forward(self, x: Tensor) -> Tensor:
        """Activations in [-offset, scale - offset], shape of x."""
        if (self.scale, self.temperature, self.offset) == (2, 2, 1):
            return torch.tanh(x)  # the same function, in one pass over memory
        return self.scale * torch.sigmoid(self.temperature * x) - self.offset


class MaxPool(nn.MaxPool2d):
    """Max-pooling in channels-last memory format, three times as fast on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """The result of `nn.MaxPool2d` for inputs (N, C, H, W)."""
        return super().forward(input.contiguous(memory_format=torch.channels_last))


@dataclass(frozen=True)
class TemperedCNN:
    """Convolutions and linear layers, two each, with tempered sigmoids (Papernot et al., 2021, arXiv:2007.14191).

    The noise of DP-SGD grows with the number of weights, so there are few: 26,010 for 28x28 images. There is no
    normalisation: the inputs of the first layer are the pixels in [0, 1]. Weights are initialised by Glorot & Bengio
    (2010, eq. 16).

    Args:
        width: channels of the first convolution; the second has twice as many.
        hidden: units of the hidden linear layer.
        scale, temperature, offset: of `TemperedSigmoid`.
    """

    width: int = 16
    hidden: int = 32
    scale: float = 2.0
    temperature: float = 2.0
    offset: float = 1.0

    def __call__(self, shape: tuple[int, ...], classes: int, *, generator: torch.Generator) -> nn.Sequential:
        """Build a classifier.

        Args:
            shape: of one input: (channels, height, width), 14x14 or larger.
            classes: number of classes K.
            generator: source of the initial weights.

        Returns:
            A classifier of inputs (N, *shape) in [0, 1] to logits (N, K).

        Raises:
            ValueError: another shape, or smaller images.
        """
        if len(shape) != 3 or min(shape[1:]) < SMALLEST:
            raise ValueError(
                f"TemperedCNN takes images (C, H, W) from {SMALLEST}x{SMALLEST} up, got shape {shape}: use MLP"
            )
        channels, height, width = shape
        pixels = _after(height) * _after(width)
        model = nn.Sequential(
            nn.Conv2d(channels, self.width, 8, 2, 3),
            self._activation(),
            MaxPool(2, 1),
            nn.Conv2d(self.width, 2 * self.width, 4, 2),
            self._activation(),
            MaxPool(2, 1),
            nn.Flatten(),
            nn.Linear(2 * self.width * pixels, self.hidden),
            self._activation(),
            nn.Linear(self.hidden, classes),
        )
        for layer in model:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.bias is not None
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)
        return model

    def _activation(self) -> TemperedSigmoid:
        return TemperedSigmoid(self.scale, self.temperature, self.offset)


def _after(side: int) -> int:
    """The side of the last feature map for images with this side."""
    return ((side - 2) // 2 + 1 - 1 - 4) // 2 + 1 - 1
