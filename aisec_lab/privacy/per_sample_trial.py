"""A trial of whether rows meet: what a model answers for some rows while others change, leave, or came before."""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.models import Objective
from aisec_lab.privacy.made_up import Batch, draws, exchanged, halves, taken
from aisec_lab.privacy.passes import cuda_of, refuse_changes, same_chance, state_of

FEW = 9  # rows of a draw that is cheap
LATER = "it keeps something from batch to batch, or draws chance of its own: take that out, or name it `generator`"


class CrossSampleError(Exception):
    """Rows meet: says how, and at which batches it was seen."""

    def __init__(self, how: str, rows: Batch = (), mixed: Batch = (), same: Tensor | None = None) -> None:
        super().__init__(how)
        self.rows, self.mixed, self.same = rows, mixed, same


@torch.no_grad()
def outputs(model: nn.Module, x: Tensor, *, generator: torch.Generator) -> Tensor:
    """What a model answers: its outputs (N, *)."""
    answers = model(x)
    if not isinstance(answers, Tensor) or answers.ndim < 1 or len(answers) != len(x):
        given = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
        raise ValueError(f"a model answers a batch with a tensor of one row for each row, got {given}: wrap it")
    return answers


@dataclass(frozen=True)
class RowLosses:
    """An objective, held to one loss for each row."""

    objective: Objective

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Losses (N,) of inputs (N, *input) and targets (N, *target); ValueError where it gives something else."""
        losses = self.objective(model, x, y, generator=generator)
        if not isinstance(losses, Tensor) or losses.shape != (len(x),) or not losses.is_floating_point():
            given = f"{losses.dtype} {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(
                f"an objective gives a loss for each row, ({len(x)},), got {given}: use reduction='none', and take "
                "the mean over what else a row has, as in .flatten(1).mean(1)"
            )
        return losses


class Trial:
    """Questions to fresh copies of a model, which share its weights and nothing else, with the same chance each.

    Args:
        model: in training mode.
        asked: what of it is looked at: of model, batch and generator, answers (N, *); `outputs`, or an objective.

    Raises:
        CrossSampleError: by each question, where the answers say that rows meet.
        ValueError: something of a copy's state has changed in a pass.
    """

    def __init__(self, model: nn.Module, asked: Callable[..., Tensor] = outputs) -> None:
        self.model, self.asked = model, asked
        self.weights = list(model.parameters())
        self.kept = state_of(model, self.weights)
        self.cuda = cuda_of(model)

    def __call__(self, like: Batch, batch_size: int, *, rounding: bool, many: int = 5) -> None:
        """All questions.

        Args:
            like: rows of the kind that the model takes.
            batch_size: rows that are up to twice so many places apart are tried.
            rounding: whether answers to batches of different sizes are compared, which are the same up to rounding.
            many: how many draws of few rows are tried.
        """
        for seed, (rows, others) in enumerate(islice(draws(like, FEW), many)):
            first = self.of_changes(rows, others, seed)
            if rounding:
                self.of_removals(rows, first, seed)
        rows, others = next(draws(like, 2 * batch_size))
        self.of_changes(rows, others, 0)
        self.of_the_past(rows, others)

    def of_changes(self, rows: Batch, others: Batch, seed: int) -> Tensor:
        """Change rows to `remaining_rows`, half of them at a time: for any two, one is changed once while the other is
        not.

        Returns:
            What is answered for the rows.
        """
        first, again = self._answers(rows, seed=seed), self._answers(rows, seed=seed)
        doubt = 10 * (again - first).nan_to_num().abs().max() if self.cuda else torch.tensor(0.0)  # atomic sums
        if differ(first, again, doubt.clamp(max=rounding_of(first))):
            raise CrossSampleError(f"it answers the same rows differently when it is asked again; {LATER}")
        for changed in halves(len(first)):
            mixed = exchanged(rows, others, changed)
            if differ(first[~changed], self._answers(mixed, seed=seed)[~changed], doubt):
                raise CrossSampleError("what it answers for a row changes when other rows do", rows, mixed, ~changed)
        return first

    def of_removals(self, rows: Batch, first: Tensor, seed: int) -> None:
        """Take rows out: the first, the last, every second, all but one. Where the model is random, without chance."""
        calm = differ(first, self._answers(rows, seed=seed + 1), torch.tensor(0.0))
        if calm:
            first = self._answers(rows, seed=seed, calm=True)
        for kept in (slice(1, None), slice(None, -1), slice(None, None, 2), slice(3, 4)):
            if differ(first[kept], self._answers(taken(rows, kept), seed=seed, calm=calm), rounding_of(first)):
                raise CrossSampleError("what it answers for a row changes when other rows leave")

    def of_the_past(self, rows: Batch, others: Batch) -> None:
        """Show it other batches before, and one that is smaller: afterwards it answers the same, in either mode."""
        for calm in (False, True):
            first = self._answers(others, rows, seed=0, calm=calm)
            for before in (rows, taken(others, slice(1, None))):
                if differ(first, self._answers(before, rows, seed=0, calm=calm), torch.tensor(0.0)):
                    raise CrossSampleError(f"what it answers for a row depends on the batches before; {LATER}")

    def place_of(self, found: CrossSampleError) -> tuple[str, nn.Module]:
        """The innermost layer whose outputs for rows that are the same differ where its inputs do not, and its name."""
        if found.same is None:
            return "", self.model
        same, runs = found.same, [self._passed(batch, len(found.same)) for batch in (found.rows, found.mixed)]
        exact = torch.tensor(0.0)
        for (name, layer, before, after), (_, _, given, then) in zip(*runs, strict=False):
            alike = before is None or given is None or not differ(before[same], given[same], exact)
            if alike and differ(after[same], then[same], exact):
                return name, layer
        return "", self.model

    def _passed(self, batch: Batch, rows: int) -> list[tuple[str, nn.Module, Tensor | None, Tensor]]:
        """What goes into each layer and comes out, in order."""
        model, asked = self._copied()
        seen: list[tuple[str, nn.Module, Tensor | None, Tensor]] = []
        with ExitStack() as hooks:
            for name, layer in model.named_modules():

                def look(layer: nn.Module, args: Any, output: Any, name: str = name) -> None:
                    given, found = _rows_of(args, rows), _rows_of(output, rows)
                    if found is not None:
                        seen.append((name, layer, given, found))

                hooks.callback(layer.register_forward_hook(look).remove)
            with same_chance(model, 0, self.cuda) as generator:
                asked(model, *batch, generator=generator)
        return seen

    def _copied(self) -> tuple[nn.Module, Callable[..., Tensor]]:
        copied: tuple[nn.Module, Callable[..., Tensor]]
        copied = copy.deepcopy((self.model, self.asked), {id(weight): weight for weight in self.weights})
        return copied

    def _answers(self, *batches: Batch, seed: int, calm: bool = False) -> Tensor:
        """A copy's answers (N, K) to the last of some batches, float; to that one in evaluation mode where `calm`."""
        model, asked = self._copied()
        for number, batch in enumerate(batches, 1):
            if calm and number == len(batches):
                model.eval()
            with same_chance(model, seed, self.cuda) as generator:
                answers = asked(model, *batch, generator=generator).detach()
        refuse_changes(self.kept, state_of(model, self.weights))
        answers = answers.reshape(len(answers), -1)
        return answers if answers.is_floating_point() else answers.float()


def differ(one: Tensor, other: Tensor, by: Tensor) -> bool:
    """Whether numbers differ by more than `by`; NaN is NaN, and an infinity itself."""
    same = (one == other) | (one.isnan() & other.isnan()) | ((one - other).abs() <= by.to(one))
    return not bool(same.all())


def rounding_of(answers: Tensor) -> Tensor:
    """By how much answers may differ that are the same up to rounding."""
    return torch.finfo(answers.dtype).eps ** 0.5 * answers.nan_to_num(posinf=0, neginf=0).abs().max()


def _rows_of(value: Any, count: int) -> Tensor | None:
    """A copy of what a layer was given or gave, if that is a tensor of one entry for each row."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value.detach().clone() if isinstance(value, Tensor) and value.ndim and len(value) == count else None
