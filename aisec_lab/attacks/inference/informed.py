"""Informed reconstruction: which candidate is the one training row that the adversary does not know (DP-SGD)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.optim import Optimizer

from aisec_lab.core.validation import check_inputs, check_output
from aisec_lab.models import Step, frozen
from aisec_lab.models.layers import refuse_opaque
from aisec_lab.models.training.fit import Losses

TINY = 1e-6  # keeps a gradient of zero from dividing by zero


class GradientObservation(NamedTuple):
    """What an adversary that knows all rows but one, and who was in the batch, observes of one step of DP-SGD.

    Args:
        weights: of the model before the step, by name.
        gradient: noisy sum of the clipped gradients minus those of the known rows, (D,), over all weights in order.
    """

    weights: dict[str, Tensor]
    gradient: Tensor


class GradientRecorder:
    """Record what that adversary observes: a training step for `Fit` that wraps the real one.

    The threat model of Hayes et al. (2023, arXiv:2302.07225); the adversary also knows which rows are in each batch,
    which the bounds allow.

    Args:
        model: the classifier that is trained.
        step: the real step (`DPSGD.private_step`); it leaves the noisy sum of clipped gradients over `expected` as the
            gradient of the weights.
        expected: expected batch size, by which the step divides.
        max_grad_norm: C, the L2 norm to which the step clips each row's gradient over all weights.
        target: the unknown row (1, *input); no known row equals it.

    Attributes:
        observations: one for each step so far, in their order.

    Raises:
        ValueError: an opaque model.
    """

    def __init__(self, model: nn.Module, step: Step, expected: int, max_grad_norm: float, target: Tensor) -> None:
        refuse_opaque(model)
        self.model, self.step, self.expected, self.bound, self.target = model, step, expected, max_grad_norm, target
        self.observations: list[GradientObservation] = []

    def __call__(self, model: nn.Module, optimizer: Optimizer, losses: Losses) -> Tensor:
        """Make one step and record it.

        Args:
            model: the classifier that is trained.
            optimizer: of its weights.
            losses: of a batch.

        Returns:
            What the real step returns.
        """
        weights = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}
        batch = self.step(model, optimizer, losses)
        grads = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        gradient = self.expected * torch.cat([grad.flatten() for grad in grads])
        known = (losses.x != self.target).flatten(1).any(1)
        if known.any():
            with frozen(self.model):
                rows = clipped_gradients(self.model, weights, losses.x[known], losses.y[known], self.bound)
            gradient = gradient - rows.sum(0)
        self.observations.append(GradientObservation(weights, gradient))
        return batch


@dataclass(frozen=True)
class PriorAwareReconstruction:
    """The prior-aware attack of Hayes et al. (2023, arXiv:2302.07225).

    A candidate's score is the sum over steps of the inner product of the observed gradient and its clipped gradient.
    Call contract: docs/inference-attacks.md.

    Args:
        max_grad_norm: C of the training, positive.
    """

    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _check_settings(1, 1, self.max_grad_norm)

    def __call__(self, model: nn.Module, observations: Sequence[GradientObservation], x: Tensor, y: Tensor) -> Tensor:
        """Score candidates.

        Args:
            model: classifier of the recorded weights' architecture, in evaluation mode, not opaque.
            observations: one or more steps of its training.
            x: candidates (M, *input) in [0, 1], equally likely beforehand.
            y: their classes (M,), int64.

        Returns:
            Scores (M,), float64; the largest is the guess.

        Raises:
            ValueError: no observation, candidates outside [0, 1], an opaque model, or one in training mode.
        """
        products, _ = _products(model, observations, x, y, self.max_grad_norm)
        return products.sum(0)


@dataclass(frozen=True)
class BayesReconstruction:
    """The Bayes-optimal attack: the most probable candidate under the noise and the sampling of DP-SGD.

    The threat model is that of Hayes et al. (2023, arXiv:2302.07225). With q = 1 and gradients of equal length it
    orders candidates as `PriorAwareReconstruction` does. With q < 1 it also accounts for steps in which the unknown row
    was not in the batch. Call contract: docs/inference-attacks.md.

    Args:
        q: probability that a row is in a batch, in (0, 1].
        sigma: noise multiplier, positive.
        max_grad_norm: C of the training, positive.
    """

    q: float = 1.0
    sigma: float = 1.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        _check_settings(self.q, self.sigma, self.max_grad_norm)
        if not self.sigma > 0:
            raise ValueError("without noise there is no likelihood: use PriorAwareReconstruction, or sigma > 0")

    def __call__(self, model: nn.Module, observations: Sequence[GradientObservation], x: Tensor, y: Tensor) -> Tensor:
        """Score candidates.

        Args:
            model: classifier of the recorded weights' architecture, in evaluation mode, not opaque.
            observations: one or more steps of its training.
            x: candidates (M, *input) in [0, 1], equally likely beforehand.
            y: their classes (M,), int64.

        Returns:
            Scores (M,), float64: the log likelihood ratio of the candidate against no row at all.

        Raises:
            ValueError: no observation, candidates outside [0, 1], an opaque model, or one in training mode.
        """
        products, squares = _products(model, observations, x, y, self.max_grad_norm)
        there = (products - squares / 2) / (self.sigma * self.max_grad_norm) ** 2  # log ratios (T, M)
        return subsampled_log_ratio(there, self.q).sum(0)


def subsampled_log_ratio(log_ratio: Tensor, q: float) -> Tensor:
    """The log likelihood ratio of a step that contains the row with probability q only: log(1 - q + q e^l).

    Args:
        log_ratio: l, the log likelihood ratio if the step contains the row, any shape.
        q: in (0, 1].

    Returns:
        Log ratios, shape of `log_ratio`.
    """
    absent = math.log1p(-q) if q < 1 else -math.inf
    return torch.logaddexp(torch.full_like(log_ratio, absent), log_ratio + math.log(q))


def clipped_gradients(model: nn.Module, weights: dict[str, Tensor], x: Tensor, y: Tensor, bound: float) -> Tensor:
    """Each row's gradient of the cross-entropy, clipped to an L2 norm.

    Args:
        model: classifier, frozen.
        weights: the weights to use, by name.
        x, y: rows (N, *input) and classes (N,), int64.
        bound: C, positive.

    Returns:
        Gradients (N, D), over all weights in order, of norm at most C.
    """

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, weights, (x.unsqueeze(0),)), y.unsqueeze(0))

    parts = vmap(grad(loss), (None, 0, 0))(weights, x, y)
    rows = torch.cat([parts[name].flatten(1) for name in weights], 1)
    return rows * (bound / (rows.norm(dim=1, keepdim=True) + TINY)).clamp(max=1)


def _products(
    model: nn.Module, observations: Sequence[GradientObservation], x: Tensor, y: Tensor, bound: float
) -> tuple[Tensor, Tensor]:
    """Inner products of the candidates' clipped gradients with T observations, and their squared norms: (T, M) each."""
    check_inputs(model, x, y)
    refuse_opaque(model)
    if not observations:
        raise ValueError("no observation of the training was given: record at least one step")
    with frozen(model):
        check_output(model(x), y)
        rows = [clipped_gradients(model, observation.weights, x, y, bound).double() for observation in observations]
    products = torch.stack(
        [row @ observation.gradient.double() for row, observation in zip(rows, observations, strict=True)]
    )
    return products, torch.stack([row.square().sum(1) for row in rows])


def _check_settings(q: float, sigma: float, max_grad_norm: float) -> None:
    """Refuse settings of DP-SGD that are out of range."""
    if not (0 < q <= 1 and sigma >= 0 and max_grad_norm > 0):
        raise ValueError(
            f"q must lie in (0, 1], sigma not be negative, max_grad_norm be positive: got {q}, {sigma}, {max_grad_norm}"
        )
