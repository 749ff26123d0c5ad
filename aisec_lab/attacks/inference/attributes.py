"""Attribute inference: a column of a row that the attacker does not see, from the model's answers."""

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
    """The attribute that is looked for: its columns, and what may stand in them.

    Args:
        columns: places, W of them: one for a number, one for each word of a word.
        values: the candidates (V, W), float32 in [0, 1], at least two.
        names: of the candidates.

    Raises:
        ValueError: shapes that do not fit.
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
        """A field of a table: the words of columns `field=word`, or the levels of a number.

        Args:
            dataset: a table whose columns have names.
            field: what a person would fill in.
            levels: of a number with more values than that, so many quantiles, evenly spread, are the candidates.

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
        """The candidate that is nearest to what stands in each row, (N,), int64: what a guess is held against."""
        return torch.cdist(x[:, list(self.columns)], self.values.to(x)).argmin(1)

    def filled(self, x: Tensor) -> Tensor:
        """Each row with each candidate, (V, N, D)."""
        every = x.expand(len(self.values), *x.shape).clone()
        every[:, :, list(self.columns)] = self.values.to(x).unsqueeze(1)
        return every

    def hidden(self, x: Tensor) -> Tensor:
        """The rows without the attribute, (N, D - W)."""
        return x[:, [place for place in range(x.shape[1]) if place not in self.columns]]


@dataclass(frozen=True)
class Fredrikson:
    """The candidate with the largest prior times error rate (Fredrikson et al., 2014; Yeom et al., 2018, section 4).

    The score of a candidate v is prior(v) * P(the model says what it says of the row with v | the row's class).

    Args of the call:
        model: classifier of tables, in evaluation mode.
        x: rows (N, D); what stands in the sensitive columns is not looked at.
        y: their true classes (N,).
        sensitive: the attribute.
        prior: of the candidates (V,), as a statistic says; or of each row (N, V), as `Imputer.posterior` does. By that
            the attack can be held against imputation that knows as much.
        confusion: P(answer | class) (K, K), as published with a model's accuracy; `confusion_matrix` measures one.

    Returns:
        Guesses (N,), int64, numbers of candidates.

    Raises:
        ValueError: shapes that do not fit; what `PGD` refuses.
    """

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, sensitive: SensitiveAttribute, *, prior: Tensor, confusion: Tensor
    ) -> Tensor:
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
    """The candidate with which the model is right, or most sure, or least wrong (Mehnaz et al., 2022, CSMIA).

    arXiv:2201.09370, section 4: with one candidate that makes the model right, that one; with several, the one with
    the highest confidence; with none, the one with which the model is least confident of its wrong answer.

    Args of the call, returns, raises: as for `Fredrikson`, without prior and confusion; a model that answers with
    probabilities or labels is refused too.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, sensitive: SensitiveAttribute) -> Tensor:
        logits = _answers(model, x, y, sensitive)
        check_not_probabilities(logits)
        confidence, answer = logits.softmax(2).max(2)  # (V, N)
        right = answer == y
        return torch.where(right, 1 + confidence, -confidence).argmax(0)


def confusion_matrix(model: nn.Module, dataset: Dataset) -> Tensor:
    """P(the model's answer | class) (K, K) on a dataset; of a class without rows, all answers are as likely."""
    k = len(dataset.classes)
    pairs = dataset.y * k + logits_of(model, dataset.x).argmax(1)
    counts = torch.bincount(pairs, minlength=k * k).view(k, k).float()
    rows = counts.sum(1, keepdim=True)
    return torch.where(rows > 0, counts / rows.clamp(min=1), 1 / k)


def _answers(model: nn.Module, x: Tensor, y: Tensor, sensitive: SensitiveAttribute) -> Tensor:
    """Logits (V, N, K) of each row with each candidate."""
    every = sensitive.filled(x)
    check(model, every[0], y)
    with frozen(model):
        logits = logits_of(model, every.flatten(0, 1))
    check_answer(logits[: len(y)], y)
    return logits.unflatten(0, every.shape[:2])
