"""A stack of small networks of one shape, computed by batched matrix products."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aisec_lab.models.architectures import MLP

ROWS = 250  # rows per pass of the whole stack


class ModelStack(nn.Module):
    """K networks of one architecture, computed together; member k has the initial weights of the k-th generator.

    Args:
        architecture: of all members.
        shape: of one input.
        classes: number of classes C.
        generators: source of the initial weights, one per member, at least one.

    Raises:
        ValueError: no member.
    """

    def __init__(
        self, architecture: MLP, shape: tuple[int, ...], classes: int, generators: Sequence[torch.Generator]
    ) -> None:
        super().__init__()
        if not generators:
            raise ValueError("a stack has at least one member, got no generator: give one for each member")
        self.architecture, self.shape, self.classes = architecture, tuple(shape), classes
        members = [architecture(shape, classes, generator=generator) for generator in generators]
        self.normalise = members[0][0]
        linear = [[layer for layer in member if isinstance(layer, nn.Linear)] for member in members]
        layers = list(zip(*linear, strict=True))
        self.weights = nn.ParameterList([torch.stack([one.weight.T for one in layer]).detach() for layer in layers])
        self.biases = nn.ParameterList([torch.stack([one.bias[None] for one in layer]).detach() for layer in layers])

    def __len__(self) -> int:
        return len(self.weights[0])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (K, B, C) of inputs (K, B, *shape), one batch per member, or (B, *shape), the same for all."""
        return self.layers(x)[1][-1]

    def layers(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The inputs (K, B, in) and the outputs (K, B, out) of each linear layer; the last output is the logits."""
        if x.ndim == len(self.shape) + 1:
            x = x.expand(len(self), *x.shape)
        inputs, outputs = [self.normalise(x.flatten(2))], []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            outputs.append(torch.baddbmm(bias, inputs[-1], weight))  # (K, B, out)
            inputs.append(outputs[-1].relu())
        return inputs[:-1], outputs

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Logits (K, N, C), on the CPU, of the same rows x (N, *shape) for all members, batch by batch."""
        device = self.weights[0].device
        return torch.cat([self(part.to(device)).cpu() for part in x.split(ROWS)], dim=1)

    @torch.no_grad()
    def unstacked(self, k: int) -> nn.Sequential:
        """Member k as a classifier in evaluation mode, with a copy of its weights."""
        model = self.architecture(self.shape, self.classes, generator=torch.Generator()).to(self.weights[0])
        layers = [layer for layer in model if isinstance(layer, nn.Linear)]
        for layer, weight, bias in zip(layers, self.weights, self.biases, strict=True):
            layer.weight.copy_(weight[k].T)
            layer.bias.copy_(bias[k, 0])
        return model.eval()
