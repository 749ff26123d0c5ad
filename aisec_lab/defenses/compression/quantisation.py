"""Quantisation: weights, and optionally activations, in few bits."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.core.validation import check_inputs
from aisec_lab.data import Dataset
from aisec_lab.models import called_layers, copied, refuse_computed
from aisec_lab.models.checked import checked_model
from aisec_lab.models.quantised import FixedGrid, Quantised, Roundable, RowGrid, check_bits, roundable

BATCH = 500  # rows in one pass of the calibration
HOOKS = tuple(name for name in vars(nn.Module()) if name.startswith(("_forward_hooks", "_forward_pre_hooks")))


@dataclass(frozen=True)
class WeightOnly:
    """Quantise weights in blocks; activations stay in floating point.

    Dettmers & Zettlemoyer, 2023, arXiv:2212.09720, section 2, with integers in place of floating-point numbers. Call
    contract: docs/defenses.md, "Compression"; no row of the data is learned from.

    Args:
        bits: 2 to 8; up to 4 bits are stored in half a byte, more in a byte.
        block: how many weights of a channel share a scale.
    """

    bits: int = 4
    block: int = 32

    def __post_init__(self) -> None:
        check_bits(self.bits, self.block)

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check_inputs(model, data.x, data.y)
        refuse_computed(model)
        return quantise_layers(model, data.x, lambda _, layer: Quantised(layer, self.bits, self.block))


@dataclass(frozen=True)
class DynamicInt8:
    """Quantise weights to 8 bits, and the inputs of each layer too, with a scale for every row.

    Dettmers et al., 2022, arXiv:2208.07339, section 2. Call contract: docs/defenses.md, "Compression"; no row of the
    data is learned from.
    """

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check_inputs(model, data.x, data.y)
        refuse_computed(model)
        return quantise_layers(model, data.x, lambda _, layer: Quantised(layer, 8, before=RowGrid()))


@dataclass(frozen=True)
class StaticInt8:
    """Quantise weights and activations to 8 bits, with activation ranges from calibration.

    Jacob et al., 2018, arXiv:1712.05877, section 2.1. Outputs of linear layers are not quantised: the last one's are
    the logits, and the next layer quantises its input. Call contract: docs/defenses.md, "Compression".

    Args:
        rows: how many random rows calibrate, at least 1; their smallest and largest activations are the ranges.
    """

    rows: int = 512

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"calibration needs at least one row, got {self.rows}: try 512")

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check_inputs(model, data.x, data.y)
        refuse_computed(model)
        chosen = torch.randperm(len(data), generator=generator)[: self.rows].to(data.x.device)
        ranges = activation_ranges(model, data.x[chosen])

        def quantised(name: str, layer: Roundable) -> Quantised:
            inputs, outputs = ranges[name]
            after = None if isinstance(layer, nn.Linear) else FixedGrid(*outputs)
            return Quantised(layer, 8, before=FixedGrid(*inputs), after=after)

        return quantise_layers(model, data.x, quantised)


def quantise_layers(model: nn.Module, x: Tensor, by: Callable[[str, Roundable], nn.Module]) -> nn.Module:
    """Replace each linear and convolutional layer that a pass calls, in a copy of the model.

    Args:
        model: classifier; it stays as it is.
        x: inputs (N, *input); the first is used for the pass.
        by: maps a layer's name and a layer to its replacement.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ValueError: there is no such layer.

    Warns:
        UserWarning: with the names of other layers with weights that the pass calls; these stay as they are.
    """
    smaller = copied(model)
    used = called_layers(smaller, x[:1], nn.Module)  # attention, for one, uses a layer that it never calls
    layers = {layer for layer in used if roundable(layer)}
    if not layers:
        raise ValueError(f"{type(model).__name__} calls no linear or convolutional layer that could be quantised")
    places = list(smaller.named_modules(remove_duplicate=False))
    kept = [
        name or "the model" for name, layer in places if layer in used and layer not in layers and _has_weights(layer)
    ]
    if kept:
        warnings.warn(f"not quantised, neither linear nor a convolution: {', '.join(kept)}", stacklevel=3)
    if smaller in layers:
        return _in_place_of(smaller, by("", smaller)).eval()  # type: ignore[arg-type]
    made: dict[nn.Module, nn.Module] = {}
    for name, layer in places:
        if layer in layers:
            if layer not in made:
                made[layer] = _in_place_of(layer, by(name, layer))
            place, _, last = name.rpartition(".")
            setattr(smaller.get_submodule(place), last, made[layer])
    return smaller.eval()


def _has_weights(layer: nn.Module) -> bool:
    """Whether a layer itself has matrices or kernels that are not quantised; norms do not count."""
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm | Quantised):
        return False
    return any(weight.ndim > 1 for weight in layer.parameters(recurse=False))


def _in_place_of(layer: nn.Module, new: nn.Module) -> nn.Module:
    """The new layer, on the device of the old one and with its hooks."""
    for name in HOOKS:
        getattr(new, name).update(getattr(layer, name))
    return new.to(next(layer.parameters()).device)


Range = tuple[float, float]


def activation_ranges(model: nn.Module, x: Tensor) -> dict[str, tuple[Range, Range]]:
    """The smallest and largest inputs and outputs of each layer that can be quantised.

    Args:
        model: classifier.
        x: inputs (N, *input).

    Returns:
        By the layer's name: the range of its inputs, and that of its outputs.
    """
    ends: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            ends.setdefault(name, []).append(torch.stack([*inputs[0].aminmax(), *output.aminmax()]))

        return hook

    with checked_model(model), torch.no_grad():
        hooks = [layer.register_forward_hook(watch(name)) for name, layer in model.named_modules() if roundable(layer)]
        try:
            for batch in x.split(BATCH):
                model(batch)
        finally:
            for hook in hooks:
                hook.remove()
    ranges = {}
    for name, batches in ends.items():
        low, high = (end.tolist() for end in torch.stack(batches).aminmax(dim=0))
        ranges[name] = (low[0], high[1]), (low[2], high[3])
    return ranges
