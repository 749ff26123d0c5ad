"""What an extraction attack is called with, and what it has got in the end."""

import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from aisec_lab.attacks.answers import as_probabilities, as_scores, check_not_probabilities, declared
from aisec_lab.attacks.evasion.attack import check
from aisec_lab.attacks.oracle import Oracle
from aisec_lab.data import Dataset
from aisec_lab.models.passes import logits_of

BATCH = 500  # rows that are asked at once


@dataclass(frozen=True, eq=False)
class ExtractionResult:
    """A copy of a victim, and what it cost.

    Args:
        model: the copy, a classifier in evaluation mode.
        queries: rows that the victim answered.
        error: what the victim failed with before all was asked, so that the copy is made of fewer answers; else None.
    """

    model: nn.Module
    queries: int
    error: Exception | None = None


class Extraction(Protocol):
    """An extraction attack: a frozen dataclass of settings that is called."""

    def __call__(self, oracle: Oracle, pool: Dataset, *, generator: torch.Generator) -> ExtractionResult:
        """A copy of the oracle's victim, from its answers on inputs that are in `pool` or made from them.

        Args:
            oracle: the victim, in evaluation mode.
            pool: inputs that the attacker owns; their classes `pool.y` are the attacker's, not the victim's.
            generator: the attack's only randomness.
        """
        ...


def published_probabilities(oracle: nn.Module, x: Tensor) -> Tensor:
    """The probabilities that a victim publishes, rounded, cut or perturbed as they may be.

    Args:
        oracle: the victim, which counts each row; or any classifier.
        x: queries (N, *input), float32 in [0, 1].

    Returns:
        Probabilities (N, K), on the CPU: those that it publishes; the softmax of its logits, in which a logit of -inf
        is a plain 0; or where it publishes labels only, rows of zeros with a one.

    Raises:
        ValueError: answers that are no distribution: NaN, +inf, or -inf for every class; probabilities that were not
            declared, of which a softmax would make others.
        RuntimeError: more rows than the oracle's budget has left.
    """
    return _probabilities(oracle, logits_of(oracle, x))


def published_until_error(oracle: Oracle, x: Tensor, known: Tensor | None = None) -> Tensor:
    """As `published_probabilities`, of the first rows of x (N, *input): those that are answered before the victim
    fails, or all.

    Args:
        oracle, x: as for `published_probabilities`.
        known: earlier answers (M, K), to which these are added; None before the first.

    Returns:
        Probabilities (M + n, K), n <= N. Where n is less, `oracle.error` says why.

    Raises:
        Exception: what the victim fails with, where nothing was answered yet.
    """
    told, at_once = [], min(BATCH, oracle.rows or BATCH)
    for batch in x.split(at_once):
        try:
            told.append(logits_of(oracle, batch, at_once))
        except Exception as error:
            if error is not oracle.error or (known is None and not told):
                raise
            break
    new = [_probabilities(oracle, torch.cat(told))] if told else []
    return torch.cat(new if known is None else [known, *new])


def warn_if_incomplete(oracle: Oracle, queries: int) -> Exception | None:
    """What an attack's last call failed with, of which it warns; None where it was answered."""
    if oracle.error is not None:
        warnings.warn(
            f"the victim stopped answering after {queries} queries, {type(oracle.error).__name__}: {oracle.error}: the "
            "copy is made of these answers alone",
            RuntimeWarning,
            stacklevel=3,
        )
    return oracle.error


def _probabilities(oracle: nn.Module, answers: Tensor) -> Tensor:
    kind = declared(oracle) or "logits"
    if kind == "logits" and not isinstance(oracle, Oracle):  # which has looked itself
        check_not_probabilities(answers)
    probabilities = as_probabilities(as_scores(answers, kind), kind)
    if probabilities.isnan().any():
        row = int(probabilities.isnan().any(1).nonzero()[0])
        raise ValueError(
            f"answer {row} is no distribution, its logits are {answers[row].tolist()[:4]}...: give a defense that "
            "publishes zeros a floor under its logarithm, and check the victim's weights"
        )
    return probabilities


def check_extraction(oracle: Oracle, pool: Dataset, budget: int, *, at_least: int = 1) -> None:
    """Refuse, before the first query, an attack that cannot be carried out.

    Args:
        oracle: the victim.
        pool: the attacker's inputs.
        budget: rows that the attack will ask.
        at_least: rows that it cannot do without.

    Raises:
        ValueError: a victim in training mode, or a budget that is below `at_least` or above what the oracle has left.
    """
    check(oracle, pool.x[:0], pool.y[:0])
    if budget < at_least:
        raise ValueError(f"this attack needs a budget of {at_least} queries at least, got {budget}: raise it")
    if oracle.budget is not None and budget > oracle.budget - oracle.queries:
        raise ValueError(
            f"{budget} queries, but the oracle answers only {oracle.budget - oracle.queries} more: lower the attack's "
            "budget or raise the oracle's"
        )
