"""Informed reconstruction: which candidate is the one training row that the adversary does not know."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.optim import Optimizer

from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.models import Step, frozen
from aisec_lab.models.layers import refuse_opaque
from aisec_lab.models.training.fit import Losses

TINY = 1e-6  # keeps a gradient of zero from dividing by zero


class GradientObservation(NamedTuple):
    """One step of private training in the eyes of an adversary that knows all rows but one, and who was in the batch.

    Args:
        weights: of the model before the step, by name.
        gradient: the noisy sum of clipped gradients (D,), less those of the known rows, over all weights in order.
    """

    weights: dict[str, Tensor]
    gradient: Tensor


class GradientRecorder:
    """Private training in the eyes of that adversary: a `Step` of `Fit` around the real one.

    The threat model of Hayes et al. (2023, arXiv:2302.07225), who is in the batch given away too, as the bounds allow.

    Args:
        model: the one in training.
        step: what trains it (`DPSGD.private_step`) and leaves, as the weights' gradient, the noisy sum of clipped
            gradients over `expected`.
        expected: rows of a batch, by which the step divides.
        max_grad_norm: C, to which the step cuts each row's gradient over all weights.
        target: the unknown row (1, *input), which no known row equals.

    `looks` are what has been seen so far, one for each step.
    """

    def __init__(self, model: nn.Module, step: Step, expected: int, max_grad_norm: float, target: Tensor) -> None:
        refuse_opaque(model)
        self.model, self.step, self.expected, self.bound, self.target = model, step, expected, max_grad_norm, target
        self.looks: list[GradientObservation] = []

    def __call__(self, model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
        weights = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}
        batch = self.step(model, optimizer, losses)
        grads = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        gradient = self.expected * torch.cat([grad.flatten() for grad in grads])
        known = (losses.x != self.target).flatten(1).any(1)
        if known.any():
            with frozen(self.model):
                rows = clipped_gradients(self.model, weights, losses.x[known], losses.y[known], self.bound)
            gradient = gradient - rows.sum(0)
        self.looks.append(GradientObservation(weights, gradient))
        return batch


@dataclass(frozen=True)
class PriorAwareReconstruction:
    """The prior-aware attack of Hayes et al. (2023, arXiv:2302.07225): sum_t <seen_t, clipped gradient_t>.

    Args:
        max_grad_norm: C of the training.

    Args of the call:
        model: the classifier whose weights the looks hold, in evaluation mode.
        looks: one or more.
        x, y: the candidates (M, *input) and their classes (M,), all equally likely before.

    Returns:
        Scores (M,), float64; the largest is the guess.
    """

    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _check_settings(1, 1, self.max_grad_norm)

    def __call__(self, model: nn.Module, looks: Sequence[GradientObservation], x: Tensor, y: Tensor) -> Tensor:
        products, _ = _products(model, looks, x, y, self.max_grad_norm)
        return products.sum(0)


@dataclass(frozen=True)
class BayesReconstruction:
    """The most probable candidate, which no attack beats: Bayes' rule for the noise and the coins of the training.

    With every row in every batch and gradients of one length it orders candidates as `PriorAwareReconstruction`; with
    sampling it does not take a step that shows nothing for one that speaks against a candidate.

    Args:
        q, sigma, max_grad_norm: of the training.

    Args of the call, returns: as for `PriorAwareReconstruction`; scores are logarithms of likelihood ratios to there
    being no row.
    """

    q: float = 1.0
    sigma: float = 1.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _check_settings(self.q, self.sigma, self.max_grad_norm)
        if not self.sigma > 0:
            raise ValueError("without noise there is no likelihood: use PriorAwareReconstruction, or sigma > 0")

    def __call__(self, model: nn.Module, looks: Sequence[GradientObservation], x: Tensor, y: Tensor) -> Tensor:
        products, squares = _products(model, looks, x, y, self.max_grad_norm)
        there = (products - squares / 2) / (self.sigma * self.max_grad_norm) ** 2  # log ratios (T, M)
        return subsampled_log_ratio(there, self.q).sum(0)


def subsampled_log_ratio(log_ratio: Tensor, q: float) -> Tensor:
    """log(1 - q + q e^l) of logarithms l of likelihood ratios, any shape: for a row that is there with chance q."""
    absent = math.log1p(-q) if q < 1 else -math.inf
    return torch.logaddexp(torch.full_like(log_ratio, absent), log_ratio + math.log(q))


def clipped_gradients(model: nn.Module, weights: dict[str, Tensor], x: Tensor, y: Tensor, bound: float) -> Tensor:
    """Each row's gradient of the cross-entropy, cut to an L2 norm.

    Args:
        model: classifier, frozen.
        weights: those to use, by name.
        x, y: rows (N, *input) and classes (N,).
        bound: C.

    Returns:
        (N, D), over all weights in order.
    """

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, weights, (x.unsqueeze(0),)), y.unsqueeze(0))

    parts = vmap(grad(loss), (None, 0, 0))(weights, x, y)
    rows = torch.cat([parts[name].flatten(1) for name in weights], 1)
    return rows * (bound / (rows.norm(dim=1, keepdim=True) + TINY)).clamp(max=1)


def _products(
    model: nn.Module, looks: Sequence[GradientObservation], x: Tensor, y: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """Inner products with what was seen, and squared lengths, of the candidates' clipped gradients: (T, M), float64."""
    check(model, x, y)
    refuse_opaque(model)
    if not looks:
        raise ValueError("no look at the training was given: record at least one step")
    with frozen(model):
        check_answer(model(x), y)
        rows = [clipped_gradients(model, look.weights, x, y, bound).double() for look in looks]
    products = torch.stack([row @ look.gradient.double() for row, look in zip(rows, looks, strict=True)])
    return products, torch.stack([row.square().sum(1) for row in rows])


def _check_settings(q: float, sigma: float, max_grad_norm: float) -> None:
    if not (0 < q <= 1 and sigma >= 0 and max_grad_norm > 0):
        raise ValueError(
            f"q must lie in (0, 1], sigma not be negative, max_grad_norm be positive: got {q}, {sigma}, {max_grad_norm}"
        )
