"""Certified radii of a smoothed classifier (Cohen et al., 2019, arXiv:1902.02918, section 3.2)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtri
from torch import Tensor, nn

from aisec_lab.core import RowNoise
from aisec_lab.core.binomial import fair_coin, lower_bound
from aisec_lab.core.validation import check_inputs, check_output
from aisec_lab.defenses.certification.smoothing import check_noise, noisy_logits
from aisec_lab.models.checked import checked_model

ABSTAIN = -1
BLOCK = 100  # samples drawn under one counter: fixed, so that the noise of a row does not depend on `batch`
BATCH = 1000


@dataclass(frozen=True)
class Certificate:
    """The outcome of `certify`; what it says of a row holds with confidence 1 - alpha.

    Cohen et al. (2019, arXiv:1902.02918, section 3.2).

    Args:
        classes: predicted class (N,), int64, or `ABSTAIN`.
        radius: certified L2 radius (N,), float64: the class is the same at every distance below it; 0 on abstention.
    """

    classes: Tensor
    radius: Tensor

    def holds(self, y: Tensor, eps: float) -> Tensor:
        """Which rows are certified to have class y everywhere in the closed L2 ball of radius eps.

        Args:
            y: classes (N,), int64.
            eps: radius, at least 0.

        Returns:
            Bool (N,).

        Raises:
            ValueError: a negative eps.
        """
        if not eps >= 0:
            raise ValueError(f"eps, a distance in L2, must be at least 0, got {eps}")
        return (self.classes == y) & (self.radius > eps)


def predict(
    model: nn.Module,
    x: Tensor,
    *,
    sigma: float,
    n: int = 10_000,
    alpha: float = 0.001,
    batch: int = BATCH,
    generator: torch.Generator,
) -> Tensor:
    """Predict the smoothed classifier's class by Monte Carlo (PREDICT, section 3.2.1).

    Args:
        model: base classifier in evaluation mode.
        x: inputs (N, *input) in [0, 1].
        sigma: standard deviation of the noise, in units of the input.
        n: noise samples for each row.
        alpha: failure probability, in (0, 1): the bound on how often a returned class is not the smoothed classifier's.
        batch: noisy inputs in one pass of the model, at least 100; it changes memory and rounding, not the noise.
        generator: source of the noise, which is keyed by row.

    Returns:
        Classes (N,), int64; `ABSTAIN` (-1) where a two-sided binomial test cannot tell the two top classes apart.

    Raises:
        ValueError: inputs outside [0, 1]; a model in training mode or with NaN logits; sigma, n or alpha out of range.
    """
    _check(model, x, sigma, alpha, n=n)
    with checked_model(model):
        counts = _sample_counts(model, x, RowNoise(x, generator), sigma, n, batch)
    top, runner_up = counts.topk(2, dim=1).values.T.cpu().numpy()
    decided = torch.from_numpy(fair_coin(top, top + runner_up) <= alpha).to(x.device)
    return torch.where(decided, counts.argmax(1), ABSTAIN)


def certify(
    model: nn.Module,
    x: Tensor,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    batch: int = BATCH,
    generator: torch.Generator,
) -> Certificate:
    """Certify a class and an L2 radius within which it cannot change (CERTIFY, section 3.2.2; theorem 1).

    Args:
        model: base classifier in evaluation mode.
        x: inputs (N, *input) in [0, 1].
        sigma: standard deviation of the noise, in units of the input.
        n0: samples for selection: they guess the top class.
        n: samples for estimation: they bound the top class's probability. They are drawn anew, or the bound is invalid.
        alpha: failure probability, in (0, 1): the bound on how often a row's class or radius is wrong.
        batch: noisy inputs in one pass of the model, at least 100; it changes memory and rounding, not the noise.
        generator: source of the noise, which is keyed by row.

    Returns:
        The certificate. Sampling of a row stops early once its bound can no longer exceed 1/2, where it abstains.

    Raises:
        ValueError: what `predict` refuses; n0 out of range.
    """
    _check(model, x, sigma, alpha, n0=n0, n=n)
    needed = int((lower_bound(np.arange(n + 1), n, alpha) <= 0.5).sum())  # the least count with p_lower > 1/2
    with checked_model(model):
        top = _sample_counts(model, x, RowNoise(x, generator), sigma, n0, batch).argmax(1)
        noise, count = RowNoise(x, generator), torch.zeros_like(top)  # count: samples that fall into class `top`
        active = torch.arange(len(x), device=x.device)
        for block, size in _blocks(n):
            remaining = n - BLOCK * block
            active = active[count[active] + remaining >= needed]
            if not len(active):
                break
            counts = _block_counts(model, x[active], noise.select(active), sigma, block, size, batch)
            count[active] += counts.gather(1, top[active, None]).squeeze(1)
    certified = count >= needed
    p_lower = lower_bound(count.cpu().numpy(), n, alpha)
    radius = torch.from_numpy(sigma * ndtri(np.maximum(p_lower, 0.5))).to(x.device)
    return Certificate(torch.where(certified, top, ABSTAIN), torch.where(certified, radius, 0.0))


def max_certifiable_radius(sigma: float, n: int, alpha: float) -> float:
    """The radius that n samples certify when all fall into one class: then p_lower = alpha^(1/n).

    Args:
        sigma: standard deviation of the noise, in units of the input.
        n: samples for estimation.
        alpha: failure probability, in (0, 1).

    Returns:
        sigma * Phi^-1(alpha^(1/n)), in L2; negative where n is too small to certify anything.

    Raises:
        ValueError: sigma, n or alpha out of range.
    """
    check_noise(sigma, n=n)
    return float(sigma * ndtri(lower_bound(n, n, alpha)))


def _blocks(n: int) -> list[tuple[int, int]]:
    """Number and size of each block of n samples."""
    return [(block, min(BLOCK, n - BLOCK * block)) for block in range(-(-n // BLOCK))]


def _sample_counts(model: nn.Module, x: Tensor, noise: RowNoise, sigma: float, n: int, batch: int) -> Tensor:
    """Counts (N, K): in how many of n noise samples the base classifier predicts each class."""
    return torch.stack([_block_counts(model, x, noise, sigma, *block, batch) for block in _blocks(n)]).sum(0)


@torch.no_grad()
def _block_counts(
    model: nn.Module, x: Tensor, noise: RowNoise, sigma: float, block: int, size: int, batch: int
) -> Tensor:
    """Counts (N, K) of one block of samples."""
    counts = []
    for rows in torch.arange(len(x), device=x.device).split(max(1, batch // size)):
        draws = sigma * noise.select(rows).normal((size, *x.shape[1:]), block)
        logits = noisy_logits(model, x[rows], draws)
        check_output(logits.flatten(0, 1), rows[:0])
        counts.append(F.one_hot(logits.argmax(2), logits.shape[2]).sum(1))
    return torch.cat(counts)


def _check(model: nn.Module, x: Tensor, sigma: float, alpha: float, **counts: int) -> None:
    """Refuse inputs, a model or settings that cannot be certified."""
    check_inputs(model, x, torch.zeros(len(x), dtype=torch.int64))
    check_noise(sigma, **counts)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha, the share of wrong certificates, must lie in (0, 1), got {alpha}")
