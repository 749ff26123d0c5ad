"""Per-sample gradients of a model: by Opacus's hooks, or one sample at a time by autograd."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

REPLACEMENTS = {"RNN": "DPRNN", "LSTM": "DPLSTM", "GRU": "DPGRU", "MultiheadAttention": "DPMultiheadAttention"}
TOLERANCE = 1e-3  # of the sum of per-sample norms: how far rounding may move their sum from autograd's gradient


@dataclass(frozen=True)
class PerSampleGradients:
    """The per-sample gradients of a batch, for all L trainable parameters of a model.

    Args:
        losses: per-sample losses (N,), detached.
        norms: L2 norms of the per-sample gradients of each parameter (L, N).
        weighted_sums: function of clip factors (L, N) that returns, for each parameter, the sum over samples of factor
            times gradient.
    """

    losses: Tensor
    norms: Tensor
    weighted_sums: Callable[[Tensor], list[Tensor]]


GradientFunction = Callable[[Callable[[], Tensor]], PerSampleGradients]  # takes a function that computes losses (N,)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are not frozen, each once, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def empty_gradients(model: nn.Module) -> PerSampleGradients:
    """The per-sample gradients of an empty batch, without running the model."""
    parameters = list(trainable_parameters(model).values())
    empty = parameters[0].new_zeros(len(parameters), 0)
    return PerSampleGradients(empty[0], empty, lambda _: [torch.zeros_like(parameter) for parameter in parameters])


def layer_index(model: nn.Module) -> Tensor:
    """For each trainable parameter, the index of the module that owns it, from 0: shape (L,), int64."""
    owners = [name.rpartition(".")[0] for name in trainable_parameters(model)]
    return torch.tensor([list(dict.fromkeys(owners)).index(owner) for owner in owners])


@contextmanager
def opacus_gradients(model: nn.Module) -> Iterator[GradientFunction]:
    """Compute and store the gradient of every sample (`grad_sample`), by Opacus's `GradSampleModule`.

    Args:
        model: in training mode while it is used; Opacus's hooks are removed on leaving the context.

    Yields:
        A `GradientFunction`. It raises ValueError where the per-sample gradients do not add up to the gradient of the
        summed loss, since then their norms are wrong.

    Raises:
        ValueError: Opacus does not support a layer of the model.
    """
    from opacus.grad_sample import GradSampleModule  # the import takes two seconds

    parameters = trainable_parameters(model)

    def gradients(losses: Callable[[], Tensor]) -> PerSampleGradients:
        _clear(parameters)
        batch = losses()
        batch.sum().backward()
        grad_samples = [_grad_sample(name, parameter, len(batch)) for name, parameter in parameters.items()]
        _clear(parameters)
        norms = torch.stack([grad_sample.flatten(1).norm(dim=1) for grad_sample in grad_samples])
        return PerSampleGradients(
            batch.detach(), norms, lambda clip_factors: list(map(_weighted_sum, clip_factors, grad_samples))
        )

    try:
        wrapped = GradSampleModule(model, loss_reduction="sum")
    except NotImplementedError as error:
        raise ValueError(f"Opacus has no gradients of the rows for a layer ({error})") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook")  # the first layer's inputs need no gradient
            yield gradients
    finally:
        wrapped.to_standard_module()


@contextmanager
def microbatch_gradients(model: nn.Module) -> Iterator[GradientFunction]:
    """Compute the gradient of one sample at a time by autograd, for any model that does not mix samples.

    Args:
        model: in training mode while it is used; it is not changed.

    Yields:
        A `GradientFunction`. It raises ValueError for the losses of more than one sample.
    """
    parameters = list(trainable_parameters(model).values())

    def gradients(losses: Callable[[], Tensor]) -> PerSampleGradients:
        batch = losses()
        if len(batch) > 1:
            raise ValueError(f"one row at a time, got {len(batch)}")
        grads = [
            torch.zeros_like(parameter) if grad is None else grad
            for parameter, grad in zip(
                parameters, torch.autograd.grad(batch.sum(), parameters, allow_unused=True), strict=True
            )
        ]
        norms = torch.stack([grad.norm() for grad in grads])[:, None]

        def weighted_sums(clip_factors: Tensor) -> list[Tensor]:
            return [grad * factor for grad, factor in zip(grads, clip_factors[:, 0], strict=True)]

        return PerSampleGradients(batch.detach(), norms, weighted_sums)

    yield gradients


def replacements(model: nn.Module) -> str:
    """Advice, for an error message, on Opacus's replacements of the layers in a model that it refuses; "" if none."""
    refused = {type(layer).__name__ for layer in model.modules() if type(layer).__name__ in REPLACEMENTS}
    named = [f"{REPLACEMENTS[name]} for {name}" for name in sorted(refused)]
    return f", or build {', '.join(named)} (opacus.layers)" if named else ""


def _clear(parameters: dict[str, nn.Parameter]) -> None:
    for parameter in parameters.values():
        parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]


def _grad_sample(name: str, parameter: nn.Parameter, batch_size: int) -> Tensor:
    """Opacus's per-sample gradients (N, *shape), checked against autograd's gradient of the sum."""
    stored: Tensor | None = parameter.grad_sample  # type: ignore[attr-defined]
    zeros = parameter.new_zeros(batch_size, *parameter.shape)
    grad_sample = zeros if stored is None else stored.to(parameter.dtype)  # under autocast it is shorter
    grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    norms = grad_sample.flatten(1).norm(dim=1)
    if (grad_sample.sum(0) - grad).norm() > TOLERANCE * norms.sum() + TOLERANCE * grad.norm():
        raise ValueError(
            f"Opacus's gradients of {name} do not add up to autograd's: it is used outside of its layer, or the "
            "layer has a setting (padding_idx, padding_mode) that Opacus overlooks"
        )
    return grad_sample


def _weighted_sum(clip_factors: Tensor, grad_sample: Tensor) -> Tensor:
    return torch.einsum("n,n...->...", clip_factors, grad_sample)
