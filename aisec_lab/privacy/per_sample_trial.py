"""A test of whether a model mixes the rows of a batch: what it computes for some rows while others change."""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.privacy.dummy_rows import Batch, dummy_batches, replace_rows, select_rows, separating_masks
from aisec_lab.privacy.per_sample_outputs import outputs
from aisec_lab.privacy.seeded_pass import cuda_devices, refuse_changed_state, seeded_pass, state_bytes

SMALL_BATCH = 9  # rows of a batch with which many passes are cheap
STATE_HINT = (
    "it keeps something from batch to batch, or has a random generator of its own: take that out, or name it "
    "`generator`"
)


class CrossSampleError(Exception):
    """Rows are mixed.

    Args:
        reason: how that was seen.
        rows, replaced: the two batches that showed it, if there were two of one size.
        unchanged: mask (N,) of the rows that are the same in both.
    """

    def __init__(self, reason: str, rows: Batch = (), replaced: Batch = (), unchanged: Tensor | None = None) -> None:
        super().__init__(reason)
        self.rows, self.replaced, self.unchanged = rows, replaced, unchanged


class CrossSampleTest:
    """Passes through fresh copies of a model, which share its weights and nothing else, each with the same seed.

    Args:
        model: in training mode.
        function: what is tested: a function of model, batch and generator that returns (N, *); `outputs`, or an
            objective.

    Raises:
        CrossSampleError: in each test, a result shows that rows are mixed.
        ValueError: a pass has changed the state of a copy.
    """

    def __init__(self, model: nn.Module, function: Callable[..., Tensor] = outputs) -> None:
        self.model, self.function = model, function
        self.weights = list(model.parameters())
        self.state = state_bytes(model, self.weights)
        self.cuda = cuda_devices(model)

    def __call__(self, like: Batch, batch_size: int, *, rounding: bool, small_batches: int = 5) -> None:
        """Run all tests.

        Args:
            like: rows of the kind that the model takes.
            batch_size: of the training; pairs of rows in a batch of twice this size are tested.
            rounding: whether to compare batches of different sizes, whose results are equal up to rounding.
            small_batches: number of small batches, at most 5.
        """
        for seed, (rows, others) in enumerate(islice(dummy_batches(like, SMALL_BATCH), small_batches)):
            expected = self.replaced_rows(rows, others, seed)
            if rounding:
                self.removed_rows(rows, expected, seed)
        rows, others = next(dummy_batches(like, 2 * batch_size))
        self.replaced_rows(rows, others, 0)
        self.earlier_batches(rows, others)

    def replaced_rows(self, rows: Batch, others: Batch, seed: int) -> Tensor:
        """Replace some rows by others; the results of the rest must be the same to the bit.

        Every ordered pair of rows is covered: one of the two is replaced while the other stays.

        Returns:
            The results of `rows`, (N, K).
        """
        expected, again = self._run(rows, seed=seed), self._run(rows, seed=seed)
        atomics = 10 * (again - expected).nan_to_num().abs().max() if self.cuda else torch.tensor(0.0)  # CUDA's sums
        if differ(expected, again, atomics.clamp(max=rounding_of(expected))):
            raise CrossSampleError(f"the same rows have other results in a second pass; {STATE_HINT}")
        for mask in separating_masks(len(expected)):
            replaced = replace_rows(rows, others, mask)
            if differ(expected[~mask], self._run(replaced, seed=seed)[~mask], atomics):
                raise CrossSampleError("a row's result changes when other rows do", rows, replaced, ~mask)
        return expected

    def removed_rows(self, rows: Batch, expected: Tensor, seed: int) -> None:
        """Remove the first row, the last, every second, all but one; the rest must be the same up to rounding.

        A model that is random in training mode is tested in evaluation mode.
        """
        is_random = differ(expected, self._run(rows, seed=seed + 1), torch.tensor(0.0))
        if is_random:
            expected = self._run(rows, seed=seed, evaluate=True)
        for kept in (slice(1, None), slice(None, -1), slice(None, None, 2), slice(3, 4)):
            result = self._run(select_rows(rows, kept), seed=seed, evaluate=is_random)
            if differ(expected[kept], result, rounding_of(expected)):
                raise CrossSampleError("a row's result changes when other rows are removed")

    def earlier_batches(self, rows: Batch, others: Batch) -> None:
        """Run other batches first, one of them smaller; the results afterwards must be the same, in both modes."""
        for evaluate in (False, True):
            expected = self._run(others, rows, seed=0, evaluate=evaluate)
            for before in (rows, select_rows(others, slice(1, None))):
                if differ(expected, self._run(before, rows, seed=0, evaluate=evaluate), torch.tensor(0.0)):
                    raise CrossSampleError(f"a row's result depends on the batches before; {STATE_HINT}")

    def locate(self, error: CrossSampleError) -> tuple[str, nn.Module]:
        """The name and module of the innermost layer that mixes rows; "" and the model if none is found.

        It is the first whose outputs for unchanged rows differ while its inputs for these rows do not.
        """
        if error.unchanged is None:
            return "", self.model
        kept, exact = error.unchanged, torch.tensor(0.0)
        runs = [self._trace(batch, len(kept)) for batch in (error.rows, error.replaced)]
        for (name, layer, input_1, output_1), (_, _, input_2, output_2) in zip(*runs, strict=False):
            same_input = input_1 is None or input_2 is None or not differ(input_1[kept], input_2[kept], exact)
            if same_input and differ(output_1[kept], output_2[kept], exact):
                return name, layer
        return "", self.model

    def _trace(self, batch: Batch, rows: int) -> list[tuple[str, nn.Module, Tensor | None, Tensor]]:
        """Name, module, input and output of each layer that a pass calls, in order."""
        model, function = self._copy()
        calls: list[tuple[str, nn.Module, Tensor | None, Tensor]] = []
        with ExitStack() as hooks:
            for name, layer in model.named_modules():

                def record(layer: nn.Module, args: Any, output: Any, name: str = name) -> None:
                    input, result = _per_row(args, rows), _per_row(output, rows)
                    if result is not None:
                        calls.append((name, layer, input, result))

                hooks.callback(layer.register_forward_hook(record).remove)
            with seeded_pass(model, 0, self.cuda) as generator:
                function(model, *batch, generator=generator)
        return calls

    def _copy(self) -> tuple[nn.Module, Callable[..., Tensor]]:
        copied: tuple[nn.Module, Callable[..., Tensor]]
        copied = copy.deepcopy((self.model, self.function), {id(weight): weight for weight in self.weights})
        return copied

    def _run(self, *batches: Batch, seed: int, evaluate: bool = False) -> Tensor:
        """A copy's results (N, K) for the last batch, after the others; `evaluate`: that one in evaluation mode."""
        model, function = self._copy()
        for number, batch in enumerate(batches, 1):
            if evaluate and number == len(batches):
                model.eval()
            with seeded_pass(model, seed, self.cuda) as generator:
                result = function(model, *batch, generator=generator).detach()
        refuse_changed_state(self.state, state_bytes(model, self.weights))
        result = result.reshape(len(result), -1)
        return result if result.is_floating_point() else result.float()


def differ(one: Tensor, other: Tensor, tolerance: Tensor) -> bool:
    """Whether tensors differ by more than an absolute tolerance; NaN equals NaN, and infinity itself."""
    same = (one == other) | (one.isnan() & other.isnan()) | ((one - other).abs() <= tolerance.to(one))
    return not bool(same.all())


def rounding_of(result: Tensor) -> Tensor:
    """The tolerance up to which results are the same but for rounding."""
    return torch.finfo(result.dtype).eps ** 0.5 * result.nan_to_num(posinf=0, neginf=0).abs().max()


def _per_row(value: Any, count: int) -> Tensor | None:
    """A copy of a layer's first input or output, if that is a tensor with one entry per row."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value.detach().clone() if isinstance(value, Tensor) and value.ndim and len(value) == count else None
