"""Checked inference: a frozen model whose outputs are validated and which gets copies of its inputs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.models.contexts import frozen, trains

SCRIPT = "The following operation failed in the TorchScript interpreter."  # how torch begins to report it


@contextmanager
def asked(model: nn.Module) -> Iterator[nn.Module]:
    """Freeze a model, validate each of its outputs, and give it copies of its inputs.

    A model that works in place then changes a copy. A model with NaN logits at some point raises an error there;
    otherwise the row would count as robust.

    Args:
        model: classifier.

    Yields:
        The same model; a call raises ValueError for outputs that `check_logits` refuses.

    Raises:
        ValueError: a TorchScript module by itself, which takes no hooks; on a call, another number of rows than a
            program of `torch.export` in the model takes, and what a TorchScript part in it cannot take.
    """
    if isinstance(model, torch.jit.RecursiveScriptModule):  # type: ignore[attr-defined]
        raise ValueError("no hook that looks at answers fits a TorchScript module: use nn.Sequential(model).eval()")
    with ExitStack() as hooks:
        hooks.enter_context(frozen(model))
        hooks.callback(model.register_forward_pre_hook(_handed_copies, prepend=True).remove)
        hooks.callback(model.register_forward_hook(lambda _, args, answer: check_logits(answer, args)).remove)
        for part in model.modules():
            if (taken := rows_taken(part)) is not None:
                check = partial(_check_rows, taken=taken)
                hooks.callback(part.register_forward_pre_hook(check, prepend=True).remove)
        try:
            yield model
        except RuntimeError as error:
            refuse_script_error(error)
            raise


class Checked(nn.Module):
    """Wrap a classifier that is part of another model, and validate its outputs.

    Args:
        model: classifier; it keeps its mode.

    Raises:
        ValueError: in a call, what `check_logits` refuses, or a single logit.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = trains(model)  # the parts of the model keep their modes

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of inputs (N, *input); the model gets a copy of them."""
        logits = self.model(x.clone())
        check_logits(logits, (x,))
        refuse_one_logit(logits)
        return logits


def refuse_one_logit(logits: Tensor) -> None:
    """Refuse logits (N, 1) with a ValueError: with one class, nothing is classified."""
    if logits.ndim == 2 and logits.shape[1] < 2:
        raise ValueError(
            "a classifier has at least two logits, got one: for a binary model wrap it in aisec_lab.models.TwoLogits"
        )


def rows_taken(part: nn.Module) -> tuple[int, int] | None:
    """How many rows a program of `torch.export` takes a call, as its graph was made: the fewest and the most.

    Args:
        part: any module.

    Returns:
        Both; None where `part` is no such program, or takes any number.
    """
    graph = vars(part).get("_graph", vars(part).get("graph"))  # of a program, or of one in its former modules
    inputs = [node for node in graph.nodes if node.op == "placeholder"] if isinstance(graph, torch.fx.Graph) else []
    example = inputs[0].meta.get("val") if inputs else None
    if not isinstance(example, Tensor) or not example.ndim:
        return None
    rows = example.shape[0]
    if isinstance(rows, int):
        return rows, rows
    most = rows.node.shape_env.bound_sympy(rows.node.expr).upper
    return (1, int(most)) if most.is_Integer else None


def _check_rows(_: nn.Module, args: tuple[Any, ...], taken: tuple[int, int]) -> None:
    """Refuse, ValueError, another number of rows than a program takes."""
    least, most = taken
    if args and isinstance(args[0], Tensor) and args[0].ndim and not least <= len(args[0]) <= most:
        number, rows = "only" if least == most else "no more than", f"{most} row{'s' * (most != 1)}"
        raise ValueError(
            f"the model takes {number} {rows} a call, as it was exported, and is asked about {len(args[0])}: export it "
            'with a dynamic batch dimension, torch.export.export(..., dynamic_shapes=({0: torch.export.Dim("rows")},))'
        )


def refuse_script_error(error: Exception) -> None:
    """Say in one line, ValueError, what a TorchScript part of a model could not do; any other error is none of its."""
    if str(error).startswith(SCRIPT):
        said = str(error).strip().splitlines()[-1].removeprefix("RuntimeError: ")
        raise ValueError(
            f"a TorchScript part of the model cannot take what it is asked about ({said}): a trace keeps as numbers "
            "what it saw of its example, such as how many rows it had; trace the model with len(x) or -1 in its place"
        ) from error


def _handed_copies(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in args)


def check_logits(answer: object, args: tuple[Any, ...]) -> None:
    """Refuse what is no output of a classifier or a regression.

    Args:
        answer: the model's output.
        args: arguments of the call; the first are the N inputs.

    Raises:
        ValueError: anything but one tensor (N, K) of floating point numbers; NaN, or plus infinity.
    """
    check_shape(answer, len(args[0]) if args else None)
    assert isinstance(answer, Tensor)
    if (answer.isnan() | answer.isposinf()).any():
        raise ValueError(
            "the model's logits are NaN or infinite at a point that it was asked about, so that nothing can be judged "
            "by them: check its weights and its last layers"
        )


def check_shape(answer: object, rows: int | None) -> None:
    """Refuse anything but one floating point tensor (N, K).

    Args:
        answer: the model's output.
        rows: N; None for any number.

    Raises:
        ValueError: another type, shape or dtype.
    """
    wrap = "wrap it so that it answers with logits (N, K)"
    if not isinstance(answer, Tensor):
        raise ValueError(f"a model must answer with one tensor of logits (N, K), got a {type(answer).__name__}: {wrap}")
    rows = len(answer) if rows is None else rows
    if answer.ndim != 2 or len(answer) != rows or not answer.is_floating_point():
        given = f"{answer.dtype} of shape {tuple(answer.shape)}"
        raise ValueError(f"a model must answer {rows} rows with floats of shape ({rows}, K), got {given}: {wrap}")
