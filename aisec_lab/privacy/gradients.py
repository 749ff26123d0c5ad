"""Each row's own gradient, as something that can be measured and summed up."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

REPLACEMENTS = {"RNN": "DPRNN", "LSTM": "DPLSTM", "GRU": "DPGRU", "MultiheadAttention": "DPMultiheadAttention"}
AGREE = 1e-3  # of the rows' lengths: how far their sum may lie from autograd's gradient, by rounding alone


@dataclass(frozen=True)
class PerSampleGradients:
    """The gradients of the rows of a batch.

    Args:
        losses: of the rows, (N,), detached.
        norms: L2 norms of the rows' gradients, weight by weight, (weights, N).
        sums: takes factors (weights, N); gives, for each weight, the sum of the rows' gradients so multiplied.
    """

    losses: Tensor
    norms: Tensor
    sums: Callable[[Tensor], list[Tensor]]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that are not frozen, each once, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def zero_gradients(model: nn.Module) -> PerSampleGradients:
    """The gradients of an empty batch, which no model has to take."""
    weights = list(trained(model).values())
    none = weights[0].new_zeros(len(weights), 0)
    return PerSampleGradients(none[0], none, lambda _: [torch.zeros_like(weight) for weight in weights])


def layers_of(model: nn.Module) -> Tensor:
    """For each weight that is not frozen, which layer it belongs to, (weights,), int64, from 0 up."""
    owners = [name.rpartition(".")[0] for name in trained(model)]
    return torch.tensor([list(dict.fromkeys(owners)).index(owner) for owner in owners])


@contextmanager
def instantiated(model: nn.Module) -> Iterator[Callable[[Callable[[], Tensor]], PerSampleGradients]]:
    """The gradient of every row held at once, by Opacus's hooks on the model's layers.

    Args:
        model: in training mode while it is used; on leaving, its hooks are off.

    Yields:
        A function that takes one that computes losses (N,) of the model, and gives the rows' `PerSampleGradients`. It
        raises
        ValueError where these do not add up to the gradient of the sum: the rows would be cut by wrong norms.
    """
    from opacus.grad_sample import GradSampleModule  # two seconds: a training pays

    weights = trained(model)

    def gradients(losses: Callable[[], Tensor]) -> PerSampleGradients:
        _forget(weights)
        batch = losses()
        batch.sum().backward()
        rows = [_rows(name, weight, len(batch)) for name, weight in weights.items()]
        _forget(weights)
        norms = torch.stack([row.flatten(1).norm(dim=1) for row in rows])
        return PerSampleGradients(batch.detach(), norms, lambda factors: list(map(_weighted, factors, rows)))

    try:
        sampling = GradSampleModule(model, loss_reduction="sum")
    except NotImplementedError as error:
        raise ValueError(f"Opacus has no gradients of the rows for a layer ({error})") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Full backward hook")  # the first layer's inputs need no gradient
            yield gradients
    finally:
        sampling.to_standard_module()


@contextmanager
def microbatch_gradients(model: nn.Module) -> Iterator[Callable[[Callable[[], Tensor]], PerSampleGradients]]:
    """The gradient of one row at a time, as autograd has it: for any model that keeps rows apart.

    Args, yields: as for `instantiated`; the function raises ValueError where it is given the losses of several rows.
    """
    weights = list(trained(model).values())

    def gradients(losses: Callable[[], Tensor]) -> PerSampleGradients:
        batch = losses()
        if len(batch) > 1:
            raise ValueError(f"one row at a time, got {len(batch)}")
        found = torch.autograd.grad(batch.sum(), weights, allow_unused=True)
        rows = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
        norms = torch.stack([row.norm() for row in rows])[:, None]
        return PerSampleGradients(
            batch.detach(), norms, lambda factors: [row * f for row, f in zip(rows, factors[:, 0], strict=True)]
        )

    yield gradients


def replacements(model: nn.Module) -> str:
    """What may be built in place of layers that Opacus refuses."""
    found = {type(layer).__name__ for layer in model.modules() if type(layer).__name__ in REPLACEMENTS}
    named = [f"{REPLACEMENTS[name]} for {name}" for name in sorted(found)]
    return f", or build {', '.join(named)} (opacus.layers)" if named else ""


def _forget(weights: dict[str, nn.Parameter]) -> None:
    for weight in weights.values():
        weight.grad = weight.grad_sample = None  # type: ignore[attr-defined]


def _rows(name: str, weight: nn.Parameter, count: int) -> Tensor:
    """The rows' gradients (N, *shape) that Opacus found, if they make up the gradient that autograd found."""
    rows: Tensor | None = weight.grad_sample  # type: ignore[attr-defined]
    found = weight.new_zeros(count, *weight.shape) if rows is None else rows.to(weight.dtype)  # autocast's are shorter
    whole = torch.zeros_like(weight) if weight.grad is None else weight.grad
    if (found.sum(0) - whole).norm() > AGREE * found.flatten(1).norm(dim=1).sum() + AGREE * whole.norm():
        raise ValueError(
            f"Opacus's gradients of {name} do not add up to autograd's: it is used outside of its layer, or the "
            "layer has a setting (padding_idx, padding_mode) that Opacus overlooks"
        )
    return found


def _weighted(factors: Tensor, rows: Tensor) -> Tensor:
    return torch.einsum("n,n...->...", factors, rows)
