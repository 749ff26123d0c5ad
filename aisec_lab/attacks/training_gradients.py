"""Gradients of training: what gradient matching (a poisoning attack) and gradient inversion share."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

DECAY = 0.1  # of the step size, after 3/8, 5/8 and 7/8 of the steps, as in the code of both papers' authors


def training_gradient(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the mean cross-entropy in all parameters; it can itself be differentiated in `x`.

    Args:
        model: classifier; its own parameters get no gradients.
        x: inputs (N, *input).
        y: classes (N,), int64.

    Returns:
        One tensor for each of `model.parameters()`, in their order and of their shapes.
    """
    weights = {name: parameter.detach().clone().requires_grad_() for name, parameter in model.named_parameters()}
    loss = F.cross_entropy(functional_call(model, weights, (x,)), y)
    return torch.autograd.grad(loss, list(weights.values()), create_graph=True)


def cosine_distance(first: Iterable[Tensor], second: Iterable[Tensor]) -> Tensor:
    """One minus the cosine of two gradients, taken over all their parts together (Geiping et al., 2020 and 2021).

    Args:
        first, second: equally many tensors, pairwise of the same shape.

    Returns:
        A scalar in [0, 2], differentiable in both; NaN where one of them is zero.
    """
    pairs = list(zip(first, second, strict=True))
    along = torch.stack([(a * g).sum() for a, g in pairs]).sum()
    lengths = [torch.stack([part.square().sum() for part in parts]).sum().sqrt() for parts in zip(*pairs, strict=True)]
    return 1 - along / (lengths[0] * lengths[1])


def signed_adam(
    start: Tensor,
    cost: Callable[[Tensor], Tensor],
    project: Callable[[Tensor], Tensor],
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    """Minimise a cost by Adam on the signs of its gradient, with a step size that falls by ten three times.

    Args:
        start: where to begin, any shape; it stays as it is.
        cost: from a point to a scalar, differentiable.
        project: from a point to the nearest allowed one, applied after each step.
        steps: at least 1.
        step_size: of the first steps.

    Returns:
        The last point, shape of `start`, without a graph.
    """
    x = start.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=step_size)
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, [steps * part // 8 for part in (3, 5, 7)], DECAY)
    for _ in range(steps):
        (grad,) = torch.autograd.grad(cost(x), x)
        x.grad = grad.sign()
        adam.step()
        schedule.step()
        with torch.no_grad():
            x.copy_(project(x))
    return x.detach()
