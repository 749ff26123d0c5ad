"""Ghost clipping: per-sample norms and the clipped sum from one forward and one backward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from aisec_lab.privacy.gradients import GradientFunction, PerSampleGradients, trainable_parameters
from aisec_lab.privacy.layers import LAYERS
from aisec_lab.privacy.per_sample_grad import PerSampleGrad


@contextmanager
def ghost_gradients(model: nn.Module) -> Iterator[GradientFunction]:
    """Compute per-sample gradients by book-keeping (Bu et al., 2023, arXiv:2210.00038, algorithm 1).

    `GradTape` sees every torch function that takes a parameter, wherever the model calls it, and runs it with the
    parameter detached. Autograd then only propagates through the layers' outputs. A layer's activations and backprops
    give the per-sample norms and, once these are clip factors, the weighted sum. No per-sample gradient has to be
    stored, and there is no second backward pass.

    Args:
        model: in training mode while it is used; it is not changed.

    Yields:
        A `GradientFunction`. It raises ValueError where a parameter is used twice or by a function that `LAYERS` does
        not have, and where the first axis of a layer's output is not the batch.
    """
    parameters = trainable_parameters(model)

    def gradients(losses: Callable[[], Tensor]) -> PerSampleGradients:
        for parameter in parameters.values():
            parameter.grad = None
        with GradTape(parameters) as tape:
            batch = losses()
        tape.batch_size = len(batch)
        batch.sum().backward()
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                raise ValueError(f"{name} is used where ghost clipping does not see it")
        grads = [tape.grads.get(name) for name in parameters]  # None where the losses do not depend on the parameter
        norms = torch.stack(
            [
                grad.squared_norms.clamp(min=0).sqrt() if grad else parameter.new_zeros(len(batch))
                for parameter, grad in zip(parameters.values(), grads, strict=True)
            ]
        )

        def weighted_sums(clip_factors: Tensor) -> list[Tensor]:
            return [
                grad.weighted_sum(factors) if grad else torch.zeros_like(parameter)
                for parameter, grad, factors in zip(parameters.values(), grads, clip_factors, strict=True)
            ]

        return PerSampleGradients(batch.detach(), norms, weighted_sums)

    yield gradients


class GradTape(TorchFunctionMode):
    """Runs each layer with a trainable parameter by `LAYERS`, and stores its per-sample gradients in `grads`.

    Args:
        parameters: the trainable parameters by name.
    """

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.used: set[str] = set()
        self.grads: dict[str, PerSampleGrad] = {}
        self.batch_size = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [self.names[id(value)] for value in _flat([args, kwargs]) if id(value) in self.names]
        if not given:
            return func(*args, **kwargs)
        if func not in LAYERS:
            result = func(*args, **kwargs)
            if any(isinstance(value, Tensor) for value in _flat(result)):
                raise ValueError(f"ghost clipping knows no norm for {resolve_name(func) or func} of {given[0]}")
            return result  # a shape or a device, which does not depend on the parameter's values
        twice = [name for name in given if name in self.used or given.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is used twice, where ghost clipping's norms are wrong")
        if id(next(iter(args or kwargs.values()))) in self.names:
            raise ValueError(f"{given[0]} is the input of {resolve_name(func)}, of which no norm is known")
        self.used |= set(given)
        return LAYERS[func](self._store, *args, **kwargs)

    def _store(self, parameter: Tensor, grad: PerSampleGrad) -> None:
        name = self.names[id(parameter)]
        if len(grad.squared_norms) != self.batch_size:
            raise ValueError(
                f"{name} saw a first axis of {len(grad.squared_norms)} for {self.batch_size} rows, so that it is not "
                "known whose gradients are whose: put the batch first"
            )
        self.grads[name] = grad


def _flat(value: Any) -> Iterator[Any]:
    """The leaves of nested lists, tuples and dictionaries."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value
