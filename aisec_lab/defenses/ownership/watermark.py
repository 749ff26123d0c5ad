"""The contract of all watermarks: they are embedded in a model under a key, and verified in a suspect."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.models.layers import refuse_opaque, weight_of
from aisec_lab.models.quantised import Quantised, Roundable

Layer = Roundable | Quantised  # a layer with a weight that can hold a mark


@dataclass(frozen=True, eq=False)
class WatermarkedModel:
    """A marked model, and what its owner needs to recognise copies of it: the claim.

    `dataclasses.replace(marked, key=another)` is the same claim under another key, which should not be recognised.

    Args:
        model: classifier in evaluation mode.
        key: the owner's key, which determines the mark.
        rows: rows that a suspect is queried with. If they do not follow from the key, the owner must commit to them
            too. If they do, only their shape and classes are used. None if nothing is queried.

    Raises:
        ValueError: a key that is no `Key`.
    """

    model: nn.Module
    key: Key
    rows: Dataset | None = None

    def __post_init__(self) -> None:
        check_key(self.key)


class Watermark(Protocol):
    """A watermark: a frozen dataclass of settings. Call contract: docs/ownership.md, "Watermarks"."""

    def embed(self, model: nn.Module, train: Dataset, key: Key, *, generator: torch.Generator) -> WatermarkedModel:
        """Embed the mark in a copy of a classifier.

        Args:
            model: classifier, which is not changed. If it is trained, its copy is fine-tuned; with fresh weights, it
                learns the task and the mark together.
            train: training rows, on the model's device.
            key: a fresh key for each model; otherwise the owners of two copies cannot be told apart.
            generator: source of the randomness of training. The mark depends on the key alone.

        Returns:
            The marked model, with the claim.

        Raises:
            ValueError: a key that is no `Key`, or a model or data that cannot hold the mark.
        """
        ...

    def verify(self, suspect: nn.Module, marked: WatermarkedModel) -> float:
        """The p-value of "the suspect has nothing to do with the key".

        The key is random; the suspect, its weights and its training data are fixed. So P[p <= a] <= a holds for any
        model that was made without knowledge of the key, however it was made and however similar it is to the marked
        model without its mark. This is for one key and one suspect: with m suspects, compare with a / m.

        Args:
            suspect: a classifier, evaluated in evaluation mode; an `Oracle` is enough for marks that only query.
            marked: the owner's claim.

        Returns:
            The p-value, in [0, 1]; 1 if a mark in weights or activations finds no layer of the marked one's shape.

        Raises:
            ValueError: a suspect that cannot be queried with the rows of the claim (see `Suspect`), or an opaque one if
                the mark needs its weights or activations.
        """
        ...


def claim_rows(marked: WatermarkedModel) -> Dataset:
    """The rows of a claim that needs some; ValueError if it has none."""
    if marked.rows is None:
        raise ValueError(
            "this claim has no rows to show to a suspect: verify it with the watermark that embedded it, "
            "a served one with the rows that a client asked (DAWN.with_queries)"
        )
    return marked.rows


def get_layer(model: nn.Module, layer: int) -> Layer:
    """Find a layer by its index among the linear and convolutional layers, quantised or not.

    Args:
        model: any module.
        layer: index in the order of `model.modules()`; negative indices count from the end.

    Returns:
        The layer.

    Raises:
        ValueError: a model without that layer, or an opaque one.
    """
    refuse_opaque(model)
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    if not -len(layers) <= layer < len(layers):
        raise ValueError(
            f"layer {layer} is none of the {len(layers)} linear and convolutional ones of this "
            f"{type(model).__name__}: choose one that it has"
        )
    return layers[layer]


def layer_to_mark(model: nn.Module, layer: int, x: Tensor, *, enters: bool = False) -> Roundable:
    """Find the layer that training is to mark, and check that training can change it.

    Args:
        model: a copy of the owner's model; it is put in evaluation mode.
        layer: index, see `get_layer`.
        x: rows (N, *input) to call the model with; one is enough.
        enters: whether the mark is in the inputs of the layer, not in its weight.

    Returns:
        The layer.

    Raises:
        ValueError: a model without that layer; a layer that the model does not call (for a mark in its inputs: not
            once with each row); a layer that is quantised or frozen (for a mark in its inputs: nothing before it is
            trainable).
    """
    found, entered = get_layer(model, layer), list[Tensor]()
    if isinstance(found, Quantised):
        raise ValueError(f"layer {layer} has rounded weights, which training cannot move: mark the model before that")
    with found.register_forward_pre_hook(lambda _, args: entered.append(args[0])), torch.enable_grad():
        model.eval()(x.clone())
    if not entered or (enters and (len(entered) > 1 or len(entered[0]) != len(x))):
        calls = f"{len(entered)} times for {len(x)} rows" if entered else "never"
        raise ValueError(f"layer {layer} is called {calls}: choose one that sees each row once")
    if not (entered[0] if enters else found.weight).requires_grad:
        what = "nothing that is trained lies before it" if enters else "its weight is frozen"
        raise ValueError(f"layer {layer} cannot be marked, {what}: take another, or call requires_grad_(True)")
    return found


def matching_layer(marked: nn.Module, suspect: nn.Module, layer: int) -> Layer | None:
    """The suspect's layer of the same index; None if there is none, or if its weight has another shape."""
    refuse_opaque(suspect)
    try:
        twin = get_layer(suspect, layer)
    except ValueError:
        return None
    return twin if weight_of(twin).shape == weight_of(get_layer(marked, layer)).shape else None
