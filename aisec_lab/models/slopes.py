"""Gradients with respect to a model's inputs, and errors where there are none."""

import torch
from torch import Tensor


def leaf(z: Tensor) -> Tensor:
    """A leaf tensor with the same values, with respect to which gradients can be computed.

    Args:
        z: of any shape.

    Returns:
        The same values, shape of `z`, detached, with `requires_grad`.

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
    """The gradient of a scalar with respect to a tensor from which it was computed.

    Args:
        value: scalar.
        z: result of `leaf`, any shape.
        keep: whether to retain the graph for another gradient.

    Returns:
        The gradient, shape of `z`.

    Raises:
        ValueError: `value` does not depend differentiably on `z`.
    """
    refuse_constant(value)
    (result,) = torch.autograd.grad(value, z, retain_graph=keep)
    return result


def refuse_constant(answer: Tensor) -> None:
    """Check that an output of a frozen model has a gradient with respect to its inputs.

    Args:
        answer: the output, any shape.

    Raises:
        ValueError: it has none.
    """
    if not answer.requires_grad:
        raise ValueError(
            "the model's answer has no gradient in its inputs, as where it is computed without torch, rounded or "
            "detached: use an attack by scores or labels (Square, NES, HopSkipJump), or a differentiable view (BPDA)"
        )
