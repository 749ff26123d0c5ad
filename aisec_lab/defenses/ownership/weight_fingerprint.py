"""The weights themselves as a fingerprint, whatever the order of the hidden units."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

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
    front to back). The units of a recurrent layer are matched so too, by what they read of the layer before, and what
    they read of each other then counts in the same order. So a thief who only reorders the units of a chain of layers
    hides nothing; one who scales units and undoes it in the next layer hides some. Weights that were trained anew, as
    by extraction, have nothing in common: this recognises copies.

    Args of `make`: as for `Fingerprinting`; rows and generator are not used. A suspect whose layers have other
    shapes has a likeness of -1, which makes p = 1.

    Raises:
        ValueError: layers that are no chain, each reading the one listed before it, as those of a residual network; no
            layer, or a matrix that is none of a layer which can be read (`weights`), in a suspect too; no reference
            model.
    """

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """As `Fingerprinting`."""
        own = tuple(weights(model))
        if not own:
            raise ValueError(f"this {type(model).__name__} has no matrix of weights: take a fingerprint that asks it")
        if any(later.incoming.shape[1] % len(former.incoming) for former, later in pairwise(own)):
            raise ValueError(
                f"units are matched along a chain of layers, and those of this {type(model).__name__} are none: "
                "take another fingerprint for a residual network"
            )
        return calibrated(AlignedCosine(own), references)


class Units(NamedTuple):
    """The weights of a layer, by its units.

    Args:
        incoming: with which they read the layer before, (out, in, ...).
        recurrent: with which they read each other, (out, out, gates); None where they do not.
    """

    incoming: Tensor
    recurrent: Tensor | None = None


@dataclass(frozen=True, eq=False)
class AlignedCosine:
    """The mean cosine of units with their partners.

    Args:
        own: weights of the model's layers, from front to back.
    """

    own: tuple[Units, ...]

    def __call__(self, suspect: nn.Module) -> float:
        """As `Similarity`."""
        theirs = weights(suspect)
        if _shapes(theirs) != _shapes(self.own):
            return OTHER
        cosines, order = [], torch.arange(self.own[0].incoming.shape[1])
        for place, (ours, other) in enumerate(zip(self.own, theirs, strict=True)):
            weight = ours.incoming.flatten(1)
            # inputs behind a flattened image lie channel by channel
            moved = other.incoming.flatten(1).unflatten(1, (len(order), -1))[:, order].flatten(1)
            cosine = F.normalize(weight) @ F.normalize(moved).T  # (units, units)
            last = place == len(self.own) - 1  # its units are classes
            order = torch.arange(len(cosine)) if last else torch.from_numpy(linear_sum_assignment(-cosine)[1])
            if ours.recurrent is None or other.recurrent is None:
                cosines.append(cosine[torch.arange(len(cosine)), order])
                continue
            pair = ((weight, ours.recurrent), (moved[order], other.recurrent[order][:, order]))
            whole, partners = (torch.cat([part.flatten(1) for part in parts], 1) for parts in pair)
            cosines.append(F.cosine_similarity(whole, partners))
        return torch.cat(cosines).double().mean().item()


def weights(model: nn.Module) -> list[Units]:
    """Copies of the weights of all layers, on the CPU, in the order of the model's list.

    Read are linear and convolutional layers, embeddings and bags of them, and recurrent ones of one direction: in each
    a unit is what the next layer reads.

    Raises:
        ValueError: an opaque model; any other matrix of weights, which would be left out.
    """
    refuse_opaque(model)
    found: list[Units] = []
    inside: set[nn.Module] = set()
    for name, layer in model.named_modules():
        if layer in inside:
            continue
        units = _units(layer)
        if units is not None:
            found += units
            inside.update(layer.modules())
            continue
        unread = [kind for kind, weight in layer.named_parameters(recurse=False) if weight.ndim > 1]
        if unread:
            raise ValueError(
                f"the {unread[0]} of {name or 'the model'}, a {type(layer).__name__}, cannot be read unit by unit, and "
                "a fingerprint of the other weights would not see it: take one that asks (IPGuard, BoundaryFingerprint)"
            )
    return found


def _units(layer: nn.Module) -> list[Units] | None:
    """The weights of a layer, of a recurrent one those of each of its layers; None for what cannot be read."""
    if isinstance(layer, Layer):
        return [Units(_copy(weight_of(layer)))]
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return [Units(_copy(weight_of(layer)).T)]  # a unit is a column: what it reads is a word
    if isinstance(layer, nn.RNNBase) and not layer.bidirectional and not layer.proj_size:
        return [
            Units(*(_by_units(weight_of(layer, f"weight_{kind}_l{k}"), layer.hidden_size) for kind in ("ih", "hh")))
            for k in range(layer.num_layers)
        ]
    if isinstance(layer, nn.RNNCellBase):
        return [Units(*(_by_units(weight_of(layer, f"weight_{kind}"), layer.hidden_size) for kind in ("ih", "hh")))]
    return None


def _by_units(weight: Tensor, units: int) -> Tensor:
    """Weights of all gates (gates * units, in), one gate below the other, as (units, in, gates)."""
    return _copy(weight).unflatten(0, (-1, units)).permute(1, 2, 0)


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().cpu().clone()


def _shapes(layers: Sequence[Units]) -> list[tuple[torch.Size, bool]]:
    return [(layer.incoming.shape, layer.recurrent is None) for layer in layers]
