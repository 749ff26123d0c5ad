"""Classifiers, the one training loop, and checkpoints."""

from aisec_lab.models.architectures import CNN, MLP, ResNet
from aisec_lab.models.checkpoints import load_checkpoint, save_checkpoint
from aisec_lab.models.fit import Fit, Objective, Step, plain
from aisec_lab.models.frozen import frozen, seeded
from aisec_lab.models.layers import Architecture, Normalised
from aisec_lab.models.passes import Counted, logits_of

__all__ = [
    "CNN",
    "MLP",
    "Architecture",
    "Counted",
    "Fit",
    "Normalised",
    "Objective",
    "ResNet",
    "Step",
    "frozen",
    "load_checkpoint",
    "logits_of",
    "plain",
    "save_checkpoint",
    "seeded",
]
