"""Model inversion: what a class looks like, from the model alone."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.attacks.inference.gradient_inversion import variation
from aisec_lab.data import Dataset
from aisec_lab.models import gradient, leaf, refuse_constant
from aisec_lab.models.asked import asked
from aisec_lab.models.layers import refuse_opaque


@dataclass(frozen=True)
class MIFace:
    """Gradient descent on 1 - p_c(x), from a start that knows nothing (Fredrikson et al., 2015, algorithm 1).

    Args:
        steps: at most (alpha of the paper).
        patience: a row ends where its cost is not below the largest of so many before (beta).
        confidence: or where the model gives its class this probability (gamma).
        step_size: of the gradient (lambda).
        blur: share of each pixel that is replaced, after each step, by the mean of its 3x3 neighbours: the paper's
            PROCESS, for images.

    Args of the call:
        model: classifier in evaluation mode.
        y: the classes to look for (N,), int64.
        start: where to begin (N, *shape), in [0, 1]; the paper's is zero.

    Returns:
        The inputs with the least cost that were seen (N, *shape), in [0, 1].

    Raises:
        ValueError: settings out of their range, a blur of what is no image, a class outside 0..K-1; a model that is
            opaque, or answers with probabilities.
    """

    steps: int = 5000
    patience: int = 100
    confidence: float = 0.99
    step_size: float = 0.1
    blur: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.patience < 1 or not self.step_size > 0:
            raise ValueError(f"steps, patience and step_size must be positive: {self}")
        if not (0 < self.confidence <= 1 and 0 <= self.blur <= 1):
            raise ValueError(f"confidence must lie in (0, 1], blur in [0, 1]: {self}")

    def __call__(self, model: nn.Module, y: Tensor, *, start: Tensor) -> Tensor:
        check(model, start, y)
        refuse_opaque(model)
        if self.blur and start.ndim != 4:
            raise ValueError(f"blur takes images (N, C, H, W), got {tuple(start.shape)}: set it to 0")
        with asked(model):
            answer = model(start)
            check_answer(answer, y)
            check_not_probabilities(answer)
            x, cost, grad = start.clone(), *self._cost(model, start, y)
            best, least = x.clone(), cost
            recent = cost.new_full((self.patience, len(y)), torch.inf)
            alive = torch.ones(len(y), dtype=torch.bool)
            for step in range(self.steps):
                alive &= least > 1 - self.confidence
                if not alive.any():
                    break
                recent[step % self.patience] = cost
                moved = self._process((x - self.step_size * grad).clamp(0, 1))
                x = torch.where(alive.view(-1, *[1] * (x.ndim - 1)), moved, x)
                cost, grad = self._cost(model, x, y)
                better = cost < least
                best[better], least = x[better], torch.minimum(cost, least)
                alive &= cost < recent.amax(0)
        return best

    def _cost(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """1 - p_c (N,) and its gradient."""
        x = leaf(x)
        cost = 1 - model(x).softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
        return cost.detach(), gradient(cost.sum(), x)

    def _process(self, x: Tensor) -> Tensor:
        if not self.blur:
            return x
        near = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return (1 - self.blur) * x + self.blur * near


@dataclass(frozen=True)
class PriorInversion:
    """The likeliest input of a class under a prior on images (Mahendran & Vedaldi, 2015, arXiv:1412.0035, section 2).

    Cross-entropy, the total variation, and the squared distance from a mean image that the attacker has from elsewhere,
    minimised by Adam. The cross-entropy keeps its slope where 1 - p_c is flat.

    Args:
        steps, step_size: of Adam.
        total_variation: weight of the mean difference of neighbouring pixels.
        closeness: weight of the mean squared distance from the mean image.

    Args of the call:
        model, y: as for `MIFace`.
        mean: the mean image (*shape), in [0, 1], of public data that resemble the private ones.

    Returns, raises: as for `MIFace`; the last input.
    """

    steps: int = 300
    step_size: float = 0.02
    total_variation: float = 0.1
    closeness: float = 30.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.step_size > 0 or not (self.total_variation >= 0 and self.closeness >= 0):
            raise ValueError(f"steps and step_size must be positive, the weights not negative: {self}")

    def __call__(self, model: nn.Module, y: Tensor, *, mean: Tensor) -> Tensor:
        x = leaf(mean.expand(len(y), *mean.shape).clone())
        check(model, x.detach(), y)
        refuse_opaque(model)
        adam = torch.optim.Adam([x], lr=self.step_size)
        with asked(model):
            answer = model(x.detach())
            check_answer(answer, y)
            check_not_probabilities(answer)
            for _ in range(self.steps):
                prior = self.total_variation * variation(x) + self.closeness * (x - mean).square().mean()
                logits = model(x)
                refuse_constant(logits)
                cost = F.cross_entropy(logits, y) + prior
                (x.grad,) = torch.autograd.grad(cost, x)
                adam.step()
                with torch.no_grad():
                    x.clamp_(0, 1)
        return x.detach()


def similarity(x: Tensor, dataset: Dataset) -> Tensor:
    """How much each input looks like the mean of each class, against what all classes have in common.

    Args:
        x: inputs (N, *shape).
        dataset: the private rows, each class among them.

    Returns:
        Correlations (N, K) in [-1, 1] of x - m with m_c - m, where m_c is the mean of class c and m that of them all;
        contrast does not matter. An input shows class c rather than another where column c is the largest.

    Raises:
        ValueError: a class without rows, or another shape.
    """
    if x.shape[1:] != dataset.shape:
        raise ValueError(f"inputs must have the shape of the rows, {dataset.shape}, got {tuple(x.shape[1:])}")
    missing = sorted(set(range(len(dataset.classes))) - set(dataset.y.tolist()))
    if missing:
        raise ValueError(f"{dataset.name} has no row of the classes {missing}: take a larger sample")
    means = torch.stack([dataset.x[dataset.y == c].flatten(1).mean(0) for c in range(len(dataset.classes))])
    common = means.mean(0)
    return F.normalize(x.flatten(1) - common, dim=1) @ F.normalize(means - common, dim=1).T
