"""Honest models, without masked gradients and properly attacked: no check of `diagnose` should raise a doubt."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from aisec_lab.attacks import APGD, BPDA, PGD, Ball, DetectorAwareMargin, EvadeDetector, Untargeted
from aisec_lab.attacks.evasion.adaptive import View
from aisec_lab.attacks.evasion.search.goals import Goal
from aisec_lab.defenses import (
    IBP,
    JPEG,
    MART,
    TRADES,
    AdversarialTraining,
    AveragedModel,
    BitDepth,
    Energy,
    FastAdversarialTraining,
    FeatureSqueezing,
    GaussianNoise,
    MedianFilter,
    RejectOption,
    Standard,
)
from aisec_lab.models import CNN, MLP, Architecture, ResNet, StridedCNN
from benchmarks.planted_defenses import Scene


def objectives(ball: Ball) -> Mapping[str, Any]:
    inner = PGD(ball, steps=7, step_size=0.25, early_stop=False)
    return {
        "standard": Standard(),
        "adversarial training": AdversarialTraining(inner),
        "TRADES": TRADES(inner),
        "MART": MART(inner),
        "fast adversarial training": FastAdversarialTraining(ball),
        "Gaussian noise": GaussianNoise(),
        "IBP": IBP(ball.with_eps(ball.eps / 3)),
    }


class Honest(NamedTuple):
    """A model, and how it has to be attacked.

    Args:
        objective: name of what training minimises.
        architecture: of the network; several make an ensemble.
        seed: seed of the training.
        defense: wraps the trained model; None for no defense.
        view: what gradient-based attacks run on (`BPDA`, `EOT`); None for the model itself.
        goal: what counts as a success of the attacker. With `EvadeDetector`, the attacks try to evade it.
        restarts: restarts of the first attack.
    """

    objective: str
    architecture: Architecture | tuple[Architecture, ...]
    seed: int = 0
    defense: Callable[..., nn.Module] | None = None
    view: View | None = None
    goal: Goal = Untargeted()
    restarts: int = 1

    @property
    def name(self) -> str:
        defense = () if self.defense is None else (repr(self.defense),)
        return ", ".join((self.objective, repr(self.architecture), f"seed {self.seed}", *defense))

    def undefended(self, scene: Scene) -> nn.Module:
        """The network, or the ensemble of several architectures, without a defense."""
        of = self.architecture if isinstance(self.architecture, tuple) else (self.architecture,)
        members = [scene.trained(objectives(scene.ball)[self.objective], each, self.seed) for each in of]
        return members[0] if len(members) == 1 else AveragedModel(members)

    def make(self, scene: Scene) -> nn.Module:
        model = self.undefended(scene)
        return model if self.defense is None else self.defense(model, data=scene.splits)

    def white(self, attacks: Sequence[Any]) -> list[Any]:
        """The gradient-based attacks of a study, APGD-CE first, adapted to this model."""
        if self.goal == EvadeDetector():
            return [APGD(attacks[0].ball, attacks[0].steps, self.restarts, DetectorAwareMargin(), self.goal)]
        return [replace(attacks[0], restarts=self.restarts), *attacks[1:]]


SMALL, MIDDLE, WIDE, STRIDED, LAYERS, RESIDUAL = CNN(8, 32), CNN(), CNN(32, 128), StridedCNN(), MLP(), ResNet(1, 8)
REJECTING = {"goal": EvadeDetector(), "restarts": 5}
LARGER = [
    *(Honest("standard", each) for each in (SMALL, STRIDED, LAYERS, RESIDUAL)),
    *(Honest("adversarial training", each) for each in (STRIDED, LAYERS)),
    *(Honest(each, STRIDED) for each in ("TRADES", "Gaussian noise", "IBP")),
    *(Honest(each, LAYERS) for each in ("MART", "fast adversarial training")),
    Honest("standard", (STRIDED, LAYERS)),
    Honest("adversarial training", LAYERS, defense=BitDepth(3), view=BPDA()),
    Honest("standard", STRIDED, defense=MedianFilter()),
]
HONEST: Mapping[str, Sequence[Honest]] = {
    "digits": [
        *(Honest("standard", each) for each in (SMALL, MIDDLE, WIDE, STRIDED, LAYERS)),
        *(Honest("adversarial training", each) for each in (SMALL, MIDDLE, WIDE, STRIDED, LAYERS)),
        *(Honest(each, MIDDLE, seed=1) for each in ("standard", "adversarial training", "TRADES", "MART")),
        *(Honest(each, STRIDED) for each in ("TRADES", "MART", "Gaussian noise", "IBP")),
        *(Honest(each, LAYERS) for each in ("TRADES", "Gaussian noise", "fast adversarial training")),
        Honest("fast adversarial training", MIDDLE),
        Honest("IBP", STRIDED, seed=1),
        Honest("standard", (MIDDLE, STRIDED, LAYERS)),
        Honest("adversarial training", (STRIDED, LAYERS)),
        Honest("standard", MIDDLE, defense=BitDepth(3), view=BPDA()),
        Honest("adversarial training", STRIDED, defense=BitDepth(3), view=BPDA()),
        Honest("standard", MIDDLE, defense=JPEG(), view=BPDA()),
        Honest("standard", MIDDLE, defense=MedianFilter()),
        Honest("adversarial training", STRIDED, defense=MedianFilter(), restarts=5),
        Honest("standard", MIDDLE, defense=RejectOption(Energy()), **REJECTING),
        Honest("adversarial training", STRIDED, defense=RejectOption(FeatureSqueezing()), view=BPDA(), **REJECTING),
    ],
    "fashion_mnist": LARGER,
    "mnist": LARGER,
}
