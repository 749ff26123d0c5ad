"""Planted defenses: they only look robust, and each has the check of `diagnose` that should find it; any dataset."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aisec_lab.attacks import APGD, Ball, EvadeDetector, Linf, Untargeted
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.data import Dataset, Prepared, Splits, prepare
from aisec_lab.defenses import (
    JPEG,
    BitDepth,
    DefensiveDistillation,
    FeatureSqueezing,
    MedianFilter,
    RandomResizing,
    RejectOption,
    Standard,
)
from aisec_lab.defenses.preprocessing.randomised import Randomised
from aisec_lab.models import CNN, Architecture, Fit


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@dataclass(frozen=True)
class Scene:
    """Where a defense is planted: a dataset, a threat model, and how models are trained."""

    splits: Splits
    ball: Ball
    fit: Fit
    known: dict[Any, nn.Module] = field(default_factory=dict, compare=False)  # models that are trained already

    def trained(self, objective: Any, architecture: Architecture = CNN(8, 32), seed: int = 0) -> nn.Module:  # noqa: B008
        made = (objective, architecture, seed)
        if made not in self.known:
            train = self.splits.train
            model = architecture(train.shape, len(train.classes), generator=seeded(seed))
            self.fit(model, train, objective, generator=seeded(seed))
            self.known[made] = model
        return self.known[made]

    @property
    def plain(self) -> nn.Module:
        return self.trained(Standard())


def scene(name: str, root: Path) -> Scene:
    """A dataset with a suitable threat model and training."""
    train_size, test_size, ball, fit = {
        "digits": (None, None, Linf(0.15), Fit(10, learning_rate=0.002)),
        "fashion_mnist": (4000, 500, Linf(0.05), Fit(5, learning_rate=0.001)),
        "mnist": (4000, 500, Linf(0.1), Fit(5, learning_rate=0.001)),
    }[name]
    if not (root / name / "card.json").exists():
        prepare(name, root)
    return Scene(Prepared(name, train_size, test_size)(root), ball, fit)


class Through(nn.Module):
    """A classifier whose inputs or logits are transformed."""

    def __init__(
        self,
        model: nn.Module,
        *,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.model(self.before(x)))


class Masked(Randomised):
    """Sets a random 30 % of the pixels to zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.noise(x).uniform(x.shape[1:], 0) > 0.3)


class _Astray(torch.autograd.Function):
    """The identity, with a wrong gradient: that of the mirrored pixel, with the opposite sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return -grads[0].flip(-1)


class Alarm(nn.Module):
    """A reject option that is trained to tell clean rows from the adversarial rows of one attack."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        clean, y = scene.splits.train.x[:600], scene.splits.train.y[:600]
        made = APGD(scene.ball, steps=10)(scene.plain, clean, y, generator=seeded(0))
        either = Dataset(torch.cat([clean, made]), torch.arange(2).repeat_interleave(600), ("clean", "made"), "alarm")
        self.model, self.alarm = scene.plain, CNN(8, 32)(clean.shape[1:], 2, generator=seeded(0))
        Fit(epochs=20, learning_rate=0.005)(self.alarm, either, Standard(), generator=seeded(0))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits, (quiet, rings) = self.model(x), self.alarm(x).T
        return torch.cat([logits, (logits.amax(1) + rings - quiet)[:, None]], 1)


class Planted(NamedTuple):
    """A defense that only looks robust, and the check that should find it.

    Args:
        make: makes the defended model in a scene.
        finding: name of the check that should raise a doubt.
        attacks: how many of the gradient-based attacks, APGD-CE first, are run on it as it is.
        goal: what counts as a success of the attacker.
    """

    make: Callable[[Scene], nn.Module]
    finding: str
    attacks: int = 2
    goal: Goal = Untargeted()


def around(**parts: Callable[[Tensor], Tensor]) -> Callable[[Scene], nn.Module]:
    return lambda scene: Through(scene.plain, **parts)


def said_to_be_logits(scene: Scene) -> nn.Module:
    """A softmax that is declared to be logits; without that, gradient-based attacks would refuse it."""
    model = Through(scene.plain, after=lambda z: (20 * z).softmax(1))
    model.publishes = "logits"  # type: ignore[assignment]
    return model


def squeezed(scene: Scene) -> nn.Module:
    return RejectOption(FeatureSqueezing((BitDepth(), MedianFilter())))(scene.plain, data=scene.splits)


PLANTED = {
    # shattered gradients
    "added sine": Planted(around(before=lambda x: x + 0.02 * torch.sin(400 * x)), "free_attack"),
    "gradients led astray": Planted(around(before=_Astray.apply), "free_attack"),
    "bit depth": Planted(lambda scene: BitDepth(3)(scene.plain), "gradients"),
    "JPEG": Planted(lambda scene: JPEG()(scene.plain), "gradients"),
    "an output without a graph": Planted(around(after=lambda z: z.detach()), "gradients"),
    # saturating outputs
    "saturating softmax": Planted(said_to_be_logits, "probabilities"),
    # stochastic masking
    "random masks": Planted(lambda scene: nn.Sequential(Masked(), scene.plain).eval(), "randomness"),
    "random resizing": Planted(lambda scene: RandomResizing()(scene.plain), "randomness"),
    # vanishing gradients
    "scaled logits": Planted(around(after=lambda z: 1000 * z), "gradients", attacks=1),
    "defensive distillation": Planted(
        lambda scene: scene.trained(DefensiveDistillation(100.0)), "gradients", attacks=1
    ),
    # detectors that were not attacked
    "a detector of one attack": Planted(Alarm, "detector", attacks=1, goal=EvadeDetector()),
    "feature squeezing": Planted(squeezed, "detector", attacks=1, goal=EvadeDetector()),
}
