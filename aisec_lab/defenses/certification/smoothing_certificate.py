"""What can be proved of a smoothed classifier, and with which confidence (Cohen et al., 2019, arXiv:1902.02918)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import ndtri
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.core import RowNoise
from aisec_lab.core.binomial import fair_coin, lower_bound
from aisec_lab.defenses.certification.smoothing import check_noise, noisy_logits
from aisec_lab.models.asked import asked

ABSTAIN = -1
BLOCK = 100  # copies drawn under one counter: fixed, so that the noise of a row does not depend on `batch`
BATCH = 1000


@dataclass(frozen=True)
class Certificate:
    """What `certify` proves, each row with confidence 1 - alpha.

    Attributes:
        classes: the smoothed classifier's class (N,), int64, or `ABSTAIN`.
        radius: (N,), float64, in L2: at a distance below it the class is the same; 0 where it abstains.
    """

    classes: Tensor
    radius: Tensor

    def holds(self, y: Tensor, eps: float) -> Tensor:
        """Which rows (N,) are proved to have class y (N,) everywhere within eps >= 0, the sphere included."""
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
    """The smoothed classifier's class, or abstention (PREDICT of section 3.2.1).

    Args:
        model: the base classifier in evaluation mode.
        x: inputs (N, *input) in [0, 1].
        sigma: standard deviation of the noise, in units of the input.
        n: noisy copies of each row.
        alpha: how often, at most, a class that is given is not the smoothed classifier's.
        batch: copies a pass, 100 at least; changes nothing but memory and the last bits of the logits.
        generator: source of the noise, keyed by row.

    Returns:
        Classes (N,), int64; `ABSTAIN` (-1) where the two-sided binomial test between the first two does not decide.

    Raises:
        ValueError: pixels outside [0, 1], a model in training mode or with NaN among its logits, a sigma, n or
            alpha that is no such thing.
    """
    _check(model, x, sigma, alpha, n=n)
    with asked(model):
        votes = _election(model, x, RowNoise(x, generator), sigma, n, batch)
    first, second = votes.topk(2, dim=1).values.T.cpu().numpy()
    sure = torch.from_numpy(fair_coin(first, first + second) <= alpha).to(x.device)
    return torch.where(sure, votes.argmax(1), ABSTAIN)


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
    """A class and a radius in which no perturbation changes it (CERTIFY of section 3.2.2; theorem 1, eq. 3).

    Args:
        model, x, sigma, batch, generator: as for `predict`.
        n0: copies that choose the class; others than those that bound its probability, or the bound would not hold.
        n: copies that bound it, by `lower_bound`.
        alpha: how often, at most, a row is given a class and radius that are not true of the smoothed classifier.

    Returns:
        The certificate. A row leaves the batch once even all votes to come could not lift its bound above 1/2:
        whatever they were, it would abstain.

    Raises:
        ValueError: as for `predict`.
    """
    _check(model, x, sigma, alpha, n0=n0, n=n)
    needed = int((lower_bound(np.arange(n + 1), n, alpha) <= 0.5).sum())  # votes; n + 1 where n is too small for alpha
    with asked(model):
        choice = _election(model, x, RowNoise(x, generator), sigma, n0, batch).argmax(1)
        noise, votes = RowNoise(x, generator), torch.zeros_like(choice)
        alive = torch.arange(len(x), device=x.device)
        for block, copies in _blocks(n):
            alive = alive[votes[alive] + n - BLOCK * block >= needed]
            if not len(alive):
                break
            ballot = _ballot(model, x[alive], noise.select(alive), sigma, block, copies, batch)
            votes[alive] += ballot.gather(1, choice[alive, None]).squeeze(1)
    sure = votes >= needed
    p_lower = lower_bound(votes.cpu().numpy(), n, alpha)
    radius = torch.from_numpy(sigma * ndtri(np.maximum(p_lower, 0.5))).to(x.device)
    return Certificate(torch.where(sure, choice, ABSTAIN), torch.where(sure, radius, 0.0))


def radius_cap(sigma: float, n: int, alpha: float) -> float:
    """The largest radius that n votes can prove, when all are for one class: p = alpha^(1/n) (section 3.2.2).

    Raises:
        ValueError: a sigma, n or alpha that is no such thing.
    """
    check_noise(sigma, n=n)
    return float(sigma * ndtri(lower_bound(n, n, alpha)))


def _blocks(n: int) -> list[tuple[int, int]]:
    """Number and size of each block of n copies."""
    return [(block, min(BLOCK, n - BLOCK * block)) for block in range(-(-n // BLOCK))]


def _election(model: nn.Module, x: Tensor, noise: RowNoise, sigma: float, n: int, batch: int) -> Tensor:
    """Votes (N, K) of n copies."""
    return torch.stack([_ballot(model, x, noise, sigma, *block, batch) for block in _blocks(n)]).sum(0)


@torch.no_grad()
def _ballot(model: nn.Module, x: Tensor, noise: RowNoise, sigma: float, block: int, copies: int, batch: int) -> Tensor:
    """Votes (N, K) of one block of copies."""
    votes = []
    for rows in torch.arange(len(x), device=x.device).split(max(1, batch // copies)):
        draws = sigma * noise.select(rows).normal((copies, *x.shape[1:]), block)
        logits = noisy_logits(model, x[rows], draws)
        check_answer(logits.flatten(0, 1), rows[:0])
        votes.append(F.one_hot(logits.argmax(2), logits.shape[2]).sum(1))
    return torch.cat(votes)


def _check(model: nn.Module, x: Tensor, sigma: float, alpha: float, **counts: int) -> None:
    check(model, x, torch.zeros(len(x), dtype=torch.int64))
    check_noise(sigma, **counts)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha, the share of wrong certificates, must lie in (0, 1), got {alpha}")
