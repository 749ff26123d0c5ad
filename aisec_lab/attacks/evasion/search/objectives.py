"""What gradient attacks ascend: losses of logits alone, and their gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

from aisec_lab.attacks.evasion.attack import check_classes
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.attacks.evasion.search.losses import Loss
from aisec_lab.models import gradient, leaf


def signed_loss(loss: Loss, goal: Goal, y: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss against `y`, ascended or descended as the goal has it, as a function of the logits alone.

    Args:
        loss: of logits (N, K) and classes (N,), one number a row.
        goal: whether the loss against `y` rises (untargeted) or falls (targeted).
        y: classes (N,), true or target ones.

    Returns:
        A function of logits (N, K) that gives the numbers (N,) to ascend; it raises ValueError for classes that the
        model does not have.
    """

    def ascended(logits: Tensor) -> Tensor:
        check_classes(logits, y)
        return goal.sign * loss(logits, y)

    return ascended


def negative_margin(goal: Goal, y: Tensor) -> Callable[[Tensor], Tensor]:
    """Minus the goal's margin, as a function of the logits alone: what minimum-norm attacks ascend.

    Args:
        goal: whose margin is negative once a row is adversarial.
        y: classes (N,), true or target ones.

    Returns:
        A function of logits (N, K) that gives the numbers (N,) to ascend.
    """
    return lambda logits: -goal.margin(logits, y)


def loss_and_gradient(
    model: Callable[[Tensor], Tensor], z: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass forward and backward.

    Args:
        model: classifier, frozen, or a function of one.
        z: points (N, *input).
        loss: of logits (N, K), one number a row.

    Returns:
        Logits (N, K), losses (N,), and the gradient of each row's loss, shape of `z`; an entry of it that is
        no number, as behind the logarithm of a probability rounded to 0, counts as 0.
    """
    z = leaf(z)
    with torch.enable_grad():
        logits = model(z)
        losses = loss(logits)
        grad = gradient(losses.sum(), z)
    return logits.detach(), losses.detach(), grad.nan_to_num(nan=0.0)
