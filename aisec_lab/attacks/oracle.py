"""Black-box access to a victim: it answers queries, counts them, and stops when the budget is spent."""

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
    declared_kind,
    one_hot_labels,
    read_answers,
    with_reject_option,
)
from aisec_lab.core.modes import in_training_mode
from aisec_lab.core.validation import has_reject_option

# Of client, queries (N, *input) and published scores (N, K): which queries it flags (N,), or None
Monitor = Callable[[str, Tensor, Tensor], Tensor | None]
MAX_WAIT = 60.0  # seconds between two attempts


class OutOfQueriesError(RuntimeError):
    """A call asked for more rows than the oracle's budget has left."""


def is_transient(error: BaseException) -> bool:
    """Whether another attempt may succeed: an error of the connection to the victim, but no lack of permission."""
    return isinstance(error, OSError) and not isinstance(error, PermissionError)


class Oracle(nn.Module):
    """A victim as a black box: a classifier without gradients, on which every attack that needs none runs.

    It is the only object of an attack that changes: it counts each row that it answers. A query that fails or is
    withheld is not counted. It is opaque: whoever needs a model's weights or activations refuses an oracle.

    Args:
        model: the victim, a module: a classifier, or one that outputs probabilities or labels and is declared so. For a
            plain function, a scikit-learn estimator or an HTTP endpoint there are adapters, which declare what they
            publish: `FunctionClassifier`, `SklearnClassifier`, `HTTPClassifier`.
        publishes: what the model outputs, by default what it declares, else "logits". "probabilities" are published as
            their logarithms, whose softmax gives them back. "labels" publishes the predicted class only, as a one-hot
            row, whatever the model outputs.
        labels_only: publish the predicted class only, whatever the model outputs.
        budget: rows that may be answered in all, at least 0; None for no limit.
        client: name of who queries, which the monitors are given.
        monitors: called in order with client, queries (N, *input) and scores (N, K) before these are returned; one that
            raises withholds them.
        rejects: answer a query that a monitor flags with a rejection, and go on. The scores have one more column, the
            reject option, as those of a `RejectingModel`: attack with the goal `EvadeDetector`.
        attempts: how often a call is tried that fails with an `OSError`, such as a lost connection or a timeout, at
            least 1; a `PermissionError` is not tried again.
        wait: seconds before the second attempt, at least 0; doubled before each further one, at most a minute.

    Attributes:
        queries: rows that were answered, rejected ones included.
        rejected: rows that were answered with a rejection.
        error: what the last call failed with; None if it was answered.

    Raises:
        ValueError: a negative budget, no attempt, a victim that is no module or declares something else than
            `publishes`, or one with a reject option of its own where `rejects` is set.
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
        rejects: bool = False,
        attempts: int = 1,
        wait: float = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"a victim is a torch module, got a {type(model).__name__}: wrap it in a FunctionClassifier, "
                "SklearnClassifier or HTTPClassifier"
            )
        if rejects and has_reject_option(model):
            raise ValueError("this victim has a reject option already: leave rejects out, or give the model within")
        said = declared_kind(model)
        if publishes not in (None, *KINDS) or (said and publishes not in (None, said, "labels")):
            says = said or ", ".join(KINDS)
            raise ValueError(f"this victim publishes {says}, got {publishes!r}: correct `publishes`")
        if budget is not None and budget < 0:
            raise ValueError(f"a budget is a number of rows >= 0, or None for no limit, got {budget}")
        if attempts < 1 or wait < 0:
            raise ValueError(f"attempts must be at least 1 and wait not negative, got {attempts} and {wait}")
        self.model, self.budget = model, budget
        self.publishes: Kind = "labels" if labels_only else publishes or said or "logits"
        self.client, self.monitors, self.rejects = client, tuple(monitors), rejects
        self.attempts, self.wait = attempts, wait
        rows = getattr(model, "rows", None)
        self.rows = rows if isinstance(rows, int) else None  # of a call, at most
        self.queries, self.rejected, self.classes = 0, 0, 0
        self.error: Exception | None = None
        self._said = said
        self._reads: Kind = "logits" if said else publishes or "logits"  # an adapter has read what it declares
        self._plain = bool(said) or self.publishes != "logits"  # rows may sum to one
        self.training = in_training_mode(model)

    @property
    def labels_only(self) -> bool:
        """Whether only the predicted class is published."""
        return self.publishes == "labels"

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Answer queries.

        Args:
            x: queries (N, *input), float32 in [0, 1].

        Returns:
            Published scores (N, K): logits, logarithms of probabilities, or one-hot labels; (N, K + 1) with `rejects`,
            where those of a rejected query say nothing but that.

        Raises:
            OutOfQueriesError: more rows than the budget has left; none of them is then answered or counted.
            ValueError: what `read_answers` refuses, rows that sum to one where logits were declared, or another number
                of classes than before.
            Exception: what the victim or a monitor raises.
        """
        if self.budget is not None and self.queries + len(x) > self.budget:
            raise OutOfQueriesError(
                f"{self.client} asks for {len(x)} rows, {self.budget - self.queries} of {self.budget} are left: "
                "lower the attack's queries, or raise the oracle's budget"
            )
        if self.rows is None or len(x) <= self.rows:
            return self._answered(x)
        return torch.cat([self._answered(part) for part in x.split(self.rows)])

    def _answered(self, x: Tensor) -> Tensor:
        """Answer one call of the victim; monitors see it, and it is counted."""
        try:
            answer = self._retried(x)
            flags = [monitor(self.client, x, answer) for monitor in self.monitors]
        except Exception as error:
            self.error = error
            raise
        self.queries, self.error = self.queries + len(x), None
        if not self.rejects:
            return answer
        flagged = torch.zeros(len(x), dtype=torch.bool, device=answer.device)
        for flag in flags:
            if flag is not None:
                flagged |= flag.to(answer.device)
        self.rejected += int(flagged.sum())
        return with_reject_option(answer, flagged, self.publishes)

    def _retried(self, x: Tensor) -> Tensor:
        """The victim's answer, after as many attempts as needed and allowed."""
        if self.attempts == 1:
            return self._asked(x)
        retrying = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential(multiplier=self.wait, max=MAX_WAIT),
            retry=retry_if_exception(is_transient),
            reraise=True,
        )
        return retrying(self._asked, x)

    def _asked(self, x: Tensor) -> Tensor:
        """One attempt: the victim's answer, checked and as published."""
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
