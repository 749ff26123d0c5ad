"""Unlearning: find a perturbation that acts as a backdoor would, train until it does nothing, and again."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR

from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.data import Dataset
from aisec_lab.models import copied, logits_of, trainable
from aisec_lab.models.contexts import keeps_statistics

FIXED = 5  # iterations towards the fixed point of the implicit gradient
ETA = 0.1  # of the ascent whose fixed point that is: delta + eta * gradient, back onto the ball
TINY = 1e-12  # keeps a gradient of zero from dividing by zero


@dataclass(frozen=True)
class IBAU:
    """Implicit backdoor adversarial unlearning (Zeng et al., 2022, arXiv:2110.03735, algorithm 1).

    The weights minimise the cross-entropy on clean rows under the one perturbation delta of L2 norm at most eps that
    raises it most for all rows together. Each round finds that delta afresh and takes one step of Adam along the
    gradient which knows how delta answers to the weights: the implicit function theorem, by fixed-point iterations with
    products of the Hessian and a vector (section 4.2). Half of the loss is that of the rows as they are: on few rows
    the other half alone would cost the accuracy that the repair shall keep.

    Statistics of batch norms follow the weights, by a pass over each round's clean rows. Left as they were, they would
    belong to other weights, which costs accuracy, the more of such layers there are the more.

    Args:
        eps: radius of the ball of perturbations; the perturbed image is cut to [0, 1].
        rounds: steps of the weights.
        ascents: steps of the perturbation a round, each of a fifth of eps.
        learning_rate: Adam's at first; it falls in a line towards zero.
        batch_size: clean rows a round.

    Args of the call, returns: as for `Repair`.

    Raises:
        ValueError: all weights are frozen; one row for a batch norm; what an attack refuses of a model and its inputs.
    """

    eps: float = 1.5
    rounds: int = 60
    ascents: int = 5
    learning_rate: float = 0.004
    batch_size: int = 128

    def __post_init__(self) -> None:
        if not (self.eps > 0 and self.learning_rate > 0) or min(self.rounds, self.ascents, self.batch_size) < 1:
            raise ValueError(f"eps, rounds, ascents, learning_rate and batch_size must be positive: {self}")

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> nn.Module:
        check(model, clean.x, clean.y)
        check_answer(logits_of(model, clean.x[:2]), clean.y)
        repaired = copied(model)
        weights = trainable(repaired)
        norms = [layer for layer in repaired.modules() if isinstance(layer, _BatchNorm) and not keeps_statistics(layer)]
        if norms and min(len(clean), self.batch_size) < 2:
            raise ValueError("statistics of batch norms need two clean rows or more a round, got one: give more")
        optimizer = Adam(weights, self.learning_rate)
        schedule = LinearLR(optimizer, 1, 1 / self.rounds, self.rounds)  # the last steps settle the rest
        for _ in range(self.rounds):
            batch = clean.subset(torch.randperm(len(clean), generator=generator)[: self.batch_size].to(clean.x.device))
            delta = self._worst(repaired, batch).requires_grad_()
            inner = under(repaired, batch, delta)
            outer = (inner + F.cross_entropy(repaired(batch.x), batch.y)) / 2
            (slope,) = torch.autograd.grad(inner, delta, create_graph=True)
            onward = within(delta + ETA * slope, self.eps)
            for weight, grad in zip(weights, hypergradient(outer, onward, delta, weights), strict=True):
                weight.grad = grad
            optimizer.step()
            schedule.step()
            fine_tune(norms, repaired, batch.x)
        optimizer.zero_grad(set_to_none=True)
        return repaired

    def _worst(self, model: nn.Module, batch: Dataset) -> Tensor:
        """The perturbation (1, *input) of norm at most eps under which the loss is largest, by gradient ascent."""
        delta = torch.zeros_like(batch.x[:1])
        for _ in range(self.ascents):
            delta.requires_grad_()
            (grad,) = torch.autograd.grad(under(model, batch, delta), delta)
            delta = within(delta.detach() + 0.2 * self.eps * grad / grad.norm().clamp(min=TINY), self.eps)
        return delta


@torch.no_grad()
def fine_tune(norms: Sequence[_BatchNorm], model: nn.Module, x: Tensor) -> None:
    """Move the statistics of a model's batch norms towards those of rows x (N, *input); nothing for a model without."""
    if norms:
        for norm in norms:
            norm.train()
        model(x)
        for norm in norms:
            norm.eval()


def under(model: nn.Module, batch: Dataset, delta: Tensor) -> Tensor:
    """The mean cross-entropy on rows that all carry the perturbation delta (1, *input), cut to [0, 1]."""
    return F.cross_entropy(model((batch.x + delta).clamp(0, 1)), batch.y)


def within(delta: Tensor, eps: float) -> Tensor:
    """The nearest perturbation (1, *input) of L2 norm at most eps."""
    return delta * (eps / delta.norm().clamp(min=TINY)).clamp(max=1)


def hypergradient(outer: Tensor, onward: Tensor, delta: Tensor, weights: list[nn.Parameter]) -> list[Tensor | None]:
    """The gradient in the weights of a loss at a perturbation that answers to them, as a fixed point of a map.

    With J the Jacobian of the map in delta, v = (I - J')^-1 grad_delta outer is the limit of v <- grad_delta outer +
    J' v; the gradient is grad_weights outer + (the map's Jacobian in the weights)' v.

    Args:
        outer: the loss, with its graph.
        onward: what the map makes of delta, with its graph, twice differentiable.
        delta: the perturbation, where both were computed.
        weights: what the gradient is of.

    Returns:
        One tensor for each weight, of its shape; None for one on which the loss does not depend.
    """
    (pull,) = torch.autograd.grad(outer, delta, retain_graph=True)
    v = pull
    for _ in range(FIXED):
        v = pull + torch.autograd.grad(onward, delta, v, retain_graph=True)[0]
    direct = torch.autograd.grad(outer, weights, retain_graph=True, allow_unused=True)
    indirect = torch.autograd.grad(onward, weights, v, allow_unused=True)
    return [a if a is None or b is None else a + b for a, b in zip(direct, indirect, strict=True)]
