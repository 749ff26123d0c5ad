"""The weights themselves as a fingerprint, whatever the order of the hidden units."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.fingerprints import Fingerprint, calibrated
from aisec_lab.defenses.ownership.watermark import Layer
from aisec_lab.models.layers import refuse_opaque, weight_of

OTHER = -1.0  # the likeness of a model with other layers: as low as a cosine gets


@dataclass(frozen=True)
class WeightFingerprint:
    """Cosine of a suspect's weights with the model's, unit by unit, after its units are put into the same order.

    From the first layer on, units are matched by the assignment of largest total cosine of their incoming weights, and
    the next layer's inputs follow (in the manner of Ainsworth et al., 2023, arXiv:2209.04836, section 3.2, once from
    front to back). So a thief who only reorders the units of a chain of layers hides nothing; one who scales units and
    undoes it in the next layer hides some. Weights that were trained anew, as by extraction, have nothing in common:
    this recognises copies.

    Args of `make`: as for `Fingerprinting`; rows and generator are not used. A suspect whose linear and convolutional
    layers have other shapes has a likeness of -1, which makes p = 1.

    Raises:
        ValueError: layers that are no chain, each reading the one listed before it, as those of a residual network; no
            reference model.
    """

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """As `Fingerprinting`."""
        own = tuple(weights(model))
        if any(later.shape[1] % former.shape[0] for former, later in pairwise(own)):
            raise ValueError(
                f"units are matched along a chain of layers, and those of this {type(model).__name__} are none: "
                "take another fingerprint for a residual network"
            )
        return calibrated(AlignedCosine(own), references)


@dataclass(frozen=True, eq=False)
class AlignedCosine:
    """The mean cosine of units with their partners.

    Args:
        own: weights of the model's layers, (out, in) or (out, in, height, width), from front to back.
    """

    own: tuple[Tensor, ...]

    def __call__(self, suspect: nn.Module) -> float:
        """As `Similarity`."""
        theirs = weights(suspect)
        if [weight.shape for weight in theirs] != [weight.shape for weight in self.own]:
            return OTHER
        cosines, order = [], torch.arange(self.own[0].shape[1])
        for place, (weight, other) in enumerate(zip(self.own, theirs, strict=True)):
            # inputs behind a flattened image lie channel by channel
            moved = other.flatten(1).unflatten(1, (len(order), -1))[:, order].flatten(1)
            cosine = F.normalize(weight.flatten(1)) @ F.normalize(moved).T  # (units, units)
            last = place == len(self.own) - 1  # its units are classes
            order = torch.arange(len(cosine)) if last else torch.from_numpy(linear_sum_assignment(-cosine)[1])
            cosines.append(cosine[torch.arange(len(cosine)), order])
        return torch.cat(cosines).double().mean().item()


def weights(model: nn.Module) -> list[Tensor]:
    """Copies of the weights of all linear and convolutional layers, on the CPU, in the order of the model's list."""
    refuse_opaque(model)
    layers = [layer for layer in model.modules() if isinstance(layer, Layer)]
    return [weight_of(layer).detach().cpu().clone() for layer in layers]
