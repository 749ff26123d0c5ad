"""IPGuard: points close to the decision boundary as a fingerprint."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check, scored
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.fingerprints import Fingerprint, agreement_with, calibrated, draw_rows


@dataclass(frozen=True)
class IPGuard:
    """Points just across the boundary between two classes (Cao et al., 2021, arXiv:1910.12903, eq. 6).

    A row of predicted class i is perturbed by Adam until a random other class j has a logit larger by k, and no third
    class exceeds i. The matching rate of a suspect on such points is compared with that of reference models; the paper
    has a fixed threshold.

    Call contract: docs/ownership.md, "Fingerprints".

    Args:
        n: number of points, at least 1.
        k: distance beyond the boundary, in logits, at least 0. Far from it, more unrelated models predict the same
            class; close to it, fine-tuning changes the prediction sooner.
        steps: steps of the search, at least 1. A point that has not reached its place then is used as it is.
        learning_rate: of the search, above 0.

    Raises:
        ValueError: a setting out of range, fewer rows than points, or a model that answers with probabilities.
    """

    n: int = 100
    k: float = 5.0
    steps: int = 500
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        if self.n < 1 or self.steps < 1 or not self.k >= 0 or not self.learning_rate > 0:
            raise ValueError(f"n, steps and learning_rate must be positive, k at least 0: {self}")

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """Make the fingerprint; see `Fingerprinting.make`."""
        check(model, clean.x, clean.y)
        x = draw_rows(clean, self.n, generator)
        step = 1 + torch.randint(len(clean.classes) - 1, (self.n,), generator=generator)
        return calibrated(agreement_with(model, self.points(model, x, step.to(x.device))), references)

    def points(self, model: nn.Module, x: Tensor, step: Tensor) -> Tensor:
        """Search the points, without calibration.

        Args:
            model: classifier in evaluation mode.
            x: rows (N, *input) in [0, 1] of predicted classes i.
            step: class j is i + step modulo K, (N,), 1..K-1.

        Returns:
            Points (N, *input) in [0, 1] near the boundary between i and j.
        """
        z = x.clone().requires_grad_()
        descent = torch.optim.Adam([z], lr=self.learning_rate)
        best, least = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
        with scored(model):
            with torch.no_grad():
                logits = model(x)
                i = logits.argmax(1)
                j = (i + step) % logits.shape[1]
            for _ in range(self.steps):
                losses = self._loss(model(z), i, j)
                nearer = losses.detach() < least
                best[nearer], least[nearer] = z.detach()[nearer], losses.detach()[nearer]
                if not least.any():
                    break
                (z.grad,) = torch.autograd.grad(losses.sum(), z)
                descent.step()
                with torch.no_grad():
                    z.clamp_(0, 1)
        return best

    def _loss(self, logits: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """The loss of the search (N,): 0 once j exceeds i by k logits and no third class exceeds i."""
        own, other = (logits.gather(1, label[:, None]).squeeze(1) for label in (i, j))
        third = logits.scatter(1, torch.stack([i, j], 1), -torch.inf).amax(1)
        return (own - other + self.k).relu() + (third - own).relu()
