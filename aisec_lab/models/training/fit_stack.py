"""Training of a stack of small networks, each as `Fit` would train it alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.optim import SGD, AdamW, Optimizer
from tqdm import tqdm

from aisec_lab.data import Dataset
from aisec_lab.models.training.fit import Fit, shuffled
from aisec_lab.models.training.stack import ModelStack

__all__ = ["ModelStack", "StackSampler", "StackStep", "fit_stack", "plain_stack_step", "shuffled_epochs"]

StackStep = Callable[[ModelStack, Tensor, Tensor, Tensor], Tensor]
StackSampler = Callable[[Fit, int, torch.Generator], tuple[int, Iterator[Tensor]]]


def plain_stack_step(stack: ModelStack, x: Tensor, y: Tensor, there: Tensor) -> Tensor:
    """Set the gradient of each member's mean loss on its own batch.

    Args:
        stack: its parameters' `grad` is set.
        x, y: a batch for each member, (K, B, *shape) and (K, B), padded at the end.
        there: mask (K, B) of the rows that are not padding.

    Returns:
        Losses (K, B), detached, 0 for padding.
    """
    stack.zero_grad(set_to_none=True)
    losses = F.cross_entropy(stack(x).flatten(0, 1), y.flatten(), reduction="none").view(y.shape) * there
    (losses.sum(1) / there.sum(1).clamp(min=1)).sum().backward()
    return losses.detach()


def shuffled_epochs(fit: Fit, rows: int, generator: torch.Generator) -> tuple[int, Iterator[Tensor]]:
    """The number of batches of all epochs of `Fit`, and an iterator over these batches, the same as `Fit`'s.

    Args:
        fit: epochs and batch size.
        rows: number of the member's rows.
        generator: source of the order of rows.
    """
    epochs = (shuffled(rows, fit.batch_size, generator) for _ in range(fit.epochs))
    return fit.epochs * fit.steps_an_epoch(rows), (batch for epoch in epochs for batch in epoch)


def fit_stack(
    stack: ModelStack,
    dataset: Dataset,
    included: Tensor,
    *,
    fit: Fit,
    generators: Sequence[torch.Generator],
    step: StackStep = plain_stack_step,
    batches: StackSampler = shuffled_epochs,
) -> Tensor:
    """Train each member on its own rows, as `fit` would train it alone with `Standard`, up to rounding.

    A member depends on its rows and its generator alone. A member with more rows makes more steps; each has its own
    learning rate schedule.

    Args:
        stack: K networks; trained in place, left in evaluation mode.
        dataset: all rows (N, *shape).
        included: which rows each member is trained on (K, N), bool.
        fit: epochs, batch size and optimizer.
        generators: source of the order of rows and of the step's randomness, one per member.
        step: sets the gradients of a batch; `plain_stack_step`, or a private one.
        batches: function of `fit`, number of rows and generator; returns a member's number of steps, and an iterator
            over the indices of each batch among the member's rows.

    Returns:
        Mean loss (K,) of the rows that each member saw in the last tenth of the steps.

    Raises:
        ValueError: `included` or `generators` that do not fit the stack, or a member without rows.
        FloatingPointError: a member's loss is not finite.
    """
    _check(stack, dataset, included, generators)
    device = stack.weights[0].device
    x, y = dataset.x.to(device), dataset.y.to(device)
    own = [rows.nonzero().squeeze(1) for rows in included]
    totals, draws = zip(*(batches(fit, len(o), g) for o, g in zip(own, generators, strict=True)), strict=True)
    settings = {total: _schedule(fit, total) for total in set(totals)}
    optimizer, members = _optimizer(fit, stack)
    steps, empty = max(totals), torch.zeros(0, dtype=torch.int64)
    seen, lost = torch.zeros(2, len(stack), dtype=torch.float64)

    stack.train()
    for t in tqdm(range(steps), mininterval=0.5, unit="step", desc=f"fit {len(stack)} together"):
        rows = [o[next(draw, empty)] for o, draw in zip(own, draws, strict=True)]
        size = torch.tensor([len(r) for r in rows])
        index = pad_sequence(rows, batch_first=True).to(device)  # (K, B)
        there = (torch.arange(index.shape[1]) < size[:, None]).to(device)
        losses = step(stack, x[index], y[index], there).sum(1).cpu().double()
        if not torch.isfinite(losses).all():
            worst = int((~torch.isfinite(losses)).nonzero()[0])
            raise FloatingPointError(
                f"the loss of member {worst} became {losses[worst].item()} in step {t}: "
                f"lower fit.learning_rate (now {fit.learning_rate})"
            )
        for group, total in zip(optimizer.param_groups, totals, strict=True):
            group.update(settings[total][t] if t < total else {"lr": 0.0})
        for parameter, views in members:
            assert parameter.grad is not None
            for view, grad in zip(views, parameter.grad.unbind(), strict=True):
                view.grad = grad
        optimizer.step()
        if t >= 0.9 * steps:
            seen, lost = seen + size, lost + losses
    stack.zero_grad(set_to_none=True)
    stack.eval()
    return lost / seen.clamp(min=1)


def _schedule(fit: Fit, total: int) -> list[dict[str, Any]]:
    """The learning rate, and the betas of AdamW, before each step of `fit`."""
    optimizer, schedule = fit.descent(nn.Linear(1, 1), total)
    settings: list[dict[str, Any]] = []
    for _ in range(total):
        group = optimizer.param_groups[0]
        settings.append({name: group[name] for name in ("lr", "betas") if name in group})
        optimizer.step()
        schedule.step()
    return settings


def _optimizer(fit: Fit, stack: ModelStack) -> tuple[Optimizer, list[tuple[nn.Parameter, list[nn.Parameter]]]]:
    """The optimizer of `fit` with a group per member, and for each parameter of the stack the members' views of it.

    The views share memory with the stack, so a step changes the stack's weights, one member after the other.
    """
    parameters = list(stack.parameters())
    views = [[nn.Parameter(part) for part in parameter.detach().unbind()] for parameter in parameters]
    groups = [{"params": list(parts)} for parts in zip(*views, strict=True)]
    optimizer: Optimizer
    if fit.momentum is None:
        optimizer = AdamW(groups, lr=fit.learning_rate, weight_decay=fit.weight_decay, fused=True)
    else:
        optimizer = SGD(groups, lr=fit.learning_rate, momentum=fit.momentum, weight_decay=fit.weight_decay, fused=True)
    return optimizer, list(zip(parameters, views, strict=True))


def _check(stack: ModelStack, dataset: Dataset, included: Tensor, generators: Sequence[torch.Generator]) -> None:
    if included.dtype != torch.bool or included.shape != (len(stack), len(dataset)):
        raise ValueError(
            f"included must be bool ({len(stack)}, {len(dataset)}), members by rows, got {included.dtype} "
            f"{tuple(included.shape)}"
        )
    if not included.any(1).all():
        lonely = int((~included.any(1)).nonzero()[0])
        raise ValueError(f"member {lonely} has no row to learn from: include at least one")
    if len(generators) != len(stack):
        raise ValueError(f"there are {len(stack)} members and {len(generators)} generators: give one for each")
