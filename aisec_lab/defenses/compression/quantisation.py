"""Quantisation: weights, and if wanted what they are multiplied with, in few bits."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.attack import check
from aisec_lab.data import Dataset
from aisec_lab.models import called, copied, refuse_computed
from aisec_lab.models.asked import asked
from aisec_lab.models.quantised import FixedGrid, Quantised, Roundable, RowGrid, check_bits, roundable

BATCH = 500  # rows a pass of the calibration
HOOKS = tuple(name for name in vars(nn.Module()) if name.startswith(("_forward_hooks", "_forward_pre_hooks")))


@dataclass(frozen=True)
class WeightOnly:
    """Weights in few bits, in blocks with a step of their own; what they are multiplied with stays as it is.

    Dettmers & Zettlemoyer, 2023, arXiv:2212.09720, section 2, with whole numbers in place of floating ones.

    Args:
        bits: 2 to 8; up to four are stored in half a byte, the others in a byte.
        block: how many weights of a channel share a step.

    Args of the call, returns: as for `Compression`; no row of the data is used.

    Raises:
        ValueError: settings that cannot be, a model without weights; what an attack refuses of a model and its inputs.
    """

    bits: int = 4
    block: int = 32

    def __post_init__(self) -> None:
        check_bits(self.bits, self.block)

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check(model, data.x, data.y)
        refuse_computed(model)
        return replaced(model, data.x, lambda _, layer: Quantised(layer, self.bits, self.block))


@dataclass(frozen=True)
class DynamicInt8:
    """Weights in eight bits, and the inputs of each layer too, in steps that every row brings along.

    Dettmers et al., 2022, arXiv:2208.07339, section 2.

    Args of the call, returns: as for `Compression`; no row of the data is used.

    Raises:
        ValueError: a model without weights; what an attack refuses of a model and its inputs.
    """

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check(model, data.x, data.y)
        refuse_computed(model)
        return replaced(model, data.x, lambda _, layer: Quantised(layer, 8, before=RowGrid()))


@dataclass(frozen=True)
class StaticInt8:
    """Weights in eight bits, and what goes into and comes out of layers too, on grids that calibration has fixed.

    Jacob et al., 2018, arXiv:1712.05877, section 2.1. What a linear layer gives is not rounded: the last one's are the
    logits, and the others' are rounded where they are read.

    Args:
        rows: how many rows, drawn at random, calibrate: what they reach from and to is what the grids hold.

    Args of the call, returns: as for `Compression`.

    Raises:
        ValueError: no row, a model without weights; what an attack refuses of a model and its inputs.
    """

    rows: int = 512

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"calibration needs at least one row, got {self.rows}: try 512")

    def __call__(self, model: nn.Module, *, data: Dataset, generator: torch.Generator) -> nn.Module:
        check(model, data.x, data.y)
        refuse_computed(model)
        chosen = torch.randperm(len(data), generator=generator)[: self.rows].to(data.x.device)
        reach = reaches(model, data.x[chosen])

        def rounded(name: str, layer: Roundable) -> Quantised:
            read, given = reach[name]
            after = None if isinstance(layer, nn.Linear) else FixedGrid(*given)
            return Quantised(layer, 8, before=FixedGrid(*read), after=after)

        return replaced(model, data.x, rounded)


def replaced(model: nn.Module, x: Tensor, by: Callable[[str, Roundable], nn.Module]) -> nn.Module:
    """A copy of a model with each linear and convolutional layer that a pass over x calls replaced, wherever it stands.

    Raises:
        ValueError: there is no such layer.

    Warns:
        UserWarning: with the names of other layers with weights that the pass calls: these stay as they are.
    """
    smaller = copied(model)
    used = called(smaller, x[:1], nn.Module)  # attention, for one, uses a layer that it never calls
    layers = {layer for layer in used if roundable(layer)}
    if not layers:
        raise ValueError(f"{type(model).__name__} calls no linear or convolutional layer that could be quantised")
    places = list(smaller.named_modules(remove_duplicate=False))
    kept = [name or "the model" for name, layer in places if layer in used and layer not in layers and _weighs(layer)]
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


def _weighs(layer: nn.Module) -> bool:
    """Whether a layer itself has matrices or kernels, rounded or not."""
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm | Quantised):
        return False
    return any(weight.ndim > 1 for weight in layer.parameters(recurse=False))


def _in_place_of(layer: nn.Module, new: nn.Module) -> nn.Module:
    """The new layer, on the device of the old one and with its hooks."""
    for name in HOOKS:
        getattr(new, name).update(getattr(layer, name))
    return new.to(next(layer.parameters()).device)


Reach = tuple[float, float]


def reaches(model: nn.Module, x: Tensor) -> dict[str, tuple[Reach, Reach]]:
    """From what to what input and output of each layer that can be rounded go, by its name, on x (N, *input)."""
    ends: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def see(_: nn.Module, read: tuple[Tensor], given: Tensor) -> None:
            ends.setdefault(name, []).append(torch.stack([*read[0].aminmax(), *given.aminmax()]))

        return see

    with asked(model), torch.no_grad():
        hooks = [layer.register_forward_hook(watch(name)) for name, layer in model.named_modules() if roundable(layer)]
        try:
            for batch in x.split(BATCH):
                model(batch)
        finally:
            for hook in hooks:
                hook.remove()
    found = {}
    for name, batches in ends.items():
        low, high = (end.tolist() for end in torch.stack(batches).aminmax(dim=0))
        found[name] = (low[0], high[1]), (low[2], high[3])
    return found
