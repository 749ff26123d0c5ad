"""The victim as an attacker without its weights meets it: answers, counted, and no more than a budget of them."""

from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential
from torch import Tensor, nn

from aisec_lab.attacks.answers import (
    KINDS,
    Kind,
    as_scores,
    check_not_probabilities,
    declared,
    one_hot_labels,
    read_answers,
)
from aisec_lab.models.contexts import trains

Monitor = Callable[[str, Tensor, Tensor], None]  # client, queries (N, *input), published answers (N, K)
LONGEST = 60.0  # seconds between two attempts, at most


class OutOfQueriesError(RuntimeError):
    """More rows were asked than an oracle's budget has left."""


def count_queries(error: BaseException) -> bool:
    """Whether another attempt may succeed: what has to do with the way to the victim, and is no lack of rights."""
    return isinstance(error, OSError) and not isinstance(error, PermissionError)


class Oracle(nn.Module):
    """What a victim publishes, and to whom: a classifier without gradients, so that every attack that needs none runs.

    The one mutable object of an attack: it counts each row that it answers. A question that fails or is withheld is
    not counted. It is opaque: whoever looks inside a model, for its weights or activations, refuses an oracle.

    Args:
        model: the victim, a module: a classifier, or what answers with probabilities or labels and is declared so. A
            plain function, a scikit-learn estimator and an HTTP endpoint have adapters: `FunctionClassifier`,
            `SklearnClassifier`, `HTTPClassifier`, which have declared what they publish.
        publishes: what the model answers with. "logits" by default; "probabilities" are handed on as their logarithms,
            so that a softmax gives them back; of "labels", or whatever else there is, the winning class alone is
            handed on, as a row of zeros with a one.
        labels_only: hand on the winning class alone, whatever the model answers with.
        budget: how many rows it answers in all; None for any number.
        client: who asks; the monitors are told.
        monitors: called, in order, with client, queries and answers, before an answer is handed out; one that
            raises withholds it.
        attempts: how often a call is made that fails with an `OSError`, as lost connections and timeouts are.
        wait: seconds before the second attempt, doubled before each further one, a minute at most.

    Attributes:
        queries: rows that were answered.
        error: what the last call failed with; None where it was answered.

    Raises:
        ValueError: a negative budget, no attempt, a victim that is no module or has declared something else; on a
            call, what `read_answers` refuses of an answer, and rows that sum to one where logits were declared.
        OutOfQueriesError: on a call that asks for more rows than are left; none of them is then answered or counted.
    """

    opaque: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        *,
        publishes: Kind | None = None,
        labels_only: bool = False,
        budget: int | None = None,
        client: str = "attacker",
        monitors: Iterable[Monitor] = (),
        attempts: int = 1,
        wait: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"a victim is a torch module, got a {type(model).__name__}: wrap it in a FunctionClassifier, "
                "SklearnClassifier or HTTPClassifier"
            )
        said = declared(model)
        if publishes not in (None, *KINDS) or (said and publishes not in (None, said, "labels")):
            says = said or ", ".join(KINDS)
            raise ValueError(f"this victim publishes {says}, got {publishes!r}: correct `publishes`")
        if budget is not None and budget < 0:
            raise ValueError(f"a budget is a number of rows >= 0, or None for no limit, got {budget}")
        if attempts < 1 or wait < 0:
            raise ValueError(f"attempts must be at least 1 and wait not negative, got {attempts} and {wait}")
        self.model, self.budget = model, budget
        self.publishes: Kind = "labels" if labels_only else publishes or said or "logits"
        self.client, self.monitors = client, tuple(monitors)
        self.attempts, self.wait = attempts, wait
        rows = getattr(model, "rows", None)
        self.rows = rows if isinstance(rows, int) else None  # of a call, at most
        self.queries, self.classes = 0, 0
        self.error: Exception | None = None
        self._said = said
        self._reads: Kind = "logits" if said else publishes or "logits"  # an adapter has read what it declares
        self._plain = bool(said) or self.publishes != "logits"  # no fear that rows sum to one
        self.training = trains(model)

    @property
    def labels_only(self) -> bool:
        """Whether the winning class is all that it publishes."""
        return self.publishes == "labels"

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Published scores (N, K) of x (N, *input)."""
        if self.budget is not None and self.queries + len(x) > self.budget:
            raise OutOfQueriesError(
                f"{self.client} asks for {len(x)} rows, {self.budget - self.queries} of {self.budget} are left: "
                "lower the attack's queries, or raise the oracle's budget"
            )
        if self.rows is None or len(x) <= self.rows:
            return self._answered(x)
        return torch.cat([self._answered(part) for part in x.split(self.rows)])

    def _answered(self, x: Tensor) -> Tensor:
        """The answer to one call, seen by the monitors and counted."""
        try:
            answer = self._retried(x)
            for monitor in self.monitors:
                monitor(self.client, x, answer)
        except Exception as error:
            self.error = error
            raise
        self.queries, self.error = self.queries + len(x), None
        return answer

    def _retried(self, x: Tensor) -> Tensor:
        if self.attempts == 1:
            return self._asked(x)
        retrying = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential(multiplier=self.wait, max=LONGEST),
            retry=retry_if_exception(count_queries),
            reraise=True,
        )
        return retrying(self._asked, x)

    def _asked(self, x: Tensor) -> Tensor:
        answer = as_scores(read_answers(self.model(x), x, self._reads), self._said)
        if len(x):
            if not self._plain:
                check_not_probabilities(answer)
            if self.classes not in (0, answer.shape[1]):
                raise ValueError(
                    f"the victim answered with {self.classes} classes, and now with {answer.shape[1]}: "
                    "wrap it so that each answer has all of them"
                )
            self._plain, self.classes = True, answer.shape[1]
        return one_hot_labels(answer) if self.labels_only else answer
