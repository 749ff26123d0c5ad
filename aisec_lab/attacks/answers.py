"""Reading a victim's answers: logits, probabilities or labels, checked, as scores that a softmax may be applied to."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.core.validation import check_logits
from aisec_lab.models.layers import logarithms, sloping_logarithms

Kind = Literal["logits", "probabilities", "labels"]
KINDS = ("logits", "probabilities", "labels")
ROUNDED = 0.05  # how far the sum of rounded probabilities may be from one


def read_answers(answers: object, x: Tensor, kind: Kind, classes: int | None = None) -> Tensor:
    """Convert a victim's answers to scores as a classifier of the lab outputs them.

    Args:
        answers: a tensor, an array or lists of numbers, (N, K); or (N,) or (N, 1), which are labels or probabilities of
            class 1.
        x: the N queries that were answered.
        kind: "logits", "probabilities" or "labels".
        classes: K, needed for labels (N,); None where the answers have K columns.

    Returns:
        Scores (N, K), float: logits unchanged; the logarithms of probabilities, whose softmax gives these back; one-hot
        rows for labels.

    Raises:
        ValueError: answers that are no numbers or not one row for each query, NaN or plus infinity; a single logit;
            probabilities outside [0, 1] or that do not sum to one; labels outside 0..K-1; another number of classes
            than K.
    """
    table = _numbers(answers)
    if isinstance(table, Tensor) and table.shape in ((len(x),), (len(x), 1)):
        table = _from_one_column(table.reshape(len(x)), kind, classes)
    if kind == "labels" and isinstance(table, Tensor) and not table.is_floating_point():
        table = table.float()  # rows of zeros and ones
    check_logits(table, (x,))
    assert isinstance(table, Tensor)
    if classes is not None and table.shape[1] != classes:
        raise ValueError(f"the victim answers with {table.shape[1]} classes, not with {classes}: correct `classes`")
    if kind == "labels":
        return one_hot_labels(table)
    return _logarithms(table) if kind == "probabilities" else table


def declared_kind(model: object) -> Kind | None:
    """The kind of answers that a model declares by an attribute `publishes`, as oracles and adapters do; else None."""
    kind = getattr(model, "publishes", None)
    return kind if isinstance(kind, str) and kind in KINDS else None  # type: ignore[return-value]


def declared_within(model: nn.Module) -> Kind | None:
    """The kind of answers that a model declares, or the outermost of its parts that declares one; else None.

    Views and wrappers of a model declare nothing themselves.
    """
    kinds = (declared_kind(part) for part in model.modules())
    return next((kind for kind in kinds if kind), None)


def one_hot_labels(scores: Tensor) -> Tensor:
    """One-hot rows (N, K) of the largest scores (N, K), in their dtype."""
    return F.one_hot(scores.argmax(1), scores.shape[1]).to(scores.dtype)


def with_reject_option(scores: Tensor, rejected: Tensor, kind: Kind) -> Tensor:
    """Scores with a reject option as their last column.

    Args:
        scores: (N, K).
        rejected: which rows are rejected (N,), bool.
        kind: of the scores.

    Returns:
        (N, K + 1): a rejected row has a certain last column, and tells nothing about the classes; in any other row the
        last column is impossible.
    """
    impossible, certain = (0.0, 1.0) if kind == "labels" else (-torch.inf, 0.0)
    answer = F.pad(scores, (0, 1), value=impossible)
    answer[rejected] = impossible
    answer[rejected, -1] = certain
    return answer


def check_not_probabilities(scores: Tensor) -> None:
    """Refuse scores that look like probabilities or labels, before a softmax distorts them.

    A few rows of logits may sum to one by chance. So the fewer rows there are, the closer to one their sums have to be.

    Args:
        scores: (..., K), supposed to be logits.

    Raises:
        ValueError: all scores are non-negative and each row sums to one.
    """
    rows = scores.flatten(0, -2)
    if sum_to_one(rows, 2e-6 if len(rows) == 1 else 1e-3 if len(rows) < 8 else ROUNDED):
        raise ValueError(
            "the answers are non-negative and each row sums to one: they are probabilities or labels and no logits, so "
            'that a softmax would distort them: say so, Oracle(model, publishes="probabilities") or "labels", or give '
            "the logarithms of probabilities"
        )


def sum_to_one(rows: Tensor, slack: float) -> bool:
    """Whether rows (N, K) are non-negative and each sums to one, up to `slack`; False where N is 0."""
    return bool(len(rows) and (rows >= 0).all() and ((rows.double().sum(1) - 1).abs() <= slack).all())


def as_scores(answer: Tensor, kind: Kind | None) -> Tensor:
    """Convert a model's output to scores to which a softmax may be applied.

    Oracles and adapters that publish probabilities output their logarithms already, which are never all non-negative. A
    module that only declares its kind may output the probabilities themselves.

    Args:
        answer: the model's output (N, K).
        kind: what the model declares; None for nothing.

    Returns:
        Scores (N, K): the logarithms of probabilities, anything else unchanged.
    """
    return sloping_logarithms(answer) if kind == "probabilities" and sum_to_one(answer, ROUNDED) else answer


def as_probabilities(scores: Tensor, kind: Kind) -> Tensor:
    """Convert scores back to the probabilities that a victim published.

    Args:
        scores: (N, K), as `read_answers` returns them.
        kind: of the answers that they were made from.

    Returns:
        Probabilities (N, K): the softmax of logits, the published probabilities (0 stays 0), or one-hot labels.
    """
    if kind == "logits":
        return scores.softmax(1)
    if kind == "labels":
        return scores
    nothing = logarithms(torch.zeros((), dtype=scores.dtype))
    return torch.where(scores > nothing, scores.exp(), 0)


def _numbers(answers: object) -> object:
    """Lists and arrays as a tensor; anything else unchanged."""
    if isinstance(answers, Tensor) or not (isinstance(answers, list) or hasattr(answers, "__array__")):
        return answers
    try:
        table = np.asarray(answers)
    except ValueError as error:
        raise ValueError("the victim's answers are rows of different lengths: give K numbers for each row") from error
    if table.dtype.kind not in "fiub":
        raise ValueError(f"the victim's answers must be numbers, got {table.dtype}: give classes their numbers 0..K-1")
    return torch.as_tensor(table)


def _from_one_column(column: Tensor, kind: Kind, classes: int | None) -> Tensor:
    """Answers (N,), labels or probabilities of class 1, as (N, K)."""
    if kind == "logits":
        raise ValueError(
            "a classifier has at least two logits, got one: wrap a model of one logit in aisec_lab.models.TwoLogits; "
            'if it is the probability of class 1, say publishes="probabilities"'
        )
    if kind == "probabilities":
        return torch.stack([1 - column, column], 1)
    column = column.double()
    if classes is None:
        raise ValueError(
            f"labels of shape ({len(column)},) do not say how many classes there are: give `classes` to a "
            "FunctionClassifier or HTTPClassifier; if this is one logit, wrap the model in aisec_lab.models.TwoLogits"
        )
    if not ((column == column.round()) & (column >= 0) & (column < classes)).all():
        odd = next(value for value in column.tolist() if value not in range(classes))
        raise ValueError(f"labels must be classes 0..{classes - 1}, got {odd}: number the classes so")
    return F.one_hot(column.long(), classes).float()


def _logarithms(table: Tensor) -> Tensor:
    """The logarithms of probabilities (N, K), at least in float32, since half precision is too narrow for them."""
    if not table.numel():
        return table
    low, high, off = table.min().item(), table.max().item(), (table.double().sum(1) - 1).abs().max().item()
    if low < 0 or high > 1 + 1e-6 or off > ROUNDED:
        raise ValueError(
            f"probabilities are at least 0 and each row sums to one, got numbers in [{low:.4g}, {high:.4g}] and a sum "
            f"that is {off:.2g} off: where these are logits, leave publishes out; else divide each row by its sum"
        )
    return logarithms(table.double()).to(torch.promote_types(table.dtype, torch.float32))
