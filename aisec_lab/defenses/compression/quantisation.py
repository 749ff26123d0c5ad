"""Quantisation: weights, and if wanted what they are multiplied with, in few bits."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.evasion.door import check
from aisec_lab.data import Dataset
from aisec_lab.defenses.compression.magnitude import weighty
from aisec_lab.models import called, refuse_computed
from aisec_lab.models.asked import asked
from aisec_lab.models.quantised import FixedGrid, Quantised, RowGrid, check_bits

BATCH = 500  # rows a pass of the calibration


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

        def rounded(name: str, layer: nn.Linear | nn.Conv2d) -> Quantised:
            read, given = reach[name]
            after = FixedGrid(*given) if isinstance(layer, nn.Conv2d) else None
            return Quantised(layer, 8, before=FixedGrid(*read), after=after)

        return replaced(model, data.x, rounded)


def replaced(model: nn.Module, x: Tensor, by: Callable[[str, nn.Linear | nn.Conv2d], nn.Module]) -> nn.Module:
    """A copy of a model with each linear and convolutional layer that a pass over x calls replaced, wherever it stands.

    Raises:
        ValueError: there is no such layer.
    """
    weighty(model)
    copied = copy.deepcopy(model)
    layers = set(called(copied, x[:1], (nn.Linear, nn.Conv2d)))  # attention, for one, uses a layer that it never calls
    if copied in layers:
        return by("", copied).to(next(model.parameters()).device).eval()  # type: ignore[arg-type]
    made: dict[nn.Module, nn.Module] = {}
    for name, layer in list(copied.named_modules(remove_duplicate=False)):
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer in layers:
            if layer not in made:
                made[layer] = by(name, layer).to(layer.weight.device)
            place, _, last = name.rpartition(".")
            setattr(copied.get_submodule(place), last, made[layer])
    return copied.eval()


Reach = tuple[float, float]


def reaches(model: nn.Module, x: Tensor) -> dict[str, tuple[Reach, Reach]]:
    """From what to what each weighty layer's input and output go, by its name, on inputs (N, *input)."""
    ends: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def see(_: nn.Module, read: tuple[Tensor], given: Tensor) -> None:
            ends.setdefault(name, []).append(torch.stack([*read[0].aminmax(), *given.aminmax()]))

        return see

    layers = set(weighty(model))
    with asked(model), torch.no_grad():
        hooks = [layer.register_forward_hook(watch(name)) for name, layer in model.named_modules() if layer in layers]
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
