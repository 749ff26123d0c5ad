"""The weights as a fingerprint, independent of the order of the hidden units."""

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

OTHER = -1.0  # similarity of a model with other layers: the smallest cosine


@dataclass(frozen=True)
class WeightFingerprint:
    """Mean cosine similarity of the units of a suspect with those of the model, after matching.

    From the first layer to the last, units are matched by the assignment of largest total cosine of their incoming
    weights, and the inputs of the next layer are permuted accordingly (one pass of the weight matching of Ainsworth et
    al., 2023, arXiv:2209.04836, section 3.2). Units of a recurrent layer are matched by their weights on the layer
    before; their weights on each other are then permuted too, and count in the similarity. So permuting the units of a
    chain of layers hides nothing. Scaling units and undoing it in the next layer hides something. Weights that were
    trained anew, as in extraction, are not similar: this recognises copies of the weights only.

    Call contract: docs/ownership.md, "Fingerprints"; `clean` and `generator` are not used. A suspect whose layers have
    other shapes has a similarity of -1, so p = 1.

    Raises:
        ValueError: layers that are not a chain in which each reads the one before it, as in a residual network; no
            layer, or a weight matrix of a layer that cannot be read (see `weights`), in a suspect too; no references.
    """

    def make(
        self, model: nn.Module, clean: Dataset, references: Sequence[nn.Module], *, generator: torch.Generator
    ) -> Fingerprint:
        """Make the fingerprint; see `Fingerprinting.make`."""
        own = tuple(weights(model))
        if not own:
            raise ValueError(
                f"this {type(model).__name__} has no matrix of weights: take a fingerprint by queries, such as IPGuard"
            )
        if any(later.incoming.shape[1] % len(former.incoming) for former, later in pairwise(own)):
            raise ValueError(
                f"units are matched along a chain of layers, and those of this {type(model).__name__} are none: "
                "take another fingerprint for a residual network"
            )
        return calibrated(AlignedCosine(own), references)


class Units(NamedTuple):
    """The weights of the units of a layer.

    Args:
        incoming: weights on the outputs of the layer before, (out, in, ...).
        recurrent: weights of the units on each other, (out, out, gates); None in a layer without recurrence.
    """

    incoming: Tensor
    recurrent: Tensor | None = None


@dataclass(frozen=True, eq=False)
class AlignedCosine:
    """Similarity: the mean cosine of units with the units that they are matched with.

    Args:
        own: weights of the model's layers, from first to last.
    """

    own: tuple[Units, ...]

    def __call__(self, suspect: nn.Module) -> float:
        """The mean cosine, in [-1, 1]; -1 for a suspect with layers of other shapes."""
        theirs = weights(suspect)
        if _shapes(theirs) != _shapes(self.own):
            return OTHER
        cosines, order = [], torch.arange(self.own[0].incoming.shape[1])
        for place, (ours, other) in enumerate(zip(self.own, theirs, strict=True)):
            weight = ours.incoming.flatten(1)
            # the inputs after a flattened image are ordered by channel
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
    """Copies of the weights of all layers, on the CPU, in the order of `model.modules()`.

    Linear and convolutional layers, embeddings and embedding bags, and recurrent layers of one direction can be read.
    A unit is what the next layer reads.

    Raises:
        ValueError: an opaque model, or a weight matrix of any other layer, which would be left out.
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
                "a fingerprint of the other weights would not see it: take one by queries, such as IPGuard"
            )
    return found


def _units(layer: nn.Module) -> list[Units] | None:
    """The weights of a layer, or of each of a stack of recurrent layers; None for one that cannot be read."""
    if isinstance(layer, Layer):
        return [Units(_copy(weight_of(layer)))]
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return [Units(_copy(weight_of(layer)).T)]  # a unit is a column; its inputs are the words
    if isinstance(layer, nn.RNNBase) and not layer.bidirectional and not layer.proj_size:
        return [
            Units(*(_by_units(weight_of(layer, f"weight_{kind}_l{k}"), layer.hidden_size) for kind in ("ih", "hh")))
            for k in range(layer.num_layers)
        ]
    if isinstance(layer, nn.RNNCellBase):
        return [Units(*(_by_units(weight_of(layer, f"weight_{kind}"), layer.hidden_size) for kind in ("ih", "hh")))]
    return None


def _by_units(weight: Tensor, units: int) -> Tensor:
    """Stacked weights of all gates (gates * units, in) as (units, in, gates)."""
    return _copy(weight).unflatten(0, (-1, units)).permute(1, 2, 0)


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().cpu().clone()


def _shapes(layers: Sequence[Units]) -> list[tuple[torch.Size, bool]]:
    return [(layer.incoming.shape, layer.recurrent is None) for layer in layers]
