"""Detection rates of query monitors, on honest clients and attackers."""

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
    """The queries of a client, in their order, with the answers.

    Args:
        client: name of the client.
        x: queries (N, *input).
        answers: published answers (N, K).
    """

    client: str
    x: Tensor
    answers: Tensor


class QueryRecorder:
    """A monitor that records all queries and raises no alarm: `Oracle(model, monitors=[recorder])`."""

    def __init__(self) -> None:
        self._asked: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, client: str, x: Tensor, answers: Tensor) -> None:
        """Record a copy of a client's queries.

        Args:
            client: name of the client.
            x: queries (N, *input).
            answers: published answers (N, K).
        """
        self._asked.setdefault(client, []).append((x.detach().cpu().clone(), answers.detach().cpu().clone()))

    def streams(self) -> list[QueryStream]:
        """The recorded queries.

        Returns:
            One stream for each client, in the order of their first queries.
        """
        return [
            QueryStream(client, *(torch.cat(parts) for parts in zip(*asked, strict=True)))
            for client, asked in self._asked.items()
        ]


def honest_streams(
    model: nn.Module, dataset: Dataset, *, clients: int, queries: int, generator: torch.Generator
) -> list[QueryStream]:
    """Simulate honest clients: each queries random rows of a dataset, none twice.

    Clients choose independently, so two may query the same row. With few rows they are similar, and the interval of a
    rate over them is too narrow for clients in general.

    Args:
        model: classifier whose answers are published.
        dataset: the rows that clients choose from.
        clients: number of clients; their names are "honest 0" and so on.
        queries: queries of each client, at least 1.
        generator: draws rows and their order.

    Returns:
        One stream for each client.

    Raises:
        ValueError: more queries than rows, or none.
    """
    if not 1 <= queries <= len(dataset):
        raise ValueError(
            f"an honest client sends each row at most once: {queries} queries of {len(dataset)} rows: take 1 to "
            f"{len(dataset)}"
        )
    answers = logits_of(model, dataset.x)
    chosen = [torch.randperm(len(dataset), generator=generator)[:queries] for _ in range(clients)]
    return [QueryStream(f"honest {number}", dataset.x[rows], answers[rows]) for number, rows in enumerate(chosen)]


def replay(monitor: QueryMonitor, streams: Iterable[QueryStream], batch_size: int = 1) -> None:
    """Show recorded streams to a monitor, one after the other.

    Args:
        monitor: the monitor; its `records` and `alarms` are updated.
        streams: the streams.
        batch_size: queries in each call.

    Raises:
        ValueError: a monitor that withholds answers, since a client that is locked out would have acted differently.
    """
    if monitor.withhold:
        raise ValueError("a monitor that withholds does not see what follows: replay with withhold=False")
    for stream in streams:
        for x, answers in zip(stream.x.split(batch_size), stream.answers.split(batch_size), strict=True):
            monitor(stream.client, x, answers)


def alarm_threshold(monitor: QueryMonitor, honest: Sequence[str], fpr: float) -> float:
    """The threshold above which a new honest client's highest score is with probability at most `fpr`.

    Args:
        monitor: with the clients' scores in its `records`.
        honest: names of honest clients that were used for nothing else.
        fpr: false positive rate, in (0, 1).

    Returns:
        The threshold.

    Raises:
        ValueError: a rate outside (0, 1), or too few clients for it.
    """
    peaks = [monitor.records[client][-1:] for client in honest]
    return threshold_at(torch.tensor([peak[0][1] if peak else -torch.inf for peak in peaks], dtype=torch.float64), fpr)


def alarm_rates(
    monitor: QueryMonitor,
    honest: Sequence[str],
    attackers: Sequence[str],
    fpr: float | None,
    *,
    generator: torch.Generator,
    **cell: Any,
) -> list[dict[str, Any]]:
    """True and false positive rates of a monitor over clients that it has seen.

    The threshold is chosen on one half of the honest clients, and the false positive rate is measured on the other.
    So the intervals are valid if clients are independent.

    Args:
        monitor: with the clients' scores in its `records`.
        honest: names of honest clients.
        attackers: names of attackers, of one attack.
        fpr: false positive rate that the threshold is set for, in (0, 1). None keeps the monitor's own threshold; then
            all honest clients are evaluated.
        generator: splits the honest clients.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table: `detection_tpr` over the attackers and `detection_fpr` over honest clients, with `fpr` or the
        monitor's own threshold in the column `level`; and, if an attacker is detected, `queries_before_alarm`, the
        median over the detected attackers, without an interval.

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
    threshold, evaluated = monitor.threshold, list(honest)
    if fpr is not None:
        order = torch.randperm(len(honest), generator=generator).tolist()
        half = len(order) // 2
        evaluated = [honest[place] for place in order[half:]]
        threshold = alarm_threshold(monitor, [honest[place] for place in order[:half]], fpr)
    alarms = {client: first_alarm(monitor.records[client], threshold) for client in (*evaluated, *attackers)}
    detected = [alarm for client in attackers if (alarm := alarms[client]) is not None]
    alarmed = sum(alarms[client] is not None for client in evaluated)
    rows = [
        rate("detection_tpr", len(detected), len(attackers), **cell),
        rate("detection_fpr", alarmed, len(evaluated), **cell),
    ]
    if detected:
        rows.append({"metric": "queries_before_alarm", "value": float(median(detected)), "n": len(detected)} | cell)
    return rows
