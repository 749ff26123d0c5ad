"""Neural Cleanse: the class that a small mark opens is the one with a backdoor."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.poisoning.sanitizer import deviations
from aisec_lab.models import logits_of
from aisec_lab.models.asked import asked

BETAS = (0.5, 0.9)  # of Adam, as in the paper's own code
FIRST = 1e-3  # the weight of the norm once a class is reached for the first time
PATIENCE = 5  # rounds in a row, all successful or all not, after which that weight changes
UP, DOWN = 2.0, 2.0**1.5  # by how much
BATCHES = 5  # a round


@dataclass(frozen=True, eq=False)
class NeuralCleanseResult:
    """What it takes to send clean images to each class, and which classes stand out.

    Args:
        masks: (K, 1, H, W) in [0, 1], how much of each pixel the pattern replaces.
        patterns: (K, C, H, W) in [0, 1].
        norms: the L1 norms of the masks, (K,); H W for a class that was never reached.
        anomaly: the anomaly index of each, `deviations` of the norms (section IV-C), (K,).
        suspects: classes whose norm lies below the median by more than the threshold.
    """

    masks: Tensor
    patterns: Tensor
    norms: Tensor
    anomaly: Tensor
    suspects: tuple[int, ...]


@dataclass(frozen=True)
class NeuralCleanse:
    """Reverse-engineer the smallest trigger of each class (Wang et al., 2019, IEEE S&P, section IV).

    For each class, mask m and pattern p minimise the cross-entropy of (1 - m) x + m p with that class plus lambda times
    the L1 norm of m, by Adam on the arguments of a tanh; lambda rises while the share of successes is at least
    `success` and falls while it is not. The smallest mask that reached it counts. All classes are optimised at once,
    and none touches another. It looks for small marks: a trigger that covers the image may escape it.

    Args:
        rounds: how often lambda may be adapted; of 5 batches each.
        batch_size: clean rows a batch, each of which is stamped for every class.
        learning_rate: Adam's.
        success: the share of rows of other classes that a mark has to send to the class.
        threshold: the anomaly index above which a class with a small mark is suspect.

    Args of the call:
        model: classifier of images in evaluation mode.
        clean: clean rows with their true classes, on the model's device.
        generator: source of the first masks and patterns, and of the batches.

    Returns:
        `NeuralCleanseResult`.

    Raises:
        ValueError: rows that are no images or all of one class; fewer than three classes, among which no deviation can
            stand out, or other classes than the model's; what an attack refuses of a model and its inputs.
    """

    rounds: int = 50
    batch_size: int = 32
    learning_rate: float = 0.1
    success: float = 0.99
    threshold: float = 2.0

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(f"rounds, batch_size and learning_rate must be positive: {self}")
        if not (0 < self.success <= 1 and self.threshold > 0):
            raise ValueError(f"success must lie in (0, 1] and threshold be positive: {self}")

    def __call__(self, model: nn.Module, clean: Dataset, *, generator: torch.Generator) -> NeuralCleanseResult:
        if clean.x.ndim != 4 or len(clean.y.unique()) < 2:
            raise ValueError(f"NeuralCleanse takes images (N, C, H, W) of two classes or more, got {clean.name}")
        check(model, clean.x, clean.y)
        classes = logits_of(model, clean.x[:1]).shape[1]
        if classes != len(clean.classes) or classes < 3:
            raise ValueError(
                "NeuralCleanse compares a class with the others, so it needs three at least, and clean rows of a data "
                f"set that names all of the model's, got {classes} of the model and {len(clean.classes)} names"
            )
        masks, patterns = self._search(model, clean, generator)
        norms = masks.sum((1, 2, 3))
        anomaly = deviations(norms)
        small = (anomaly > self.threshold) & (norms < norms.quantile(0.5))
        return NeuralCleanseResult(masks, patterns, norms, anomaly, tuple(small.nonzero().squeeze(1).tolist()))

    def _search(self, model: nn.Module, clean: Dataset, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The smallest masks (K, 1, H, W) that reached their classes, with their patterns (K, C, H, W)."""
        k, (c, h, w), device = len(clean.classes), clean.shape, clean.x.device
        free = torch.atanh(1.8 * torch.rand(k, 1 + c, h, w, generator=generator) - 0.9).to(device).requires_grad_()
        optimizer = Adam([free], self.learning_rate, BETAS)
        cost, streak = torch.zeros(k, device=device), torch.zeros(k, device=device)
        best = torch.cat([torch.ones(k, 1, h, w), torch.full((k, c, h, w), 0.5)], 1).to(device)
        with asked(model):
            for _ in range(self.rounds):
                batches = torch.randint(len(clean), (BATCHES, self.batch_size), generator=generator).to(device)
                hits = torch.stack([_descend(model, clean.subset(rows), free, cost, optimizer) for rows in batches])
                reached = hits.nanmean(0) >= self.success  # (K,)
                now = squashed(free.detach())
                smaller = reached & (size(now) < size(best))
                best = torch.where(smaller[:, None, None, None], now, best)
                # rounds in a row: positive for successes, negative for failures
                streak = torch.where(reached, streak.clamp(min=0) + 1, streak.clamp(max=0) - 1)
                cost = torch.where(streak >= PATIENCE, (cost * UP).clamp(min=FIRST), cost)
                cost = torch.where(streak <= -PATIENCE, cost / DOWN, cost)
                streak[streak.abs() >= PATIENCE] = 0
        return best[:, :1], best[:, 1:]


def squashed(free: Tensor) -> Tensor:
    """Mask and pattern in [0, 1], one tensor (K, 1 + C, H, W), of any real numbers."""
    return (free.tanh() + 1) / 2


def size(marks: Tensor) -> Tensor:
    """The L1 norms (K,) of the masks of marks (K, 1 + C, H, W)."""
    return marks[:, 0].sum((1, 2))


def _descend(model: nn.Module, batch: Dataset, free: Tensor, cost: Tensor, optimizer: Adam) -> Tensor:
    """One step of all classes on a batch; the shares (K,) of its rows of other classes that were sent to each."""
    k, n = len(free), len(batch)
    marks = squashed(free)
    mask, pattern = marks[:, None, :1], marks[:, None, 1:]
    logits = model(((1 - mask) * batch.x + mask * pattern).flatten(0, 1)).view(k, n, k)
    target = torch.arange(k, device=batch.y.device)[:, None].expand(k, n)
    others = (batch.y != target).float()  # a row of the class itself needs no mark
    losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    total = (losses * others).sum(1) / others.sum(1).clamp(min=1) + cost * size(marks)
    optimizer.zero_grad(set_to_none=True)
    total.sum().backward()  # a class's mark has a gradient from its own loss alone
    optimizer.step()
    return ((logits.argmax(2) == target) * others).sum(1) / others.sum(1)
