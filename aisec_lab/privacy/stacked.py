"""Private training of many small networks together: DP-SGD on a stack."""

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


def mechanism_of_a_member(private: DPSGD, fit: Fit, rows: int) -> SampledGaussian:
    """What the training of one member of a stack is to an accountant; q and the steps are sampled as stated here.

    A member's rows are drawn by fair coins, so their number is no public constant and neither q nor the steps may
    follow it: they are those of `DPSGD` on rows // 2, whatever the coins said.

    Args:
        private: epsilon or noise, delta.
        fit: batch size and epochs.
        rows: all of them, of which a member has about half.

    Raises:
        ValueError: as `DPSGD.mechanism`, on half the rows.
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
        stack, dataset, generators: as for `fit_stack`; sampling and noise are seeded, so that this is a simulation.
        included: fair coins (K, N), bool, as `inclusion_mask` throws them.
        private: epsilon or noise, delta, and the clipping norm; `FlatClipping` or `GhostClipping`, which are the same
            here.
        fit: epochs, expected batch size and optimizer.

    Returns:
        As `fit_stack`; these losses are not private.

    Raises:
        ValueError: also another clipping, a release, or what `mechanism_of_a_member` refuses.
    """
    if type(private.clipping) not in (FlatClipping, GhostClipping) or private.release:
        raise ValueError(
            f"a stack is trained with FlatClipping or GhostClipping and not for release, got {private}: use Fit"
        )
    if private.objective != Standard() or private.stop is not None:
        raise ValueError("a stack is trained with the objective Standard and to its end: use Fit for another")
    mechanism, norm = mechanism_of_a_member(private, fit, len(dataset)), private.clipping.max_grad_norm
    step = partial(
        private_stack_step, norm=norm, noise=mechanism.sigma * norm, expected=fit.batch_size, generators=generators
    )
    batches = partial(poisson_steps, mechanism=mechanism)
    return fit_stack(stack, dataset, included, fit=fit, generators=generators, step=step, batches=batches)


def poisson_steps(
    fit: Fit, rows: int, generator: torch.Generator, *, mechanism: SampledGaussian
) -> tuple[int, Iterator[Tensor]]:
    """The mechanism's steps, and for each of them the rows of a member that join it, every one by its own chance q."""
    draws = (uniforms(rows, generator) < mechanism.q for _ in range(mechanism.steps))
    return mechanism.steps, (joined.nonzero().squeeze(1) for joined in draws)


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
    """The private gradient of each member: rows cut to `norm`, summed, with noise, over the expected batch.

    No row's gradient is written out: a linear layer's is the outer product of its input a and of the gradient b of its
    output, and its squared norm, the bias' included, (|a|^2 + 1) |b|^2 (Goodfellow, 2015, arXiv:1510.01799).

    Args:
        stack, x, y, there: as for `plain_stack_step`; a batch may be empty, and its gradient is noise.
        norm: the largest L2 norm of a row's gradient.
        noise: standard deviation of the noise on the sum.
        expected: rows of a batch on average, by which the sum is divided.
        generators: source of the noise, one for each member.

    Returns:
        Losses (K, B), detached, 0 for padding and for rows whose gradient is not finite, which count as zero.
    """
    inputs, outputs = stack.layers(x)
    losses = F.cross_entropy(outputs[-1].flatten(0, 1), y.flatten(), reduction="none").view(y.shape) * there
    gradients = torch.autograd.grad(losses.sum(), outputs)  # (K, B, out) each; rows do not meet, so each has its own
    with torch.no_grad():
        squares = [(a.square().sum(2) + 1) * b.square().sum(2) for a, b in zip(inputs, gradients, strict=True)]
        scale = (norm / (torch.stack(squares).sum(0).sqrt() + TINY)).clamp(max=1)  # (K, B)
        finite = torch.stack(squares).sum(0).isfinite()
        if not finite.all():  # such a row counts as zero
            scale, losses = (torch.where(finite, value, 0) for value in (scale, losses))
            inputs = [torch.where(finite[..., None], part, 0) for part in inputs]
            gradients = tuple(torch.where(finite[..., None], part, 0) for part in gradients)
        for weight, bias, a, b in zip(stack.weights, stack.biases, inputs, gradients, strict=True):
            cut = b * scale[..., None]
            for parameter, total in ((weight, a.mT @ cut), (bias, cut.sum(1, keepdim=True))):
                if noise:
                    drawn = torch.stack([normals(total.shape[1:], generator) for generator in generators])
                    total = total + noise * drawn.to(total)
                parameter.grad = total / expected
    return losses.detach()
