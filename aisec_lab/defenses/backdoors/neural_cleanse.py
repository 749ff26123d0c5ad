"""Neural Cleanse: a class that a very small trigger leads to probably has a backdoor."""

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
FIRST = 1e-3  # the weight lambda of the norm when a class is first reached
PATIENCE = 5  # successful (or failed) rounds in a row after which lambda changes
UP, DOWN = 2.0, 2.0**1.5  # factors of that change
BATCHES = 5  # in each round


@dataclass(frozen=True, eq=False)
class NeuralCleanseResult:
    """The smallest trigger that was found for each class, and which classes are outliers.

    Args:
        masks: (K, 1, H, W) in [0, 1], the share of each pixel that the pattern replaces.
        patterns: (K, C, H, W) in [0, 1].
        norms: L1 norms of the masks, (K,); H * W for a class that was never reached.
        anomaly: anomaly index of each norm, (K,): its distance from the median in robust standard deviations
            (section IV-C).
        suspects: classes with a norm below the median and an anomaly index above the threshold.
    """

    masks: Tensor
    patterns: Tensor
    norms: Tensor
    anomaly: Tensor
    suspects: tuple[int, ...]


@dataclass(frozen=True)
class NeuralCleanse:
    """Reverse-engineer the smallest trigger of each class (Wang et al., 2019, IEEE S&P, section IV).

    For each class, mask m and pattern p minimise the cross-entropy of (1 - m) x + m p with that class, plus lambda
    times the L1 norm of m, by Adam on the arguments of a tanh. Lambda rises while the success rate is at least
    `success`, and falls while it is lower. The result is the smallest mask that reached `success`. All classes are
    optimised at once and independently. The method looks for small triggers and may miss one that covers the image.

    Args:
        rounds: how many rounds of 5 batches; after each, lambda may change.
        batch_size: clean rows in a batch; each gets the trigger of every class.
        learning_rate: Adam's.
        success: share of rows of other classes that a trigger must send to the class, in (0, 1].
        threshold: anomaly index above which a class with a small trigger is suspect, above 0.

    Args of the call:
        model: classifier of images in evaluation mode, logits (N, K) with K at least 3.
        clean: clean images (N, C, H, W), float32 in [0, 1], with their true classes, on the model's device.
        generator: source of the initial masks and patterns, and of the batches.

    Returns:
        A trigger for each class, and the suspects.

    Raises:
        ValueError: a setting out of range; rows that are no images or all of one class; fewer than three classes
            (no outlier can be told among two), or another number than the model has; inputs outside [0, 1]; a model in
            training mode.
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
        """The smallest successful masks (K, 1, H, W), with their patterns (K, C, H, W)."""
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
                now = to_unit_interval(free.detach())
                smaller = reached & (size(now) < size(best))
                best = torch.where(smaller[:, None, None, None], now, best)
                # rounds in a row: positive for successes, negative for failures
                streak = torch.where(reached, streak.clamp(min=0) + 1, streak.clamp(max=0) - 1)
                cost = torch.where(streak >= PATIENCE, (cost * UP).clamp(min=FIRST), cost)
                cost = torch.where(streak <= -PATIENCE, cost / DOWN, cost)
                streak[streak.abs() >= PATIENCE] = 0
        return best[:, :1], best[:, 1:]


def to_unit_interval(free: Tensor) -> Tensor:
    """Mask and pattern in [0, 1], one tensor (K, 1 + C, H, W), from unconstrained numbers."""
    return (free.tanh() + 1) / 2


def size(marks: Tensor) -> Tensor:
    """The L1 norms (K,) of the masks of triggers (K, 1 + C, H, W)."""
    return marks[:, 0].sum((1, 2))


def _descend(model: nn.Module, batch: Dataset, free: Tensor, cost: Tensor, optimizer: Adam) -> Tensor:
    """One step for all classes on a batch; returns the success rate (K,) of each class on rows of other classes."""
    k, n = len(free), len(batch)
    marks = to_unit_interval(free)
    mask, pattern = marks[:, None, :1], marks[:, None, 1:]
    logits = model(((1 - mask) * batch.x + mask * pattern).flatten(0, 1)).view(k, n, k)
    target = torch.arange(k, device=batch.y.device)[:, None].expand(k, n)
    others = (batch.y != target).float()  # a row of the class itself needs no trigger
    losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    total = (losses * others).sum(1) / others.sum(1).clamp(min=1) + cost * size(marks)
    optimizer.zero_grad(set_to_none=True)
    total.sum().backward()  # the trigger of a class has a gradient from its own loss alone
    optimizer.step()
    return ((logits.argmax(2) == target) * others).sum(1) / others.sum(1)
