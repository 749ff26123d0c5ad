"""The weights as a fingerprint, independent of the order of the hidden units."""

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

OTHER = -1.0  # similarity of a model with other layers: the smallest cosine


@dataclass(frozen=True)
class WeightFingerprint:
    """Mean cosine similarity of the units of a suspect with those of the model, after matching.

    From the first layer to the last, units are matched by the assignment of largest total cosine of their incoming
    weights, and the inputs of the next layer are permuted accordingly (one pass of the weight matching of Ainsworth et
    al., 2023, arXiv:2209.04836, section 3.2). So permuting the units of a chain of layers hides nothing. Scaling units
    and undoing it in the next layer hides something. Weights that were trained anew, as in extraction, are not similar:
    this recognises copies of the weights only.

    Call contract: docs/ownership.md, "Fingerprints"; `clean` and `generator` are not used. A suspect whose linear and
    convolutional layers have other shapes has a similarity of -1, so p = 1.

    Raises:
        ValueError: layers that are not a chain in which each reads the one before it, as in a residual network; or no
            references.
    """

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """Make the fingerprint; see `Fingerprinting.make`."""
        own = tuple(weights(model))
        if any(later.shape[1] % former.shape[0] for former, later in pairwise(own)):
            raise ValueError(
                f"units are matched along a chain of layers, and those of this {type(model).__name__} are none: "
                "take another fingerprint for a residual network"
            )
        return calibrated(AlignedCosine(own), references)


@dataclass(frozen=True, eq=False)
class AlignedCosine:
    """Similarity: the mean cosine of units with the units that they are matched with.

    Args:
        own: weights of the model's layers, (out, in) or (out, in, height, width), from first to last.
    """

    own: tuple[Tensor, ...]

    def __call__(self, suspect: nn.Module) -> float:
        """The mean cosine, in [-1, 1]; -1 for a suspect with layers of other shapes."""
        theirs = weights(suspect)
        if [weight.shape for weight in theirs] != [weight.shape for weight in self.own]:
            return OTHER
        cosines, order = [], torch.arange(self.own[0].shape[1])
        for place, (weight, other) in enumerate(zip(self.own, theirs, strict=True)):
            # the inputs after a flattened image are ordered by channel
            moved = other.flatten(1).unflatten(1, (len(order), -1))[:, order].flatten(1)
            cosine = F.normalize(weight.flatten(1)) @ F.normalize(moved).T  # (units, units)
            last = place == len(self.own) - 1  # its units are classes
            order = torch.arange(len(cosine)) if last else torch.from_numpy(linear_sum_assignment(-cosine)[1])
            cosines.append(cosine[torch.arange(len(cosine)), order])
        return torch.cat(cosines).double().mean().item()


def weights(model: nn.Module) -> list[Tensor]:
    """Copies of the weights of all linear and convolutional layers, on the CPU, in the order of `model.modules()`."""
    refuse_opaque(model)
    layers = [layer for layer in model.modules() if isinstance(layer, Layer)]
    return [weight_of(layer).detach().cpu().clone() for layer in layers]
