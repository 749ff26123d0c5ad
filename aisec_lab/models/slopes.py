"""Gradients in a model's inputs, or the reason why there are none."""

import torch
from torch import Tensor


def leaf(z: Tensor) -> Tensor:
    """A tensor of the same numbers, in which gradients can be taken.

    Args:
        z: numbers, shape (...).

    Returns:
        The same numbers, shape (...), outside any graph, with `requires_grad`.

    Raises:
        ValueError: inside `torch.inference_mode()`, where torch records no graph.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "an attack by gradients cannot run inside torch.inference_mode(), where torch records none: call it outside"
        )
    z = z.detach()
    return (z.clone() if z.is_inference() else z).requires_grad_()


def gradient(value: Tensor, z: Tensor, *, keep: bool = False) -> Tensor:
    """The gradient of a number in a tensor from which it was computed.

    Args:
        value: a scalar.
        z: what `leaf` gave, shape (...).
        keep: whether the graph is used again.

    Returns:
        Shape of `z`.

    Raises:
        ValueError: nothing that is differentiable in `z` went into `value`, all else being frozen.
    """
    refuse_constant(value)
    (found,) = torch.autograd.grad(value, z, retain_graph=keep)
    return found


def refuse_constant(answer: Tensor) -> None:
    """Refuse, with a ValueError, an answer that has no gradient in what a frozen model was given."""
    if not answer.requires_grad:
        raise ValueError(
            "the model's answer has no gradient in its inputs, as where it is computed without torch, rounded or "
            "detached: use an attack by scores or labels (Square, NES, HopSkipJump), or a differentiable view (BPDA)"
        )
