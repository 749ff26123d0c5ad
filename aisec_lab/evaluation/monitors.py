"""Whom a monitor accuses: honest clients and attackers, at a threshold that was chosen on other clients."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from aisec_lab.data import Dataset
from aisec_lab.defenses.detection.rejection import threshold_at
from aisec_lab.defenses.monitors.watch import QueryMonitor, first_alarm
from aisec_lab.evaluation.table import rate
from aisec_lab.models import logits_of


@dataclass(frozen=True, eq=False)
class QueryStream:
    """What a client asked, in its order, and what it was told.

    Args:
        client: who.
        x: queries (N, *input).
        answers: published (N, K).
    """

    client: str
    x: Tensor
    answers: Tensor


class QueryRecorder:
    """A monitor that accuses nobody and writes down what is asked: `Oracle(model, monitors=[recorder])`."""

    def __init__(self) -> None:
        self._asked: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, client: str, x: Tensor, answers: Tensor) -> None:
        """Keep a copy of queries (N, *input) and answers (N, K)."""
        self._asked.setdefault(client, []).append((x.detach().cpu().clone(), answers.detach().cpu().clone()))

    def streams(self) -> list[QueryStream]:
        """One for each client, in the order in which they came first."""
        return [
            QueryStream(client, *(torch.cat(parts) for parts in zip(*asked, strict=True)))
            for client, asked in self._asked.items()
        ]


def honest_streams(
    model: nn.Module, dataset: Dataset, *, clients: int, queries: int, generator: torch.Generator
) -> list[QueryStream]:
    """Clients that each ask about rows of their own choice, at random and none twice.

    Clients choose independently, so that two may ask about the same row: with few rows they are alike, and a rate over
    them says less about clients elsewhere than its interval has it.

    Args:
        model: classifier whose answers are published.
        dataset: the rows that there are to ask about.
        clients: how many; their names are "honest 0" and so on.
        queries: of each.
        generator: chooses rows and their order.

    Raises:
        ValueError: more queries than rows.
    """
    if not 1 <= queries <= len(dataset):
        raise ValueError(
            f"an honest client asks each row at most once: {queries} queries of {len(dataset)} rows: ask for 1 to "
            f"{len(dataset)}"
        )
    answers = logits_of(model, dataset.x)
    chosen = [torch.randperm(len(dataset), generator=generator)[:queries] for _ in range(clients)]
    return [QueryStream(f"honest {number}", dataset.x[rows], answers[rows]) for number, rows in enumerate(chosen)]


def replay(monitor: QueryMonitor, streams: Iterable[QueryStream], batch_size: int = 1) -> None:
    """Let a monitor see streams, one after the other, so many rows a call.

    Raises:
        ValueError: a monitor that withholds: what a locked client would have asked is not in its stream.
    """
    if monitor.withhold:
        raise ValueError("a monitor that withholds does not see what follows: replay with withhold=False")
    for stream in streams:
        for x, answers in zip(stream.x.split(batch_size), stream.answers.split(batch_size), strict=True):
            monitor(stream.client, x, answers)


def alarm_rates(
    monitor: QueryMonitor,
    honest: Sequence[str],
    attackers: Sequence[str],
    fpr: float | None,
    *,
    generator: torch.Generator,
    **cell: Any,
) -> list[dict[str, Any]]:
    """The rows of the table for a monitor that has seen some clients.

    The threshold is chosen on one half of the honest clients, and the rate that it then has is measured on the other,
    so that the intervals hold, given that clients are independent.

    Args:
        monitor: with their scores in its `records`.
        honest, attackers: clients that it has seen; the latter of one attack.
        fpr: share of honest clients that may be accused, in (0, 1); None for the monitor's own threshold, for which
            nothing is chosen and all honest clients count.
        generator: halves the honest clients.
        cell: the other columns of the table.

    Returns:
        `detection_tpr` over the attackers and `detection_fpr` over honest clients, with `knob` "fpr" and `level` what
        was asked for, or `knob` "threshold" and `level` the monitor's own; and `queries_before_alarm`, the median over
        the attackers that were caught, where there are any.

    Raises:
        ValueError: a client that the monitor has not seen, no attacker, or too few honest clients for the rate.
    """
    unknown = [client for client in (*honest, *attackers) if client not in monitor.records]
    if unknown or not attackers or not honest:
        raise ValueError(
            f"there must be honest clients and attackers that the monitor has seen, got {len(honest)} and "
            f"{len(attackers)}, not seen: {unknown[:3]}: replay their streams first"
        )
    knob = {"knob": "threshold", "level": monitor.threshold} if fpr is None else {"knob": "fpr", "level": fpr}
    cell = knob | cell
    threshold, judged = monitor.threshold, list(honest)
    if fpr is not None:
        order = torch.randperm(len(honest), generator=generator).tolist()
        half = len(order) // 2
        judged = [honest[place] for place in order[half:]]
        peaks = [monitor.records[honest[place]][-1:] for place in order[:half]]
        threshold = threshold_at(
            torch.tensor([peak[0][1] if peak else -torch.inf for peak in peaks], dtype=torch.float64), fpr
        )
    alarms = {client: first_alarm(monitor.records[client], threshold) for client in (*judged, *attackers)}
    caught = [alarm for client in attackers if (alarm := alarms[client]) is not None]
    accused = sum(alarms[client] is not None for client in judged)
    rows = [
        rate("detection_tpr", len(caught), len(attackers), **cell),
        rate("detection_fpr", accused, len(judged), **cell),
    ]
    if caught:
        rows.append({"metric": "queries_before_alarm", "value": float(median(caught)), "n": len(caught)} | cell)
    return rows
