"""DP-SGD on a stack of many small networks, trained together."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from aisec_lab.data import Dataset
from aisec_lab.defenses import Standard
from aisec_lab.models.training.fit import Fit
from aisec_lab.models.training.fit_stack import ModelStack, fit_stack
from aisec_lab.privacy.accounting import SampledGaussian
from aisec_lab.privacy.clipping import TINY, FlatClipping, GhostClipping
from aisec_lab.privacy.dp_sgd import DPSGD
from aisec_lab.privacy.sampling import normals, uniforms


def member_mechanism(private: DPSGD, fit: Fit, rows: int) -> SampledGaussian:
    """The mechanism of the training of one member of a stack.

    Each member's rows are drawn by fair coins. Their number is private, so q and the steps must not depend on it: they
    are those of `DPSGD` on rows // 2.

    Args:
        private: epsilon or noise multiplier, and delta.
        fit: expected batch size and epochs.
        rows: number of all rows, of which a member has about half.

    Returns:
        Sampling rate, noise multiplier and steps.

    Raises:
        ValueError: rows // 2 below the batch size, or delta not below 1 / (rows // 2).
    """
    return private.mechanism(fit, rows // 2)


def fit_private_stack(
    stack: ModelStack,
    dataset: Dataset,
    included: Tensor,
    private: DPSGD,
    *,
    fit: Fit,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Train each member with `DPSGD` on rows of its own (Abadi et al., 2016, arXiv:1607.00133, algorithm 1).

    Args:
        stack: K networks; trained in place, left in evaluation mode.
        dataset: all N rows, with classes.
        included: fair coins (K, N), bool, as `inclusion_mask` draws them: which rows each member is trained on.
        private: epsilon or noise multiplier, delta, and `FlatClipping` or `GhostClipping`, which are the same here.
        fit: epochs, expected batch size and optimizer.
        generators: source of sampling and noise, one per member. They are seeded, so the models are a simulation.

    Returns:
        Mean loss (K,) of the rows that each member saw in the last tenth of the steps; it is not private.

    Raises:
        ValueError: coins or generators that do not fit the stack; another clipping or objective, `stop` or `release`;
            what `member_mechanism` refuses.
        FloatingPointError: a member's loss is not finite.
    """
    if type(private.clipping) not in (FlatClipping, GhostClipping) or private.release:
        raise ValueError(
            f"a stack is trained with FlatClipping or GhostClipping and not for release, got {private}: use Fit"
        )
    if private.objective != Standard() or private.stop is not None:
        raise ValueError("a stack is trained with the objective Standard and to its end: use Fit for another")
    mechanism, norm = member_mechanism(private, fit, len(dataset)), private.clipping.max_grad_norm
    step = partial(
        private_stack_step, norm=norm, noise=mechanism.sigma * norm, expected=fit.batch_size, generators=generators
    )
    batches = partial(poisson_steps, mechanism=mechanism)
    return fit_stack(stack, dataset, included, fit=fit, generators=generators, step=step, batches=batches)


def poisson_steps(
    fit: Fit, rows: int, generator: torch.Generator, *, mechanism: SampledGaussian
) -> tuple[int, Iterator[Tensor]]:
    """A `StackSampler` of Poisson batches: the mechanism's steps, and the row indices (n,) of each step's batch.

    Args:
        fit: not used; the mechanism has its epochs and batch size.
        rows: number of the member's rows.
        generator: source of randomness.
        mechanism: sampling rate and steps.
    """
    masks = (uniforms(rows, generator) < mechanism.q for _ in range(mechanism.steps))
    return mechanism.steps, (mask.nonzero().squeeze(1) for mask in masks)


def private_stack_step(
    stack: ModelStack,
    x: Tensor,
    y: Tensor,
    there: Tensor,
    *,
    norm: float,
    noise: float,
    expected: float,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Set each member's private gradient: the noisy sum of clipped per-sample gradients over the expected batch size.

    Per-sample gradients are not stored. That of a linear layer is the outer product of its activations a and backprops
    b, and its squared norm, with the bias, is (|a|^2 + 1) |b|^2 (Goodfellow, 2015, arXiv:1510.01799).

    Args:
        stack: its parameters' `grad` is set.
        x, y: a batch for each member, (K, B, *shape) and (K, B), padded at the end; it may be empty.
        there: mask (K, B) of the rows that are not padding.
        norm: clipping norm.
        noise: standard deviation of the noise on the sum.
        expected: expected rows of a batch, by which the sum is divided.
        generators: source of the noise, one per member.

    Returns:
        Losses (K, B), detached; 0 for padding and for rows whose gradient is not finite, which are dropped.
    """
    activations, outputs = stack.layers(x)
    losses = F.cross_entropy(outputs[-1].flatten(0, 1), y.flatten(), reduction="none").view(y.shape) * there
    backprops = torch.autograd.grad(losses.sum(), outputs)  # (K, B, out) each
    with torch.no_grad():
        squares = [(a.square().sum(2) + 1) * b.square().sum(2) for a, b in zip(activations, backprops, strict=True)]
        factors = (norm / (torch.stack(squares).sum(0).sqrt() + TINY)).clamp(max=1)  # (K, B)
        finite = torch.stack(squares).sum(0).isfinite()
        if not finite.all():
            factors, losses = (torch.where(finite, value, 0) for value in (factors, losses))
            activations = [torch.where(finite[..., None], part, 0) for part in activations]
            backprops = tuple(torch.where(finite[..., None], part, 0) for part in backprops)
        for weight, bias, a, b in zip(stack.weights, stack.biases, activations, backprops, strict=True):
            clipped = b * factors[..., None]
            for parameter, total in ((weight, a.mT @ clipped), (bias, clipped.sum(1, keepdim=True))):
                if noise:
                    drawn = torch.stack([normals(total.shape[1:], generator) for generator in generators])
                    total = total + noise * drawn.to(total)
                parameter.grad = total / expected
    return losses.detach()
