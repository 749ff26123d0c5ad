"""The norms and the clipped sum of rows' gradients, from one forward and one backward pass, without those gradients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from aisec_lab.privacy.gradients import PerSampleGradients, trained
from aisec_lab.privacy.layers import LAYERS
from aisec_lab.privacy.per_sample_grad import PerSampleGrad


@contextmanager
def ghost_norms(model: nn.Module) -> Iterator[Callable[[Callable[[], Tensor]], PerSampleGradients]]:
    """Rows' gradients by book-keeping (Bu et al., 2023, arXiv:2210.00038, algorithm 1).

    Every torch function that is handed a weight is seen, wherever the model calls it. It runs with the weight detached,
    so that autograd goes back through the layers' outputs only; from a layer's input and the gradient of its output
    follow both the norms of the rows' gradients and, once these have been turned into factors, the weighted sum.

    Args:
        model: in training mode while it is used; it is not changed.

    Yields:
        A function that takes one that computes losses (N,) of the model, and gives the rows' `PerSampleGradients`. It
        raises ValueError where a weight is used twice, or by a function whose norms are not known, or where the first
        axis of a layer's output is not the batch's.
    """
    weights = trained(model)

    def gradients(losses: Callable[[], Tensor]) -> PerSampleGradients:
        for weight in weights.values():
            weight.grad = None
        with GradTape(weights) as tape:
            batch = losses()
        tape.rows = len(batch)
        batch.sum().backward()
        for name, weight in weights.items():
            if weight.grad is not None:
                raise ValueError(f"{name} is used where ghost clipping does not see it")
        shares = [tape.shares.get(name) for name in weights]
        norms = torch.stack(
            [
                share.squares.clamp(min=0).sqrt() if share else weight.new_zeros(len(batch))
                for weight, share in zip(weights.values(), shares, strict=True)
            ]
        )

        def sums(factors: Tensor) -> list[Tensor]:
            return [
                share.total(factor) if share else torch.zeros_like(weight)
                for weight, share, factor in zip(weights.values(), shares, factors, strict=True)
            ]

        return PerSampleGradients(batch.detach(), norms, sums)

    yield gradients


class GradTape(TorchFunctionMode):
    """Runs the layers of the weights that are trained, and keeps what gives their rows' gradients.

    Args:
        weights: by name.
    """

    def __init__(self, weights: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.names = {id(weight): name for name, weight in weights.items()}
        self.used: set[str] = set()
        self.shares: dict[str, PerSampleGrad] = {}
        self.rows = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        held = [self.names[id(value)] for value in _flat([args, kwargs]) if id(value) in self.names]
        if not held:
            return func(*args, **kwargs)
        if func not in LAYERS:
            result = func(*args, **kwargs)
            if any(isinstance(value, Tensor) for value in _flat(result)):
                raise ValueError(f"ghost clipping knows no norm for {resolve_name(func) or func} of {held[0]}")
            return result  # a shape, a device: no use of the weight's numbers
        twice = [name for name in held if name in self.used or held.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is used twice, where ghost clipping's norms are wrong")
        if id(next(iter(args or kwargs.values()))) in self.names:
            raise ValueError(f"{held[0]} is the input of {resolve_name(func)}, of which no norm is known")
        self.used |= set(held)
        return LAYERS[func](self._keep, *args, **kwargs)

    def _keep(self, weight: Tensor, share: PerSampleGrad) -> None:
        name = self.names[id(weight)]
        if len(share.squares) != self.rows:
            raise ValueError(
                f"{name} saw a first axis of {len(share.squares)} for {self.rows} rows, so that it is not known "
                "whose gradients are whose: put the batch first"
            )
        self.shares[name] = share


def _flat(value: Any) -> Iterator[Any]:
    """What lies inside of nested lists, tuples and dictionaries."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value
