"""Models that mix the rows of a batch, or keep them: no clipping bounds what one row does to these."""

import copy
import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.models import in_training, seeded
from aisec_lab.privacy.gradients import trained

FEW = 9  # rows of a draw that is cheap
HINTS = {  # what to build instead of a layer that mixes rows
    nn.modules.batchnorm._NormBase: "use GroupNorm, or freeze its weights, which keeps its statistics as they are",
    nn.MultiheadAttention: "build it with batch_first=True",
    nn.TransformerEncoderLayer: "build it with batch_first=True",
    nn.TransformerDecoderLayer: "build it with batch_first=True",
    nn.RNNBase: "build it with batch_first=True",
}


def refuse_mixing(model: nn.Module, x: Tensor, batch_size: int) -> None:
    """Refuse a model in which a row's output depends on other rows, or which keeps what it is shown.

    It is tried, not read: a copy of the model in training mode meets rows that are nobody's. Some of them change, and
    the outputs for all others must stay as they are, to the bit; each row is changed while each other is not. Then rows
    leave the batch, and the outputs for those that stay must be the same up to rounding. All entries of the copy's
    state must be as they were.

    Args:
        model: in any mode; nothing of it is changed.
        x: rows of the kind that it will see, (N, *input): their shape, type, device and range are used.
        batch_size: of the training; rows that are up to twice so many places apart are tried.

    Raises:
        ValueError: with the name of the layer, where it can be told: rows mix; a buffer or weight changes in a forward
            pass; the model cannot be copied; it has no weights to train, or no row for a row.
    """
    if not trained(model):
        raise ValueError("all weights are frozen: there is nothing to train")
    try:
        probe = in_training(copy.deepcopy(model))
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied ({error}): layers of torch.nn.utils that compute a weight in a "
            "hook have a successor in torch.nn.utils.parametrizations"
        ) from error
    for name, layer in probe.named_modules():
        if _by_construction(layer):
            raise ValueError(f"{name} ({type(layer).__name__}) mixes the rows of a batch: {_hint(layer)}")
    for shaken in (False, True):  # training moves the weights: what mixes rows elsewhere shows with others, if at all
        if shaken:
            _shake(probe)
        before, trial = _state(probe), Trial(in_training(probe), x)
        with torch.no_grad():
            for number, (rows, others) in enumerate(_draws(x, FEW)):
                trial.of_changes(rows, others, number)
                if not shaken:  # with weights of any size rounding may grow to anything
                    trial.of_removals(rows, number)
            rows, others = next(_draws(x, 2 * batch_size))
            trial.of_changes(rows, others, 0)
            probe.eval()(others)
        after = _state(probe)
        for name in before | after:
            if before.get(name) != after.get(name):
                raise ValueError(
                    f"{name} changes in a forward pass, so that it could carry rows out of the training, past the "
                    "noise: compute it from the weights alone, or take it out of the model"
                )


@torch.no_grad()
def _shake(model: nn.Module) -> None:
    """Add standard normal noise to all weights."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.add_(torch.randn(weight.shape, generator=generator).to(weight))


class Trial:
    """What a model answers when some rows change or leave.

    Args:
        model: in training mode; its state may change.
        x: rows of the kind that it takes.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model, self.cuda = model, [x.device] if x.is_cuda else []

    def of_changes(self, rows: Tensor, others: Tensor, seed: int) -> None:
        """Change rows to `others`, half of them at a time: for any two, one is changed once while the other is not."""
        first = self._answers(rows, seed)
        doubt = 10 * (self._answers(rows, seed) - first).nan_to_num().abs().max()  # 0, but for an atomic sum on a GPU
        for changed in _halves(len(rows)):
            mixed = torch.where(changed.to(rows.device).view(-1, *[1] * (rows.ndim - 1)), others, rows)
            if _differ(first[~changed], self._answers(mixed, seed)[~changed], doubt):
                self._refuse(rows, mixed, ~changed, seed)

    def of_removals(self, rows: Tensor, seed: int) -> None:
        """Take rows out: the first, the last, every second, all but one. Where the model is random, without chance."""
        modes = [(module, module.training) for module in self.model.modules()]
        if _differ(self._answers(rows, seed), self._answers(rows, seed + 1), torch.tensor(0.0)):
            self.model.eval()
        first = self._answers(rows, seed)
        finite = first.nan_to_num(posinf=0, neginf=0)
        rounding = torch.finfo(first.dtype).eps ** 0.5 * finite.abs().max()
        for kept in (slice(1, None), slice(None, -1), slice(None, None, 2), slice(3, 4)):
            if _differ(first[kept], self._answers(rows[kept], seed), rounding):
                raise ValueError(
                    f"{type(self.model).__name__} mixes the rows of a batch: an output changes when other rows leave"
                )
        for module, mode in modes:
            module.training = mode

    def _answers(self, rows: Tensor, seed: int) -> Tensor:
        """Outputs (N, K), float, with all chance seeded."""
        with torch.random.fork_rng(self.cuda), seeded(self.model, torch.Generator().manual_seed(seed)):
            torch.manual_seed(seed)
            answers = self.model(rows)
        if not isinstance(answers, Tensor) or answers.ndim < 1 or len(answers) != len(rows):
            given = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
            raise ValueError(f"a model answers a batch with a tensor of one row for each row, got {given}: wrap it")
        return answers.flatten(1) if answers.is_floating_point() else answers.flatten(1).float()

    def _refuse(self, rows: Tensor, mixed: Tensor, same: Tensor, seed: int) -> None:
        """Name the innermost layer whose outputs for rows that are the `same` differ where its inputs do not."""
        runs: list[list[tuple[str, nn.Module, Tensor | None, Tensor]]] = []
        for batch in (rows, mixed):
            seen: list[tuple[str, nn.Module, Tensor | None, Tensor]] = []
            with ExitStack() as hooks:
                for name, layer in self.model.named_modules():

                    def look(layer: nn.Module, args: Any, output: Any, name: str = name, seen: Any = seen) -> None:
                        given, found = _rows_of(args, len(same)), _rows_of(output, len(same))
                        if found is not None:
                            seen.append((name, layer, given, found))

                    hooks.callback(layer.register_forward_hook(look).remove)
                self._answers(batch, seed)
            runs.append(seen)
        where, layer, exact = "", self.model, torch.tensor(0.0)
        for (name, one, before, after), (_, _, given, found) in zip(*runs, strict=False):
            alike = before is None or given is None or not _differ(before[same], given[same], exact)
            if alike and _differ(after[same], found[same], exact):
                where, layer = name, one
                break
        told = f"{where} ({type(layer).__name__})" if where else type(self.model).__name__
        raise ValueError(
            f"{told} mixes the rows of a batch: the output for a row changes when other rows do; {_hint(layer)}"
        )


def _by_construction(layer: nn.Module) -> bool:
    """Whether it is a layer that is known to mix rows, or to keep statistics of them, in its present mode."""
    if not isinstance(layer, nn.modules.batchnorm._NormBase) or not layer.training:
        return False
    return isinstance(layer, nn.modules.batchnorm._BatchNorm) or layer.track_running_stats


def _hint(layer: nn.Module) -> str:
    for kind, hint in HINTS.items():
        if isinstance(layer, kind):
            return hint
    return "no clipping bounds what a row then does: compute each row from itself alone"


def nobodys(x: Tensor, count: int) -> Tensor:
    """Random rows (count, *input) of the type, device and range of x, for a look at a model; they tell of no row."""
    return _scaled(torch.rand(count, *x.shape[1:], generator=torch.Generator().manual_seed(0)), x)


def _scaled(unit: Tensor, x: Tensor) -> Tensor:
    """Numbers in [0, 1] as what x may hold: themselves, or whole numbers between its ends."""
    if x.is_floating_point():
        return unit.to(x)
    low, high = x.aminmax()
    return (low + unit.to(x.device) * (high - low)).round().to(x)


def _draws(x: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of batches (count, *input) that are nobody's rows, in the range of x and of its type."""
    generator = torch.Generator().manual_seed(0)
    scaled = partial(_scaled, x=x)

    def noise() -> Tensor:
        return scaled(torch.rand(count, *x.shape[1:], generator=generator))

    def flat() -> Tensor:
        level = torch.rand(count, *[1] * (x.ndim - 1), generator=generator)
        return scaled(level.expand(count, *x.shape[1:]).contiguous())

    ends = [scaled(torch.full((count, *x.shape[1:]), end)) for end in (0.0, 1.0)]
    yield noise(), noise()
    yield flat(), flat()
    yield ends[0], ends[1]
    yield ends[1], noise()
    yield flat(), ends[0]


def _halves(count: int) -> Iterator[Tensor]:
    """Masks (count,) such that for any two places one mask holds the first and not the second: the bits of numbers."""
    numbers = torch.arange(count)
    for bit in range(max(1, (count - 1).bit_length())):
        mask = (numbers >> bit) % 2 == 1
        yield mask
        yield ~mask


def _rows_of(value: Any, count: int) -> Tensor | None:
    """A copy of what a layer was given or gave, if that is a tensor of one entry for each row."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value.detach().clone() if isinstance(value, Tensor) and value.ndim and len(value) == count else None


def _differ(one: Tensor, other: Tensor, by: Tensor) -> bool:
    """Whether numbers differ by more than `by`; NaN is NaN, and an infinity itself."""
    same = (one == other) | (one.isnan() & other.isnan()) | ((one - other).abs() <= by.to(one))
    return not bool(same.all())


def _state(model: nn.Module) -> dict[str, bytes]:
    """All that `state_dict` and buffers hold, by name, as bytes."""
    entries: dict[str, Any] = dict(model.named_buffers()) | dict(model.state_dict())
    return {
        name: value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        if isinstance(value, Tensor)
        else pickle.dumps(value)
        for name, value in entries.items()
    }
