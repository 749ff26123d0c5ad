"""Per-sample gradients of one parameter, from its layer's activations (inputs) and backprops (gradients of outputs)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

CHUNK = 2**18  # numbers that are processed at a time, so that they stay in a processor's cache
GRAD_SAMPLE_LIMIT = 3  # grad_sample is stored while it is at most so many times larger than activations and backprops
SMALL = 1e-30  # a sum of squares so close to the end of float32 that some of the squares may have become 0
FLOAT64_COST = 4  # how much more an operation costs in float64 than in float32


@dataclass(frozen=True)
class PerSampleGrad:
    """The per-sample gradients of one parameter: their norms and a weighted sum, whether or not they are stored.

    Args:
        squared_norms: squared L2 norms (N,).
        weighted_sum: function of clip factors (N,) that returns the sum over samples of factor times gradient, of the
            parameter's shape.
    """

    squared_norms: Tensor
    weighted_sum: Callable[[Tensor], Tensor]


Store = Callable[[Tensor, PerSampleGrad], None]  # called with each parameter and its gradients in the backward pass


def from_grad_sample(grad_sample: Tensor) -> PerSampleGrad:
    """Wrap stored per-sample gradients (N, *shape) of one parameter."""
    flat = grad_sample.flatten(1)
    return PerSampleGrad(
        torch.linalg.vecdot(flat, flat), lambda clip_factors: (clip_factors @ flat).view(grad_sample.shape[1:])
    )


def squared_norms(x: Tensor) -> Tensor:
    """The sum of squares (N,) of each row of x (N, *); in float64 where float32 would lose small squares."""
    within = tuple(range(1, x.ndim))
    squares = x.square().sum(within)
    if (squares < SMALL).any():
        squares = torch.where(squares < SMALL, x.double().square().sum(within), squares.double())
    return squares


@dataclass(frozen=True)
class MatmulLayer:
    """A layer that multiplies the activations at each position by one matrix: a linear layer or a convolution.

    The positions of a convolution are those of its windows; the positions of a linear layer are the axes between the
    first and the last. Each group of channels has a matrix of its own (out_features, in_features).

    Args:
        batch_size, groups, in_features, out_features, positions: sizes; N, G, D, P and T below.
        io_size: numbers of one sample in the layer's input and output, before windows are unfolded.
        unfold: function of a slice of n samples that returns their activations (n * G, D, T) and backprops
            (n * G, P, T).
    """

    batch_size: int
    groups: int
    in_features: int
    out_features: int
    positions: int
    io_size: int
    unfold: Callable[[slice], tuple[Tensor, Tensor]]

    def per_sample_grad(self, weight: Tensor, weighted_sum: Callable[[Tensor], Tensor]) -> PerSampleGrad:
        """The per-sample gradients of the weight, by the cheapest of three methods.

        Small gradients are stored. Otherwise only their norms are computed: from pairs of positions in float64, since
        the terms may cancel (ghost norm; Bu et al., 2022, arXiv:2205.10683, eq. 2.3), or from gradients that are
        computed in chunks and dropped.

        Args:
            weight: the layer's weight, of any shape with G * P * D numbers.
            weighted_sum: as in `PerSampleGrad`; used where the gradients are not stored.
        """
        matrix = self.in_features * self.out_features
        size = self.groups * matrix
        if size <= GRAD_SAMPLE_LIMIT * self.io_size:
            grad_sample = weight.new_empty(self.batch_size, size)
            for part, activations, backprops in self._chunks(self.in_features * self.positions):
                matrices = grad_sample[part].view(-1, self.out_features, self.in_features)
                torch.bmm(backprops, activations.transpose(1, 2), out=matrices)
            return from_grad_sample(grad_sample.view(self.batch_size, *weight.shape))
        squares = weight.new_empty(self.batch_size)
        if FLOAT64_COST * self.positions * (self.in_features + self.out_features) < matrix:
            widest = max(self.in_features, self.out_features, self.positions)
            for part, activations, backprops in self._chunks(self.positions * widest):
                activations, backprops = activations.double(), backprops.double()
                pairs = (activations.transpose(1, 2) @ activations) * (backprops.transpose(1, 2) @ backprops)
                squares[part] = pairs.view(-1, self.groups * self.positions**2).sum(1).to(squares)
        else:
            for part, activations, backprops in self._chunks(self.in_features * max(self.positions, self.out_features)):
                grads = (backprops @ activations.transpose(1, 2)).view(-1, size)
                squares[part] = torch.linalg.vecdot(grads, grads)
        return PerSampleGrad(squares, weighted_sum)

    def _chunks(self, numbers: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Slices of about `CHUNK` numbers, of which a sample has `numbers` in each group, and what `unfold` gives."""
        size = max(1, CHUNK // (self.groups * numbers))
        for start in range(0, self.batch_size, size):
            part = slice(start, start + size)
            yield part, *self.unfold(part)


def is_trainable(weight: Tensor | None) -> bool:
    """Whether a tensor is a parameter that is not frozen."""
    return isinstance(weight, nn.Parameter) and weight.requires_grad


def detach(weight: Tensor | None) -> Any:
    """The weight, detached if it is a trainable parameter; a weight that is computed from others keeps its graph."""
    return weight.detach() if weight is not None and is_trainable(weight) else weight


class CaptureBackprops(Function):
    """The identity, in place; its backward pass hands the gradient to a function.

    The second argument makes the output require a gradient, even where nothing before it does.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, on_backprops: Callable[[Tensor], None]) -> Tensor:
        ctx.on_backprops = on_backprops
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, backprops: Tensor) -> tuple[Tensor | None, None, None]:
        ctx.on_backprops(backprops)
        return (backprops if ctx.needs_input_grad[0] else None), None, None


def capture_backprops(
    output: Tensor, activations: Tensor, weight: Tensor, compute_grads: Callable[[Tensor, Tensor], None]
) -> Tensor:
    """Have `compute_grads(activations, backprops)` called in the backward pass of a layer.

    Both arguments are converted to the weight's dtype. Under autocast they are shorter, and their norms would not be
    those of the gradients that are summed.

    Args:
        output, activations: the layer's output and input.
        weight: the layer's weight.
        compute_grads: computes the layer's per-sample gradients.

    Returns:
        The output, to be used in place of `output`.

    Raises:
        ValueError: in the backward pass, a later layer has overwritten the activations in place.
    """
    activations = activations.detach()
    version = activations._version

    def on_backprops(backprops: Tensor) -> None:
        if activations._version != version:
            raise ValueError("a layer's input was overwritten by a later one: build that one with inplace=False")
        own = activations.to(weight.dtype) if activations.is_floating_point() else activations
        compute_grads(own, backprops.detach().to(weight.dtype))

    captured: Tensor = CaptureBackprops.apply(output, torch.zeros((), requires_grad=True), on_backprops)
    return captured
