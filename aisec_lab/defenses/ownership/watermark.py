"""What every watermark is: put into a model under a key, and looked for in a suspect under that key."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.ownership.key import Key, check_key
from aisec_lab.models.layers import refuse_opaque, weight_of
from aisec_lab.models.quantised import Quantised, Roundable

Layer = Roundable | Quantised  # what has a weight that a mark may lie in


@dataclass(frozen=True, eq=False)
class WatermarkedModel:
    """A marked model, and what its owner needs to recognise copies of it.

    `dataclasses.replace(marked, key=another)` is the same claim under another key, which must find nothing.

    Args:
        model: a classifier in evaluation mode.
        key: from which the mark follows.
        rows: what a suspect is asked or fed, if that does not follow from the key alone: it has to be committed to
            as well. Where it does follow, it is kept for its shape and classes, and not believed. None where nothing
            is asked.
    """

    model: nn.Module
    key: Key
    rows: Dataset | None = None

    def __post_init__(self) -> None:
        check_key(self.key)


class Watermark(Protocol):
    """Settings of a watermark."""

    def embed(self, model: nn.Module, train: Dataset, key: Key, *, generator: torch.Generator) -> WatermarkedModel:
        """A marked copy of a classifier; the model that is handed over stays as it is.

        Args:
            model: classifier; trained, then the mark is put in by fine-tuning; with fresh weights, it learns both.
            train: rows that it learns from, on the model's device.
            key: a fresh one for each model, or two owners of copies cannot be told apart; ValueError where it is no
                `Key`.
            generator: source of the training's randomness; the mark's own is the key.
        """
        ...

    def verify(self, suspect: nn.Module, marked: WatermarkedModel) -> float:
        """A p-value of "the suspect has nothing to do with the key".

        The key is random and everything else is held fixed: the suspect, its weights and whatever it was trained on.
        So P[p <= a] <= a for any model that was made without knowledge of the key, however it was made and however
        much it resembles the marked one without its mark. One key, one suspect, one claim: with m suspects, compare
        with a / m.

        Args:
            suspect: a classifier, seen in evaluation mode; an `Oracle` for those marks that only ask.
            marked: the owner's claim.

        Returns:
            The p-value; 1 where a mark that looks inside finds no layer of the shape of the marked one.

        Raises:
            ValueError: a suspect that can't be asked (`Suspect`); an opaque one, where the mark looks inside.
        """
        ...


def rows_of(marked: WatermarkedModel) -> Dataset:
    """The rows of a claim that has to have some; ValueError where it has none."""
    if marked.rows is None:
        raise ValueError(
            "this claim has no rows to show to a suspect: verify it with the watermark that embedded it, "
            "a served one with the rows that a client asked (DAWN.asked)"
        )
    return marked.rows


def layer_of(model: nn.Module, layer: int) -> Layer:
    """The layer of that number among the linear and convolutional ones, quantised or not, in the model's own order.

    Args:
        model: any module.
        layer: from 0 up, or from -1 down.

    Raises:
        ValueError: a model without it, or an opaque one.
    """
    refuse_opaque(model)
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    if not -len(layers) <= layer < len(layers):
        raise ValueError(
            f"layer {layer} is none of the {len(layers)} linear and convolutional ones of this "
            f"{type(model).__name__}: choose one that it has"
        )
    return layers[layer]


def markable(model: nn.Module, layer: int, x: Tensor, *, enters: bool = False) -> Roundable:
    """The layer of that number, in which training is to put a mark.

    Args:
        model: a copy of the owner's, which is put in evaluation mode.
        layer: as for `layer_of`.
        x: rows (N, *input) to call the model with, such as one.
        enters: whether the mark is in what enters the layer, and not in its weight.

    Raises:
        ValueError: a model without it; a layer that the model does not call, or, for what enters it, not once with
            each row; a layer where training moves nothing, since its weight, or all that lies before it, is frozen.
    """
    found, entered = layer_of(model, layer), list[Tensor]()
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


def twin_of(marked: nn.Module, suspect: nn.Module, layer: int) -> Layer | None:
    """The suspect's layer of that number; None where it has none, or one whose weights have another shape."""
    refuse_opaque(suspect)
    try:
        twin = layer_of(suspect, layer)
    except ValueError:
        return None
    return twin if weight_of(twin).shape == weight_of(layer_of(marked, layer)).shape else None
