"""What a victim's answers are: one check of them all, and each kind as scores that a softmax may be taken of."""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aisec_lab.models.asked import check_logits
from aisec_lab.models.layers import logarithms, sloping_logarithms

Kind = Literal["logits", "probabilities", "labels"]
KINDS = ("logits", "probabilities", "labels")
ROUNDED = 0.05  # by which probabilities that were rounded may miss the sum of one


def read_answers(answers: object, x: Tensor, kind: Kind, classes: int | None = None) -> Tensor:
    """A victim's answers as a classifier of the lab would give them, whatever they came in.

    Args:
        answers: a tensor, an array or lists of numbers: (N, K); or (N,) or (N, 1), which are labels, or the
            probability of class 1.
        x: the N queries that were answered.
        kind: what the victim says that its answers are.
        classes: K, which labels (N,) do not tell by themselves; None where the answers do.

    Returns:
        Scores (N, K), float: logits as they are; the logarithms of probabilities, so that a softmax gives these back;
        for labels, a row of zeros with a one.

    Raises:
        ValueError: what `check_logits` refuses; one logit; probabilities outside [0, 1] or of another sum than one;
            labels that are no classes; another number of classes than K.
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


def declared(model: object) -> Kind | None:
    """What a model says that it publishes, by an attribute `publishes`, as oracles and adapters do; else None."""
    kind = getattr(model, "publishes", None)
    return kind if isinstance(kind, str) and kind in KINDS else None  # type: ignore[return-value]


def declared_within(model: nn.Module) -> Kind | None:
    """What a model has declared, or the outermost part of it that did: views and wrappers say nothing. Else None."""
    kinds = (declared(part) for part in model.modules())
    return next((kind for kind in kinds if kind), None)


def one_hot_labels(scores: Tensor) -> Tensor:
    """Scores (N, K) reduced to their winning class: a row of zeros with a one, in their type."""
    return F.one_hot(scores.argmax(1), scores.shape[1]).to(scores.dtype)


def check_not_probabilities(scores: Tensor) -> None:
    """Refuse, for whoever takes a softmax of them, scores (..., K) that are no logits.

    A few rows may look like that by chance, so that a single one has to sum to one exactly, and many may be rounded.

    Raises:
        ValueError: all scores are non-negative and each row sums to one: probabilities or labels.
    """
    rows = scores.flatten(0, -2)
    if sum_to_one(rows, 2e-6 if len(rows) == 1 else 1e-3 if len(rows) < 8 else ROUNDED):
        raise ValueError(
            "the answers are non-negative and each row sums to one: they are probabilities or labels and no logits, so "
            'that a softmax would distort them: say so, Oracle(model, publishes="probabilities") or "labels", or give '
            "the logarithms of probabilities"
        )


def sum_to_one(rows: Tensor, slack: float) -> bool:
    """Whether rows (N, K), one at least, are all non-negative and each sums to one, to within some slack."""
    return bool(len(rows) and (rows >= 0).all() and ((rows.double().sum(1) - 1).abs() <= slack).all())


def as_scores(answer: Tensor, kind: Kind | None) -> Tensor:
    """What a model answered (N, K) that has declared itself of this kind, so that a softmax may be taken of it.

    Of probabilities oracles and adapters hand on the logarithms, which are never all non-negative; a module that was
    given the attribute may answer with probabilities as they are.
    """
    return sloping_logarithms(answer) if kind == "probabilities" and sum_to_one(answer, ROUNDED) else answer


def as_probabilities(scores: Tensor, kind: Kind) -> Tensor:
    """The probabilities (N, K) that a victim published, of scores as `read_answers` makes them of this kind.

    A probability of 0 comes back as 0, and labels as they are.
    """
    if kind == "logits":
        return scores.softmax(1)
    if kind == "labels":
        return scores
    nothing = logarithms(torch.zeros((), dtype=scores.dtype))
    return torch.where(scores > nothing, scores.exp(), 0)


def _numbers(answers: object) -> object:
    """Lists and arrays as a tensor; anything else as it is."""
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
    """Answers (N,) as (N, K)."""
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
    """Probabilities (N, K) as their logarithms; half precision has no room for these, and becomes float32."""
    if not table.numel():
        return table
    low, high, off = table.min().item(), table.max().item(), (table.double().sum(1) - 1).abs().max().item()
    if low < 0 or high > 1 + 1e-6 or off > ROUNDED:
        raise ValueError(
            f"probabilities are at least 0 and each row sums to one, got numbers in [{low:.4g}, {high:.4g}] and a sum "
            f"that is {off:.2g} off: where these are logits, leave publishes out; else divide each row by its sum"
        )
    return logarithms(table.double()).to(torch.promote_types(table.dtype, torch.float32))
