"""The rows' gradients of one weight, from what goes into its layer and the gradient of what comes out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

CHUNK = 2**18  # numbers that are worked on at a time, so that they stay in a processor's cache
HELD = 3  # the rows' gradients may take so many times the numbers that their layer has in and out
SMALL = 1e-30  # a sum of squares so near to the end of float32 that some of them may have become 0
DOUBLE = 4  # what a number in float64 costs, in numbers of float32


@dataclass(frozen=True)
class PerSampleGrad:
    """The rows' gradients of one weight.

    Args:
        squares: their squared L2 norms (N,).
        total: takes factors (N,); gives the sum over rows of the gradients so multiplied, of the weight's shape.
    """

    squares: Tensor
    total: Callable[[Tensor], Tensor]


Keep = Callable[[Tensor, PerSampleGrad], None]  # told of each weight's share during the backward pass


def from_rows(rows: Tensor) -> PerSampleGrad:
    """The share of a weight whose rows' gradients (N, *shape) are at hand."""
    flat = rows.flatten(1)
    return PerSampleGrad(torch.linalg.vecdot(flat, flat), lambda factors: (factors @ flat).view(rows.shape[1:]))


def row_squares(x: Tensor) -> Tensor:
    """The sum of squares of each row of x (N, *), (N,); in float64 where float32 loses what is small."""
    within = tuple(range(1, x.ndim))
    squares = x.square().sum(within)
    if (squares < SMALL).any():
        squares = torch.where(squares < SMALL, x.double().square().sum(within), squares.double())
    return squares


@dataclass(frozen=True)
class Matrices:
    """A layer that multiplies by one matrix at many places of a row, as linear layers and convolutions do.

    Args:
        rows, groups, inputs, outputs, places: how many; each group of channels has a matrix (outputs, inputs).
        numbers: that the layer has in and out for a row, unfolded or not.
        of: for some of the rows, inputs (n * groups, inputs, places) and gradients (n * groups, outputs, places).
    """

    rows: int
    groups: int
    inputs: int
    outputs: int
    places: int
    numbers: int
    of: Callable[[slice], tuple[Tensor, Tensor]]

    def share(self, weight: Tensor, total: Callable[[Tensor], Tensor]) -> PerSampleGrad:
        """The share of `weight`, by the cheapest way; `total` is used where the rows' gradients are not held.

        They are the products of gradients and inputs over places. Where these are large, their squares are sums over
        pairs of places instead (Bu et al., 2022, arXiv:2205.10683, eq. 2.3), in float64: the terms may cancel.
        """
        size = self.groups * self.inputs * self.outputs
        if size <= HELD * self.numbers:
            rows = weight.new_empty(self.rows, size)
            for part, inputs, grads in self._parts(self.inputs * self.places):
                torch.bmm(grads, inputs.transpose(1, 2), out=rows[part].view(-1, self.outputs, self.inputs))
            return from_rows(rows.view(self.rows, *weight.shape))
        squares = weight.new_empty(self.rows)
        if DOUBLE * self.places * (self.inputs + self.outputs) < self.inputs * self.outputs:
            for part, inputs, grads in self._parts(self.places * max(self.inputs, self.outputs, self.places)):
                inputs, grads = inputs.double(), grads.double()
                pairs = (inputs.transpose(1, 2) @ inputs) * (grads.transpose(1, 2) @ grads)
                squares[part] = pairs.view(-1, self.groups * self.places**2).sum(1).to(squares)
        else:
            for part, inputs, grads in self._parts(self.inputs * max(self.places, self.outputs)):
                own = (grads @ inputs.transpose(1, 2)).view(-1, size)
                squares[part] = torch.linalg.vecdot(own, own)
        return PerSampleGrad(squares, total)

    def _parts(self, numbers: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Some rows at a time, as many as make a chunk where one has so many numbers in each group."""
        size = max(1, CHUNK // (self.groups * numbers))
        for start in range(0, self.rows, size):
            part = slice(start, start + size)
            yield part, *self.of(part)


def is_trained(weight: Tensor | None) -> bool:
    """Whether it is a weight, and not frozen."""
    return isinstance(weight, nn.Parameter) and weight.requires_grad


def detach(weight: Tensor | None) -> Any:
    """Detached if it is trained; a weight that is itself computed keeps its graph."""
    return weight.detach() if weight is not None and is_trained(weight) else weight


class RecordGradient(Function):
    """The identity, in place, that shows the gradient which passes, even where nothing before it asks for one."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, seen: Callable[[Tensor], None]) -> Tensor:
        ctx.seen = seen
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        ctx.seen(grad)
        return (grad if ctx.needs_input_grad[0] else None), None, None


def record_gradient(output: Tensor, x: Tensor, weight: Tensor, seen: Callable[[Tensor, Tensor], None]) -> Tensor:
    """The output of a layer; `seen` is called with its input `x` and the gradient once that is known.

    Both are in the type of the weight: autocast's are shorter, and norms would be those of other gradients than the
    ones that are summed.
    """
    x = x.detach()
    version = x._version

    def passed(grad: Tensor) -> None:
        if x._version != version:
            raise ValueError("a layer's input was overwritten by a later one: build that one with inplace=False")
        seen(x.to(weight.dtype) if x.is_floating_point() else x, grad.detach().to(weight.dtype))

    taps: Tensor = RecordGradient.apply(output, torch.zeros((), requires_grad=True), passed)
    return taps
