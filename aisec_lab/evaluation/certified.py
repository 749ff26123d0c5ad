"""Certified accuracy, and the bracket: no attack may break a certified row."""

from collections.abc import Callable, Iterable

import pandas as pd
import torch
from torch import Tensor, nn

from aisec_lab.attacks import Ball
from aisec_lab.core.binomial import tail
from aisec_lab.data import Dataset
from aisec_lab.defenses.certification.smoothing_certificate import Certificate
from aisec_lab.models import device_of

BATCH = 100  # rows whose bounds are computed at a time
CHANCE = 0.001  # probability that the bracket fails for correct certificates, by chance alone


def certified_by_bounds(
    margin: Callable[[nn.Module, Tensor, Tensor, Ball], Tensor],
    model: nn.Module,
    dataset: Dataset,
    ball: Ball,
    levels: Iterable[float],
) -> pd.DataFrame:
    """Which rows a lower bound on the margin certifies, at each perturbation budget.

    Args:
        margin: `ibp_margin` or `crown_margin`.
        model: a sequential network in evaluation mode.
        dataset: rows and their true classes.
        ball: the threat model; its radius is set to each level in turn.
        levels: radii eps, in the units of the ball.

    Returns:
        One record for each level and row: `knob` (name of the norm), `level`, `row`, `label`, `certified`.
    """
    device = device_of(model, dataset.x)
    records = []
    for level in levels:
        leads = [
            margin(model, x.to(device), y.to(device), ball.with_eps(level)).cpu()
            for x, y in zip(dataset.x.split(BATCH), dataset.y.split(BATCH), strict=True)
        ]
        records.append(_records(ball.name, level, dataset.y, torch.cat(leads) > 0))
    return pd.concat(records, ignore_index=True)


def certified_by_smoothing(certificate: Certificate, y: Tensor, levels: Iterable[float]) -> pd.DataFrame:
    """Which rows the certificate of a smoothed classifier certifies, at each L2 radius.

    Args:
        certificate: of N rows.
        y: their true classes (N,).
        levels: L2 radii.

    Returns:
        One record for each level and row: `knob` ("L2"), `level`, `row`, `label`, `certified`.
    """
    y = y.cpu()
    return pd.concat(
        [
            _records("L2", level, y, certificate.holds(y.to(certificate.classes.device), level).cpu())
            for level in levels
        ],
        ignore_index=True,
    )


def bracket(certified: pd.DataFrame, survivors: pd.DataFrame, *, alpha: float = 0.0) -> pd.DataFrame:
    """Certified accuracy and robust accuracy under attack on the same rows: a lower and an upper bound.

    Args:
        certified: records of `certified_by_bounds` or `certified_by_smoothing`.
        survivors: columns `knob`, `level`, `row`, `survives` for the same classifier and norm, as `worst_case` returns
            them. For a smoothed classifier, which is evaluated by `predict`, also `abstains`: a row on which it
            abstains is not robust, but contradicts no certificate.
        alpha: probability that a row is certified and misclassified under attack by chance alone, at any level. It is 0
            for bounds; for smoothing, the certificate's alpha plus that of `predict` for each level.

    Returns:
        For each knob and level: `certified_accuracy`, `robust_accuracy`, `crossings` (rows that are certified and
        misclassified under attack) and `n`.

    Raises:
        ValueError: the two have different rows or levels, or alpha is outside [0, 1].
        AssertionError: more rows cross than alpha explains (a single one, if alpha is 0); the message names them. For
            correct certificates this happens with a probability of at most `CHANCE` in each norm.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha, how often a certificate may be wrong, must lie in [0, 1], got {alpha}")
    keys = ["knob", "level", "row"]
    attacked = survivors[[*keys, "survives"]].assign(abstains=survivors.get("abstains", False))
    both = certified.merge(attacked, on=keys, how="outer", indicator="side")
    if (both.side != "both").any():
        odd = both[both.side != "both"].iloc[0]
        raise ValueError(
            f"the bracket compares the same rows at the same levels; {odd.knob} {odd.level:g}, row {odd.row} is in the "
            f"{'certificates' if odd.side == 'left_only' else 'attacks'} alone: evaluate both on the same sample"
        )
    certain, survives, abstains = (both[name].astype(bool) for name in ("certified", "survives", "abstains"))
    both = both.assign(certified=certain, survives=survives, crossing=certain & ~survives & ~abstains)
    for knob, rows in both.groupby("knob"):
        crossed = rows[rows.crossing]
        held = rows[rows.certified].row.nunique()
        # alpha is of each row, not of each certificate: where hardly any row is robust, most certificates are mistakes
        if tail(crossed.row.nunique(), rows.row.nunique(), alpha) < CHANCE:
            named = ", ".join(f"row {row} at {level:g}" for row, level in zip(crossed.row, crossed.level, strict=True))
            raise AssertionError(
                f"{crossed.row.nunique()} of {held} rows are certified in {knob} and yet misclassified: {named}; "
                "certificate or attack is wrong, or they are not of the same model"
            )
    return (
        both.groupby(["knob", "level"])
        .agg(
            certified_accuracy=("certified", "mean"),
            robust_accuracy=("survives", "mean"),
            crossings=("crossing", "sum"),
            n=("row", "size"),
        )
        .reset_index()
    )


def _records(knob: str, level: float, y: Tensor, certified: Tensor) -> pd.DataFrame:
    """The records of one level."""
    return pd.DataFrame(
        {
            "knob": knob,
            "level": float(level),
            "row": range(len(y)),
            "label": y.numpy(),
            "certified": certified.numpy(),
        }
    )
