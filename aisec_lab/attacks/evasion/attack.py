"""The public door of every evasion attack: what it is called with, and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import as_scores, declared_within, sum_to_one
from aisec_lab.core.validation import check_inputs, has_reject_option
from aisec_lab.models.checked import checked_model

EXACT = 1e-5  # by which a softmax, or a table of labels, may miss the sum of one
COARSE, SEVERAL = 1e-2, 4  # the same in half precision, where so many rows or more are no chance
HALVES = (torch.float16, torch.bfloat16)


class Attack(Protocol):
    """An evasion attack: a frozen dataclass of settings that is called."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        """Search for adversarial inputs. Call contract: docs/evasion-attacks.md.

        Args:
            model: classifier in evaluation mode, inputs (N, *input) to logits (N, K).
            x: clean inputs (N, *input) in [0, 1], float32 or float64.
            y: true classes (N,), int64; the target classes for the goal `Targeted`.
            generator: the only source of randomness.

        Returns:
            Adversarial inputs, shape, dtype and device of `x`, in [0, 1], without a graph.

        Raises:
            ValueError: a model, inputs or classes that the contract excludes.
        """
        ...


def is_regression(goal: object, loss: object) -> bool:
    """Whether goal and loss are for a regression; an attribute `real` that is true says so.

    Args:
        goal: a `Goal`.
        loss: a `Loss`.

    Returns:
        True for a regression, False for a classifier.

    Raises:
        ValueError: one of them is for a regression, the other for a classifier.
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
    """Check the arguments of an attack, and detach its inputs.

    Args:
        model: classifier.
        x: inputs (N, *input).
        y: classes (N,).
        generator: source of the attack's randomness.
        soft: whether `y` may be probabilities (N, K) instead.
        real: whether `y` must be true values (N,) of a regression instead.

    Returns:
        The inputs without a graph, so that the attack's result has none either.

    Raises:
        ValueError: a generator that is no `torch.Generator`, or arguments that `check_inputs` refuses.
    """
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator must be a torch.Generator, got {generator!r}: use torch.Generator().manual_seed(0)"
        )
    check_inputs(model, x, y, soft=soft, real=real)
    return x.detach()


@contextmanager
def scored_model(model: nn.Module) -> Iterator[nn.Module]:
    """A checked model for an attack on gradients or scores: its outputs are converted to scores by `ScoreReader`.

    Args:
        model: classifier.

    Yields:
        The same model as `checked_model` yields it. If it has declared that it publishes probabilities
        (`declared_within`), it outputs their logarithms.

    Raises:
        ValueError: on the first call, outputs that `ScoreReader` refuses.
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
    """Converts the outputs of one model to scores, for an attack on gradients or scores.

    The gradient of a softmax nearly vanishes where the model is confident, and a loss would apply a second softmax. So
    an attack on undeclared probabilities would be weak without a warning. The first output of the search shows whether
    they are probabilities: it has all rows, so no extra query is needed. Logits whose rows all sum to one up to
    rounding do not occur by chance. In half precision, where rounding is coarse, this needs at least four rows.

    Args:
        model: classifier; an attribute `rejects` of a part tells that its last column is a reject option.

    Raises:
        ValueError: on the first call, outputs that are probabilities or labels, and that the model has not declared.
    """

    def __init__(self, model: nn.Module) -> None:
        self.kind = declared_within(model)
        self.rejects = has_reject_option(model)
        self.open = self.kind is None

    def __call__(self, answer: Tensor) -> Tensor:
        """Convert an output.

        Args:
            answer: the model's output (N, K).

        Returns:
            Scores (N, K), to which a softmax may be applied.
        """
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
