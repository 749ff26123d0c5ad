"""Attribute inference: guess a sensitive column of a row from the model's outputs."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import check_not_probabilities
from aisec_lab.attacks.evasion.attack import check, check_answer
from aisec_lab.data import Dataset
from aisec_lab.models import frozen, logits_of

UNSEEN = 1e-12  # added to probabilities of what was never seen, so that the marginal decides between them


@dataclass(frozen=True, eq=False)
class SensitiveAttribute:
    """A sensitive attribute of a table: its columns and their possible values.

    Args:
        columns: indices of its W columns: one for a number, one for each category of a one-hot encoding.
        values: the V candidates (V, W), float32 in [0, 1]; V >= 2.
        names: of the candidates, V.

    Raises:
        ValueError: shapes that do not fit, or fewer than two candidates.
    """

    columns: tuple[int, ...]
    values: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.names), len(self.columns)) or len(self.names) < 2:
            raise ValueError(
                f"there must be two candidates at least, (V, {len(self.columns)}), each with a name: "
                f"got {tuple(self.values.shape)} and {len(self.names)} names"
            )

    @classmethod
    def of(cls, dataset: Dataset, field: str, levels: int = 2) -> "SensitiveAttribute":
        """Make the attribute of a field: the categories of columns named `field=category`, or the levels of a number.

        Args:
            dataset: a table whose columns have names.
            field: name of the field, before one-hot encoding.
            levels: a number with more values than this gets so many evenly spread quantiles as candidates; at least 2.

        Returns:
            The attribute, with candidates in the order of the columns or of their values.

        Raises:
            ValueError: no such field, or one that is the same in all rows.
        """
        words = [place for place, name in enumerate(dataset.features) if name.startswith(f"{field}=")]
        if words:
            return cls(tuple(words), torch.eye(len(words)), tuple(dataset.features[place] for place in words))
        if field not in dataset.features:
            fields = sorted({name.partition("=")[0] for name in dataset.features})
            raise ValueError(f"{dataset.name} has no field {field!r}: choose from {fields}")
        place = dataset.features.index(field)
        values = dataset.x[:, place].unique()
        if len(values) > levels:
            values = dataset.x[:, place].quantile((torch.arange(levels) + 0.5) / levels).unique()
        return cls((place,), values.unsqueeze(1), tuple(f"{field} {value:.3g}" for value in values.tolist()))

    def truth(self, x: Tensor) -> Tensor:
        """The ground truth for guesses: the candidate nearest to the values in the rows x (N, D), (N,), int64."""
        return torch.cdist(x[:, list(self.columns)], self.values.to(x)).argmin(1)

    def with_each_candidate(self, x: Tensor) -> Tensor:
        """Copies (V, N, D) of rows x (N, D), one with each candidate in the attribute's columns."""
        every = x.expand(len(self.values), *x.shape).clone()
        every[:, :, list(self.columns)] = self.values.to(x).unsqueeze(1)
        return every

    def without_attribute(self, x: Tensor) -> Tensor:
        """Rows x (N, D) without the attribute's columns, (N, D - W)."""
        return x[:, [place for place in range(x.shape[1]) if place not in self.columns]]


@dataclass(frozen=True)
class Fredrikson:
    """Guess the candidate with the largest prior times error rate (Fredrikson et al., 2014; Yeom et al., 2018).

    The score of a candidate v is prior(v) * P(the class that the model predicts for the row with v | the true class).
    Call contract: docs/inference-attacks.md.
    """

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, sensitive: SensitiveAttribute, *, prior: Tensor, confusion: Tensor
    ) -> Tensor:
        """Guess a sensitive attribute.

        Args:
            model: classifier of tables, in evaluation mode.
            x: rows (N, D) in [0, 1]; the values in the sensitive columns are not used.
            y: their true classes (N,), int64.
            sensitive: the attribute, with V candidates.
            prior: of the candidates (V,), as from a published statistic, or for each row (N, V), as from
                `Imputer.posterior`; with the latter the attack can be compared with imputation that knows as much.
            confusion: P(predicted class | true class) (K, K), rows by true class; `confusion_matrix` measures one.

        Returns:
            Guesses (N,), int64: indices of candidates.

        Raises:
            ValueError: shapes that do not fit, inputs outside [0, 1], classes outside 0..K-1, or a model in training
                mode.
        """
        logits = _answers(model, x, y, sensitive)  # (V, N, K)
        v, n, k = logits.shape
        if prior.shape not in ((v,), (n, v)) or confusion.shape != (k, k):
            raise ValueError(
                f"the prior must be ({v},) or ({n}, {v}) and the confusion ({k}, {k}), "
                f"got {tuple(prior.shape)} and {tuple(confusion.shape)}"
            )
        likelihood = confusion[y.expand(v, n), logits.argmax(2)].T + UNSEEN  # (N, V)
        return (prior * likelihood).argmax(1)


@dataclass(frozen=True)
class CSMIA:
    """Guess by the model's confidence with each candidate (Mehnaz et al., 2022, arXiv:2201.09370, section 4).

    If the model predicts the true class with one candidate only, that one is the guess. If with several, the one with
    the highest confidence. If with none, the one with the lowest confidence. Call contract: docs/inference-attacks.md.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, sensitive: SensitiveAttribute) -> Tensor:
        """Guess a sensitive attribute.

        Args:
            model: classifier of tables, in evaluation mode; it outputs logits.
            x: rows (N, D) in [0, 1]; the values in the sensitive columns are not used.
            y: their true classes (N,), int64.
            sensitive: the attribute.

        Returns:
            Guesses (N,), int64: indices of candidates.

        Raises:
            ValueError: inputs outside [0, 1], classes outside 0..K-1, a model in training mode, or one that outputs
                probabilities or labels.
        """
        logits = _answers(model, x, y, sensitive)
        check_not_probabilities(logits)
        confidence, answer = logits.softmax(2).max(2)  # (V, N)
        right = answer == y
        return torch.where(right, 1 + confidence, -confidence).argmax(0)


def confusion_matrix(model: nn.Module, dataset: Dataset) -> Tensor:
    """Measure how often a model predicts each class for rows of each true class.

    Args:
        model: classifier in evaluation mode.
        dataset: rows of K classes.

    Returns:
        P(predicted class | true class) (K, K), float32, rows by true class; 1 / K in the row of a class without rows.
    """
    k = len(dataset.classes)
    pairs = dataset.y * k + logits_of(model, dataset.x).argmax(1)
    counts = torch.bincount(pairs, minlength=k * k).view(k, k).float()
    rows = counts.sum(1, keepdim=True)
    return torch.where(rows > 0, counts / rows.clamp(min=1), 1 / k)


def _answers(model: nn.Module, x: Tensor, y: Tensor, sensitive: SensitiveAttribute) -> Tensor:
    """Logits (V, N, K) of each row with each candidate."""
    every = sensitive.with_each_candidate(x)
    check(model, every[0], y)
    with frozen(model):
        logits = logits_of(model, every.flatten(0, 1))
    check_answer(logits[: len(y)], y)
    return logits.unflatten(0, every.shape[:2])
