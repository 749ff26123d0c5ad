"""IPGuard: a model is known by points close to its decision boundary."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check, scored
from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.fingerprints import Fingerprint, answered, calibrated, drawn


@dataclass(frozen=True)
class IPGuard:
    """Points just across the boundary between two classes (Cao et al., 2021, arXiv:1910.12903, eq. 6).

    A row of predicted class i is moved by Adam until another class j, drawn at random, leads i by k logits and no third
    class leads i. The matching rate on such points is compared with that of reference models, in place of the paper's
    fixed threshold.

    Args:
        n: points.
        k: how far beyond the boundary, in logits: the farther, the more unrelated models answer alike; the nearer, the
            sooner fine-tuning changes the answer.
        steps, learning_rate: of the search; a point that is not there in the end stays where it is.

    Args of `make`: as for `Fingerprinting`.

    Raises:
        ValueError: fields out of range; what an attack by gradients refuses of a model and its inputs; fewer rows than
            points.
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
        """As `Fingerprinting`."""
        check(model, clean.x, clean.y)
        x = drawn(clean, self.n, generator)
        step = 1 + torch.randint(len(clean.classes) - 1, (self.n,), generator=generator)
        return calibrated(answered(model, self.points(model, x, step.to(x.device))), references)

    def points(self, model: nn.Module, x: Tensor, step: Tensor) -> Tensor:
        """Points (N, *input) near the boundary towards class i + step (mod K), from rows x of predicted class i."""
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
        """What is above zero (N,) as long as j does not lead i by k, or a third class leads i."""
        own, other = (logits.gather(1, label[:, None]).squeeze(1) for label in (i, j))
        third = logits.scatter(1, torch.stack([i, j], 1), -torch.inf).amax(1)
        return (own - other + self.k).relu() + (third - own).relu()
