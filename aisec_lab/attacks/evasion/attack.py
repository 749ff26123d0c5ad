"""The public door of every evasion attack: what it is called with, and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import as_scores, declared_within, sum_to_one
from aisec_lab.core.validation import check_inputs
from aisec_lab.models.checked import checked_model

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
