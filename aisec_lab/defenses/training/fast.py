"""Adversarial training with one-step attacks, and a probe that detects catastrophic overfitting."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.attacks import Attack, Ball
from aisec_lab.attacks.evasion.search.objectives import loss_and_gradient
from aisec_lab.data import Dataset
from aisec_lab.models import device_of, frozen

SEED = 0  # of the probe's rows and starts: the same in every epoch, and apart from what trains


@dataclass(frozen=True)
class FastAdversarialTraining:
    """Cross-entropy after one step from a random start (Wong et al., 2020, arXiv:2001.03994, algorithm 3).

    With `alignment` above 0 it adds that many times GradAlign, 1 - cos of the loss's gradients at the clean point and
    at the random start (Andriushchenko & Flammarion, 2020, arXiv:2007.02617, eq. 4). Where these directions differ,
    one step does not find the worst case, and training overfits to the points that it finds. Call contract:
    docs/defenses.md, "Objective"; the random start draws from the generator.

    Args:
        ball: threat model.
        step_size: length of the step, in units of eps; positive.
        alignment: weight of GradAlign, at least 0.
    """

    ball: Ball
    step_size: float = 1.25
    alignment: float = 0.0

    def __post_init__(self) -> None:
        if not self.step_size > 0 or not self.alignment >= 0:
            raise ValueError(f"step_size must be positive and alignment not negative: {self}")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        start = self.ball.sample(x, generator)
        with frozen(model):
            _, _, grad = loss_and_gradient(
                model, x + start, lambda logits: F.cross_entropy(logits, y, reduction="none")
            )
        step = self.step_size * self.ball.eps * self.ball.ascent_direction(grad)
        losses = F.cross_entropy(model(x + self.ball.project(x, start + step)), y, reduction="none")
        if self.alignment > 0:
            losses = losses + self.alignment * misalignment(model, x, x + start, y)
        return losses


def misalignment(model: nn.Module, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    """GradAlign: 1 - cos between the input gradients of the cross-entropy at two points.

    Args:
        model: classifier.
        a, b: inputs (N, *input).
        y: classes (N,), int64.

    Returns:
        (N,), from 0 to 2, with its graph; 0 where a gradient is zero and has no direction.
    """
    grads = []
    for point in (a, b):
        z = point.detach().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z, create_graph=True)
        size = grad.detach().flatten(1).abs().amax(1, keepdim=True)
        grads.append((grad.flatten(1) / size.clamp(min=torch.finfo(size.dtype).tiny), size.squeeze(1) > 0))
    (one, directed), (other, too) = grads
    rows = (directed & too).nonzero().squeeze(1)
    return torch.zeros_like(one[:, 0]).index_put((rows,), 1 - F.cosine_similarity(one[rows], other[rows]))


@dataclass(frozen=True)
class OverfittingProbe:
    """Stop training on catastrophic overfitting: robust accuracy collapses while the training loss still falls.

    After Wong et al. (2020, arXiv:2001.03994, section 5.4), who compare with the epoch before; this compares with the
    best one. It is a `Callback` of `Fit`.

    Args:
        attack: an attack that is stronger than that of the training, such as PGD with ten steps.
        fall: training stops if robust accuracy is more than this below that of the best epoch; in (0, 1).
        rows: how many training rows are attacked, at least 1.
    """

    attack: Attack
    fall: float = 0.2
    rows: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.fall < 1 or self.rows < 1:
            raise ValueError(f"fall must lie in (0, 1), and rows be positive: {self}")

    def __call__(self, model: nn.Module, dataset: Dataset) -> dict[str, float]:
        """Attack some training rows; they are the same ones in every epoch.

        Args:
            model: classifier in training; the modes of its parts are restored afterwards.
            dataset: the training rows.

        Returns:
            `probe_accuracy`, the model's accuracy on the attacked rows.
        """
        sample = dataset.sample(min(self.rows, len(dataset)), seed=SEED)
        device = device_of(model, dataset.x)
        x, y = sample.x.to(device), sample.y.to(device)
        with frozen(model):
            x_adv = self.attack(model, x, y, generator=torch.Generator().manual_seed(SEED))
            return {"probe_accuracy": (model(x_adv).argmax(1) == y).float().mean().item()}

    def should_stop(self, history: list[dict[str, float]]) -> bool:
        """Whether to undo the last epoch and end the training.

        Args:
            history: the records of the epochs, with `probe_accuracy`, the last epoch's last.

        Returns:
            True if the last `probe_accuracy` is more than `fall` below the best one.
        """
        accuracies = [record["probe_accuracy"] for record in history]
        return accuracies[-1] < max(accuracies) - self.fall
