"""I-BAU: find a perturbation that acts like a backdoor, train the model against it, and repeat."""

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

FIXED = 5  # fixed-point iterations for the implicit gradient
ETA = 0.1  # step size of the map whose fixed point it is: delta + eta * gradient, projected onto the ball
TINY = 1e-12  # keeps a gradient of zero from dividing by zero


@dataclass(frozen=True)
class IBAU:
    """Implicit backdoor adversarial unlearning (Zeng et al., 2022, arXiv:2110.03735, algorithm 1).

    The weights minimise the cross-entropy on clean rows under one perturbation delta, shared by all rows: the one of L2
    norm at most eps that raises the loss most. Each round computes delta anew and takes one step of Adam. The gradient
    includes how delta depends on the weights: the implicit function theorem, by fixed-point iterations with products
    of the Hessian and a vector (section 4.2). Half of the loss is that of the unperturbed rows. Without it, a repair on
    few rows would lose accuracy.

    Running statistics of batch norms are updated by a pass over each round's clean rows, since they would otherwise
    belong to the former weights.

    Call contract: docs/backdoor-defenses.md, "Repairs".

    Args:
        eps: L2 radius of the perturbation, above 0; the perturbed input is clipped to [0, 1].
        rounds: steps of the weights.
        ascents: steps of the perturbation in each round, each of length eps / 5.
        learning_rate: Adam's, in the first round; it falls linearly towards zero.
        batch_size: clean rows in each round.

    Raises:
        ValueError: a setting that is not positive, a model whose weights are all frozen, or a model with batch norms
            and fewer than two rows in a round.
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
            inner = loss_under(repaired, batch, delta)
            outer = (inner + F.cross_entropy(repaired(batch.x), batch.y)) / 2
            (slope,) = torch.autograd.grad(inner, delta, create_graph=True)
            onward = project_l2(delta + ETA * slope, self.eps)
            for weight, grad in zip(weights, hypergradient(outer, onward, delta, weights), strict=True):
                weight.grad = grad
            optimizer.step()
            schedule.step()
            fine_tune(norms, repaired, batch.x)
        optimizer.zero_grad(set_to_none=True)
        return repaired

    def _worst(self, model: nn.Module, batch: Dataset) -> Tensor:
        """The perturbation (1, *input) of L2 norm at most eps that maximises the loss, by gradient ascent."""
        delta = torch.zeros_like(batch.x[:1])
        for _ in range(self.ascents):
            delta.requires_grad_()
            (grad,) = torch.autograd.grad(loss_under(model, batch, delta), delta)
            delta = project_l2(delta.detach() + 0.2 * self.eps * grad / grad.norm().clamp(min=TINY), self.eps)
        return delta


@torch.no_grad()
def fine_tune(norms: Sequence[_BatchNorm], model: nn.Module, x: Tensor) -> None:
    """Update the running statistics of a model's batch norms on rows x (N, *input)."""
    if norms:
        for norm in norms:
            norm.train()
        model(x)
        for norm in norms:
            norm.eval()


def loss_under(model: nn.Module, batch: Dataset, delta: Tensor) -> Tensor:
    """The mean cross-entropy on rows that all have the perturbation delta (1, *input) added, clipped to [0, 1]."""
    return F.cross_entropy(model((batch.x + delta).clamp(0, 1)), batch.y)


def project_l2(delta: Tensor, eps: float) -> Tensor:
    """The projection of a perturbation (1, *input) onto the L2 ball of radius eps."""
    return delta * (eps / delta.norm().clamp(min=TINY)).clamp(max=1)


def hypergradient(outer: Tensor, onward: Tensor, delta: Tensor, weights: list[nn.Parameter]) -> list[Tensor | None]:
    """The gradient of a loss with respect to the weights, where delta is a fixed point that depends on them.

    With J the Jacobian of the map with respect to delta, v = (I - J')^-1 grad_delta outer is the limit of
    v <- grad_delta outer + J' v. The gradient is grad_weights outer + (the map's Jacobian in the weights)' v.

    Args:
        outer: the loss, with its graph.
        onward: the value of the map at delta, with its graph, twice differentiable.
        delta: the perturbation at which both were computed.
        weights: the parameters that the gradient is taken for.

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
