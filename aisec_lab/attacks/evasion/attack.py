"""The public door of every evasion attack: what it is called with, and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import as_scores, declared_within, sum_to_one
from aisec_lab.models import parts_with_mode
from aisec_lab.models.asked import check_class_count, check_logits, checked_model

SLACK = 1e-6  # rounding in float32 may leave the box by this much
EXACT = 1e-5  # by which a softmax, or a table of labels, may miss the sum of one
COARSE, SEVERAL = 1e-2, 4  # the same in half precision, where so many rows or more are no chance
HALVES = (torch.float16, torch.bfloat16)


class Attack(Protocol):
    """An evasion attack: a frozen dataclass of settings that is called."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Adversarial inputs, shape of `x`, for classes `y`; its only randomness comes from `generator`."""
        ...


def is_regression(goal: object, loss: object) -> bool:
    """Whether goal and loss are about numbers, as their `real` says, and not about classes.

    Raises:
        ValueError: one of them is, the other is not.
    """
    real, also = (getattr(part, "real", False) for part in (goal, loss))
    if real != also:
        names = f"the goal {type(goal).__name__} and the loss {type(loss).__name__}"
        raise ValueError(
            f"{names}: one is about numbers, the other about classes; "
            "with the goal RegressionTolerance go the losses AbsoluteError and SignedError"
        )
    return real


def prepare_inputs(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    *,
    soft: bool = False,
    real: bool = False,
) -> Tensor:
    """Refuse what would make an attack silently wrong, or end it in an error of torch's own.

    Args:
        model, x, y, soft, real: as for `check`.
        generator: source of the attack's randomness.

    Returns:
        The inputs, outside any graph, so that none is left on what the attack gives.

    Raises:
        ValueError: what is no generator, and what `check` refuses.
    """
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be a torch.Generator, got {generator!r}: use torch.Generator().manual_seed(0)"
        )
    check_inputs(model, x, y, soft=soft, real=real)
    return x.detach()


def check_inputs(model: nn.Module, x: Tensor, y: Tensor, *, soft: bool = False, real: bool = False) -> None:
    """Refuse a model, inputs or classes on which an attack would be silently wrong.

    Args:
        model: classifier.
        x: inputs (N, *input).
        y: classes (N,).
        soft: whether `y` may be probabilities (N, K) instead.
        real: whether `y` has to be numbers (N,) instead, the truth of a regression.

    Raises:
        ValueError: what is no module, one in training mode; inputs that are no
            floating point numbers in [0, 1]; classes of another type than int64, of another number than `x` has rows,
            or negative; numbers that are not finite.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"the model must be a torch.nn.Module in evaluation mode, got a {type(model).__name__}: call it in the "
            "forward of one"
        )
    for name, module in parts_with_mode(model):
        if module.training:
            where = f"its part {name!r} is" if name else "the model is"
            raise ValueError(f"{where} in training mode, so that answers depend on the batch: call model.eval()")
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        kinds = f"{type(x).__name__} and {type(y).__name__}"
        raise ValueError(f"inputs and classes must be torch tensors, got {kinds}: use torch.as_tensor")
    what = "pixels" if x.ndim == 4 else "inputs"
    if x.dtype not in (torch.float32, torch.float64):
        mend = (
            "use .float(), and LowPrecision for a search in low precision"
            if x.is_floating_point()
            else "divide bytes by 255"
        )
        raise ValueError(f"{what} must be float32 or float64 numbers in [0, 1], got {x.dtype}: {mend}")
    if x.numel():
        low, high = (end.item() for end in x.aminmax())
        if low != low:
            raise ValueError(f"{what} must lie in [0, 1], got NaN")
        if low < -SLACK or high > 1 + SLACK:
            raise ValueError(
                f"{what} must lie in [0, 1], got [{low:.4g}, {high:.4g}]: "
                "put the normalisation inside the model (aisec_lab.models.Normalised)"
            )
    if len(x) != len(y):
        raise ValueError(f"there must be one class for each row, got {len(x)} rows and {len(y)} classes")
    if real:
        if not y.is_floating_point() or y.ndim != 1 or not y.isfinite().all():
            raise ValueError(f"a regression's truth is finite floats of shape (N,), got {y.dtype} {tuple(y.shape)}")
        return
    if soft and y.is_floating_point() and y.ndim == 2:
        return
    if y.dtype != torch.int64 or y.ndim != 1:
        mend = "use y.argmax(1)" if y.ndim == 2 else "use y.long()"
        raise ValueError(f"classes must be int64 of shape (N,), got {y.dtype} of shape {tuple(y.shape)}: {mend}")
    if len(y) and y.min() < 0:
        raise ValueError(f"classes must not be negative, got {int(y.min())}")


@contextmanager
def scored_model(model: nn.Module) -> Iterator[nn.Module]:
    """A model that is `asked`, for an attack that needs more of its answers than the class: slopes or differences.

    Args:
        model: classifier.

    Yields:
        The same model. Where it has declared that it publishes probabilities (`declared_within`), it answers with their
        logarithms, which it may have taken itself.

    Raises:
        ValueError: on the first call, what `Reading` refuses.
    """
    reading = ScoreReader(model)

    def read(_: nn.Module, args: tuple[Any, ...], answer: Tensor) -> Tensor:
        return reading(answer)

    with checked_model(model):
        handle = model.register_forward_hook(read)
        try:
            yield model
        finally:
            handle.remove()


class ScoreReader:
    """How one model's answers are read by an attack that takes slopes or differences of them.

    Those of a softmax nearly vanish where the model is sure, and a loss would take a softmax of them once more: such an
    attack would find little, and say nothing. The first answer tells, which is about all rows, so that nothing is asked
    for this. Rows of logits that all sum to one to within rounding are no chance, however few they are; in half
    precision, whose rounding is coarse, several are none.

    Args:
        model: classifier.

    Raises:
        ValueError: on the first answer, one of probabilities or labels that the model has not declared, with a reject
            option beside them (an attribute `rejects`) or without.
    """

    def __init__(self, model: nn.Module) -> None:
        self.kind = declared_within(model)
        self.rejects = any(getattr(part, "rejects", False) is True for part in model.modules())
        self.open = self.kind is None

    def __call__(self, answer: Tensor) -> Tensor:
        """The answer (N, K) as scores of which a softmax may be taken."""
        if self.open and len(answer):
            self.open = False
            halved = any(torch.equal(answer, answer.to(kind).to(answer.dtype)) for kind in HALVES)
            slack = COARSE if halved and len(answer) >= SEVERAL else EXACT
            tables = [answer, answer[:, :-1]] if self.rejects else [answer]
            if any(table.shape[1] > 1 and sum_to_one(table, slack) for table in tables):
                raise ValueError(
                    "the answers are non-negative and each row sums to one: they are probabilities or labels and no "
                    "logits, on which this attack would be weak: give the module before the softmax, or "
                    "aisec_lab.models.LogProbabilities(model); where there are but labels, take HopSkipJump; if they "
                    'are logits all the same, set model.publishes = "logits"'
                )
        return as_scores(answer, self.kind)


def check_output(logits: Tensor, y: Tensor) -> None:
    """Refuse the answer (N, K) of a model that is not `asked`: what `check_logits` and `check_classes` refuse."""
    check_labels(logits, y)
    check_logits(logits, (logits,))


def check_labels(logits: Tensor, y: Tensor) -> None:
    """Refuse classes that are none of a model's, one logit for a class, and more than one for a number.

    Args:
        logits: the model's answer (N, K).
        y: classes (N,), probabilities (N, K), or the truth (N,) of a regression.

    Raises:
        ValueError: classes outside 0..K-1; K = 1, unless `y` are numbers.
    """
    if y.ndim == 1 and y.is_floating_point():
        if logits.shape != (len(y), 1):
            raise ValueError(f"a regression answers each row with one number, (N, 1), got {tuple(logits.shape)}")
        return
    check_class_count(logits)
    if y.ndim == 1 and len(y) and y.max() >= logits.shape[1]:
        raise ValueError(f"classes must lie in 0..{logits.shape[1] - 1}, the model's, got {int(y.max())}")
