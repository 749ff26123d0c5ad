"""Query-based attacks on a service that a monitor watches: what they reach, and when they are noticed."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import torch
from torch import nn

from aisec_lab.attacks import MinimumNormResult, Oracle
from aisec_lab.data import Dataset
from aisec_lab.defenses.monitors.watch import QueryMonitor
from aisec_lab.evaluation.monitors import QueryStream
from aisec_lab.evaluation.predictions import predict
from aisec_lab.evaluation.robustness import BallAttack
from aisec_lab.evaluation.table import rate

SLACK = 1e-5  # by which rounding may leave the ball, a share of its radius


def attack_watched(
    attack: BallAttack,
    model: nn.Module,
    dataset: Dataset,
    make: Callable[[], QueryMonitor | None],
    /,
    *,
    accounts: int,
    generator: torch.Generator,
    **cell: Any,
) -> list[dict[str, Any]]:
    """Attack a service that rejects the queries which its monitor flags.

    The rows are split over accounts. Each attacks its rows in one batch, on a service with a monitor of its own.

    Args:
        attack: with a ball, and a goal for which a rejected query is no success, such as `EvadeDetector`.
        model: the victim, without a reject option.
        dataset: rows that the model classifies correctly, a multiple of `accounts`.
        make: makes the monitor of a service; None for a service without one.
        accounts: number of accounts, at least 1.
        generator: the only source of the attack's randomness.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table: `asr`, the share of rows with an adversarial input inside the ball that the service answered;
        `rejected_share` of the queries, without an interval; `detection_tpr`, the share of accounts with an alarm; and,
        if there is one, `queries_before_alarm`, the median over accounts with an alarm, from the first to the last.

    Raises:
        ValueError: rows that the model misclassifies, or that do not divide into the accounts.
    """
    if not len(dataset) or len(dataset) % accounts or (predict(model, dataset.x) != dataset.y).any():
        raise ValueError(
            f"an attack takes correctly classified rows, a multiple of its {accounts} accounts, got {len(dataset)}: "
            "drop the others"
        )
    successes, rejected, queries, alarms = 0, 0, 0, []
    for number, rows in enumerate(torch.arange(len(dataset)).chunk(accounts)):
        client, monitor, own = f"account {number}", make(), dataset.subset(rows)
        oracle = Oracle(model, client=client, monitors=[monitor] if monitor else [], rejects=True)
        result = attack(oracle, own.x, own.y, generator=generator)
        x_adv = result.x_adv if isinstance(result, MinimumNormResult) else result
        inside = attack.ball.norm(x_adv - own.x) <= attack.ball.eps * (1 + SLACK)
        successes += int((inside & (predict(model, x_adv) != own.y)).sum())
        rejected, queries = rejected + oracle.rejected, queries + oracle.queries
        if monitor is not None and client in monitor.alarms:
            alarms.append(monitor.alarms[client])
    cell = {"queries": queries / len(dataset)} | cell
    found = [
        rate("asr", successes, len(dataset), **cell),
        {"metric": "rejected_share", "value": rejected / queries, "n": queries} | cell,
        rate("detection_tpr", len(alarms), accounts, **cell),
    ]
    return found + _before_alarm(alarms, cell)


def accounts_watched(
    stream: QueryStream, make: Callable[[], QueryMonitor], /, *, accounts: int, linked: bool, **cell: Any
) -> list[dict[str, Any]]:
    """Show the queries of one attacker, sent from several accounts in turn, to a monitor.

    Args:
        stream: the queries, with their answers; at least one for each account.
        make: makes the monitor.
        accounts: number of accounts, at least 1.
        linked: whether the service knows that the accounts belong together, and takes them for one client.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table: `detection_tpr`, the share of clients that raise an alarm, and `queries_before_alarm` of the
        attacker, over all accounts, until the first alarm, if there is one.

    Raises:
        ValueError: more accounts than queries.
    """
    if not 1 <= accounts <= len(stream.x):
        raise ValueError(f"each account sends at least one of {len(stream.x)} queries, got {accounts} accounts")
    monitor = make()
    first: list[int] = []
    for number, (x, answer) in enumerate(zip(stream.x.split(1), stream.answers.split(1), strict=True)):
        if monitor("all" if linked else f"account {number % accounts}", x, answer).any() and not first:
            first.append(number)
    clients = 1 if linked else accounts
    found = [rate("detection_tpr", len(monitor.alarms), clients, **cell)]
    return found + _before_alarm(first, cell)


def honest_alarms(monitor: QueryMonitor, honest: Sequence[str], /, **cell: Any) -> list[dict[str, Any]]:
    """The share of honest clients with an alarm, at the monitor's own threshold.

    Args:
        monitor: that has seen the clients.
        honest: their names, none of which helped to choose the threshold.
        cell: other columns of the table.

    Returns:
        One row of the table, `detection_fpr`.
    """
    return [rate("detection_fpr", sum(client in monitor.alarms for client in honest), len(honest), **cell)]


def _before_alarm(alarms: Iterable[int], cell: dict[str, Any]) -> list[dict[str, Any]]:
    """The row `queries_before_alarm`: median, first and last; no row without an alarm."""
    alarms = sorted(alarms)
    if not alarms:
        return []
    ends = {"low": float(alarms[0]), "high": float(alarms[-1])}
    return [{"metric": "queries_before_alarm", "value": float(median(alarms)), "n": len(alarms)} | ends | cell]
