"""Model inversion: reconstruct a typical input of a class from the model alone."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.attacks.inference.gradient_inversion import total_variation
from aisec_lab.data import Dataset
from aisec_lab.models import gradient, leaf, refuse_constant
from aisec_lab.models.asked import asked
from aisec_lab.models.layers import refuse_opaque


@dataclass(frozen=True)
class MIFace:
    """MI-Face: gradient descent on 1 - p_c(x) from an uninformed start (Fredrikson et al., 2015, algorithm 1).

    Call contract: docs/inference-attacks.md.

    Args:
        steps: at most, at least 1 (alpha of the paper).
        patience: a row ends when its cost is not below the largest of the last `patience` costs, at least 1 (beta).
        confidence: a row ends when the model gives its class this probability, in (0, 1] (gamma).
        step_size: factor of the gradient, positive (lambda).
        blur: share of each pixel that the mean of its 3x3 neighbourhood replaces after each step, in [0, 1]; images
            only (the paper's PROCESS).

    Raises:
        ValueError: settings out of range.
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
        """Reconstruct an input for each class that is given.

        Args:
            model: classifier in evaluation mode, not opaque; it outputs logits.
            y: classes to reconstruct (N,), int64.
            start: where to begin (N, *shape), float32 in [0, 1]; zeros in the paper.

        Returns:
            The inputs of the lowest cost that were seen, (N, *shape), in [0, 1].

        Raises:
            ValueError: a class outside 0..K-1, a start outside [0, 1], `blur` for inputs that are no images, a model in
                training mode, an opaque one, or one that outputs probabilities.
        """
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
        """1 - p_c (N,) and its gradient in x."""
        x = leaf(x)
        cost = 1 - model(x).softmax(1).gather(1, y.unsqueeze(1)).squeeze(1)
        return cost.detach(), gradient(cost.sum(), x)

    def _process(self, x: Tensor) -> Tensor:
        """Blur images, if so set."""
        if not self.blur:
            return x
        near = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
        return (1 - self.blur) * x + self.blur * near


@dataclass(frozen=True)
class PriorInversion:
    """The likeliest input of a class under an image prior (Mahendran & Vedaldi, 2015, arXiv:1412.0035, section 2).

    Adam minimises the sum of three terms inside [0, 1]: the cross-entropy, the total variation, and the squared
    distance from a mean image that the attacker has from public data. Unlike 1 - p_c, the cross-entropy keeps its
    gradient where p_c is near 0. Call contract: docs/inference-attacks.md.

    Args:
        steps: of Adam, at least 1.
        step_size: of Adam, positive.
        total_variation: weight of the mean difference of neighbouring pixels, at least 0.
        closeness: weight of the mean squared distance from the mean image, at least 0.

    Raises:
        ValueError: settings out of range.
    """

    steps: int = 300
    step_size: float = 0.02
    total_variation: float = 0.1
    closeness: float = 30.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.step_size > 0 or not (self.total_variation >= 0 and self.closeness >= 0):
            raise ValueError(f"steps and step_size must be positive, the weights not negative: {self}")

    def __call__(self, model: nn.Module, y: Tensor, *, mean: Tensor) -> Tensor:
        """Reconstruct an input for each class that is given.

        Args:
            model: classifier in evaluation mode, not opaque; it outputs logits.
            y: classes to reconstruct (N,), int64.
            mean: mean image (*shape), float32 in [0, 1], of public data similar to the private ones; the start.

        Returns:
            The last inputs (N, *shape), in [0, 1].

        Raises:
            ValueError: a class outside 0..K-1, a mean outside [0, 1], a model in training mode, an opaque one, one that
                outputs probabilities, or one without a gradient.
        """
        x = leaf(mean.expand(len(y), *mean.shape).clone())
        check(model, x.detach(), y)
        refuse_opaque(model)
        adam = torch.optim.Adam([x], lr=self.step_size)
        with asked(model):
            answer = model(x.detach())
            check_answer(answer, y)
            check_not_probabilities(answer)
            for _ in range(self.steps):
                prior = self.total_variation * total_variation(x) + self.closeness * (x - mean).square().mean()
                logits = model(x)
                refuse_constant(logits)
                cost = F.cross_entropy(logits, y) + prior
                (x.grad,) = torch.autograd.grad(cost, x)
                adam.step()
                with torch.no_grad():
                    x.clamp_(0, 1)
        return x.detach()


def similarity(x: Tensor, dataset: Dataset) -> Tensor:
    """How similar each input is to the mean of each class, apart from what all classes have in common.

    Args:
        x: inputs (N, *shape).
        dataset: private rows of all K classes.

    Returns:
        Cosines (N, K) in [-1, 1] of x - m with m_c - m, where m_c is the mean of class c and m the mean of all m_c. The
        contrast of x - m does not matter. An input resembles the class of its largest column most.

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
