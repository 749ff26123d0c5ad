"""Attacks: what can be done to a model, one room a threat."""

from aisec_lab.attacks.evasion.apgd import APGD, TargetedAPGD
from aisec_lab.attacks.evasion.balls import L0, L1, L2, Ball, Linf
from aisec_lab.attacks.evasion.door import Attack
from aisec_lab.attacks.evasion.goals import Targeted, Untargeted
from aisec_lab.attacks.evasion.gradient import FGSM, PGD
from aisec_lab.attacks.evasion.losses import (
    DLR,
    CrossEntropy,
    KullbackLeibler,
    Margin,
    TargetedDLR,
    TargetedMargin,
)
from aisec_lab.attacks.evasion.noise import RowNoise
from aisec_lab.attacks.evasion.score import Square

__all__ = [
    "APGD",
    "DLR",
    "FGSM",
    "L0",
    "L1",
    "L2",
    "PGD",
    "Attack",
    "Ball",
    "CrossEntropy",
    "KullbackLeibler",
    "Linf",
    "Margin",
    "RowNoise",
    "Square",
    "Targeted",
    "TargetedAPGD",
    "TargetedDLR",
    "TargetedMargin",
    "Untargeted",
]
