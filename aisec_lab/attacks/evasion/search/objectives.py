"""Objectives of gradient attacks, as functions of logits alone, and their gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.attack import check_classes
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.attacks.evasion.search.losses import Loss
from aisec_lab.models import gradient, leaf


def signed_loss(loss: Loss, goal: Goal, y: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss against `y` with the goal's sign, as a function of the logits alone.

    Args:
        loss: of logits (N, K) and classes (N,), one number for each row.
        goal: whether the loss against `y` has to rise (untargeted) or fall (targeted).
        y: classes (N,), true or target ones.

    Returns:
        A function of logits (N, K) to the numbers (N,) that an attack maximises; it raises ValueError for classes that
        the model does not have.
    """

    def objective(logits: Tensor) -> Tensor:
        check_classes(logits, y)
        return goal.sign * loss(logits, y)

    return objective


def negative_margin(goal: Goal, y: Tensor) -> Callable[[Tensor], Tensor]:
    """Minus the goal's margin, as a function of the logits alone: the objective of minimum-norm attacks.

    Args:
        goal: whose margin is negative once a row is adversarial.
        y: classes (N,), true or target ones.

    Returns:
        A function of logits (N, K) to the numbers (N,) that an attack maximises.
    """
    return lambda logits: -goal.margin(logits, y)


def loss_and_gradient(
    model: Callable[[Tensor], Tensor], z: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """One forward and one backward pass.

    Args:
        model: classifier, frozen, or a function of one.
        z: points (N, *input).
        loss: of logits (N, K), one number for each row.

    Returns:
        Logits (N, K), losses (N,), and the gradient of each row's loss, shape of `z`. NaN entries of the gradient, such
        as those of the logarithm of a probability rounded to 0, become 0.
    """
    z = leaf(z)
    with torch.enable_grad():
        logits = model(z)
        losses = loss(logits)
        grad = gradient(losses.sum(), z)
    return logits.detach(), losses.detach(), grad.nan_to_num(nan=0.0)
