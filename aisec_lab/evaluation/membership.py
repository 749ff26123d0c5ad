"""Measures of membership inference at low false positive rates, and their ROC curve."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.stats import binom
from torch import Tensor

from aisec_lab.core.binomial import lower_bound, upper_bound
from aisec_lab.evaluation.backdoors import roc
from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles

RESAMPLES = 1000
POINTS_A_DECADE = 50  # points of a curve on a logarithmic axis, for each power of ten


class TruePositiveRate(NamedTuple):
    """A true positive rate with its 95 % interval.

    Args:
        value: the rate, in [0, 1].
        low: lower end of its interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


def tpr_at_fpr(
    scores: Tensor, members: Tensor, fpr: float, *, generator: torch.Generator, resamples: int = RESAMPLES
) -> TruePositiveRate:
    """The true positive rate at a false positive rate of at most `fpr`, with one threshold for all scores.

    The interval is the hull of two intervals:

    - One is exact for independent scores, however few. It bounds the threshold by order statistics of the non-members,
      and the rate at either end by Clopper & Pearson.
    - The other is a percentile bootstrap over models and records, each resampled independently with replacement (the
      pigeonhole bootstrap; Owen, 2007, Ann. Appl. Stat. 1, 386), with a new threshold in each resample. It allows for
      dependent scores of one model or of one record, and is valid for many models and records.

    Both take the shadow models of the attack as given. With one model they say nothing about other models.

    The number of models matters if their mean scores differ. In a simulation, the means had a standard deviation of 0.6
    times that of one model's scores, and the interval covered the true rate in 99 of 100 cases with two or more models.
    With a deviation of twice the scores' it was too short: for 2 to 64 models of 120 records it covered the true rate
    in 80 to 91 of 100 cases, for more records in fewer, and the true rate was then lower. Normalise the scores of each
    model in such a case.

    Args:
        scores: of the records of K models (K, N), or of one model (N,); larger means member.
        members: which records are members, (K, N) or (N,), bool.
        fpr: false positive rate, in (0, 1).
        generator: source of the resamples.
        resamples: number of resamples, at least 1.

    Returns:
        The rate and its 95 % interval.

    Raises:
        ValueError: scores of NaN or another shape than `members`, no member, fewer than 1 / fpr non-members, or no
            resample.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, better {RESAMPLES}, got {resamples}")
    scores, members = torch.atleast_2d(scores), torch.atleast_2d(members)
    if scores.shape != members.shape or scores.isnan().any() or not members.any():
        raise ValueError(
            f"scores and members must have one shape, with no NaN and at least one member: got {tuple(scores.shape)}, "
            f"{tuple(members.shape)}, {int(scores.isnan().sum())} NaN, {int(members.sum())} members"
        )
    outside = int((~members).sum())
    if not 0 < fpr < 1 or outside * fpr < 1:
        raise ValueError(
            f"a false positive rate of {fpr:g} of {outside} non-members is less than one of them: take more models or "
            "records, or a larger rate"
        )
    models, records = scores.shape
    order = scores.flatten().argsort(descending=True, stable=True).numpy()
    ordered = scores.flatten().numpy()[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # a threshold lies between distinct scores
    positive = members.flatten().numpy()[order]

    def rate(model_weights: np.ndarray, record_weights: np.ndarray) -> float:
        weights = (model_weights[:, None] * record_weights).ravel()[order]
        true, false = np.cumsum(weights * positive), np.cumsum(weights * ~positive)
        allowed = np.searchsorted(false[ends], fpr * false[-1], side="right")
        return float(true[ends[allowed - 1]] / true[-1]) if allowed and true[-1] else 0.0

    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    value = rate(np.ones(models), np.ones(records))
    drawn = [
        rate(
            rng.multinomial(models, np.full(models, 1 / models)).astype(float),
            rng.multinomial(records, np.full(records, 1 / records)).astype(float),
        )
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    least, most = _of_independent(scores[members].numpy(), scores[~members].numpy(), fpr)
    return TruePositiveRate(value, min(float(low), value, least), max(float(high), value, most))


def _of_independent(inside: np.ndarray, outside: np.ndarray, fpr: float, alpha: float = 0.05) -> tuple[float, float]:
    """Interval of the rate at the threshold that a share `fpr` of all non-members exceed, for independent scores.

    The number of sampled non-members above that threshold is binomial; this bounds the threshold, at half of `alpha`.
    Given these bounds, the number of members above them is binomial too; this bounds the rate, at the other half.
    """
    ordered = np.concatenate([[np.inf], np.sort(outside)[::-1], [-np.inf]])
    few, many = (int(binom.ppf(share, len(outside), fpr)) for share in (alpha / 4, 1 - alpha / 4))
    least, most = (int((inside > ordered[place]).sum()) for place in (few, many + 1))
    return (
        float(lower_bound(least, len(inside), alpha / 4)),
        float(upper_bound(most, len(inside), alpha / 4)),
    )


def roc_points(scores: Tensor, members: Tensor) -> pd.DataFrame:
    """The ROC curve of an attack, thinned for a logarithmic axis.

    Args:
        scores: (K, N) or (N,); larger means member. All scores form one curve.
        members: which records are members, of the same shape, bool.

    Returns:
        Columns `fpr` and `tpr`, about fifty points for each power of ten of `fpr`.

    Raises:
        ValueError: scores of NaN, no member, or no non-member.
    """
    curve = roc(scores.flatten(), members.flatten()).astype(float)
    curve = curve.groupby("fpr", as_index=False).tpr.max()  # the best of the thresholds with the same false positives
    least = curve.fpr[curve.fpr > 0].min()
    step = np.floor(POINTS_A_DECADE * np.log10(curve.fpr.clip(lower=least / 2)))
    return curve.groupby(step).tail(1).reset_index(drop=True)


def log_roc_curves(curves: Mapping[str, pd.DataFrame], caption: str, fprs: Sequence[float] = (0.001, 0.01)) -> Figure:
    """Figure: ROC curves of membership attacks, both axes logarithmic.

    Args:
        curves: by name, columns `fpr` and `tpr`, as `roc_points` returns them.
        caption: text below the figure.
        fprs: false positive rates that vertical lines mark.

    Returns:
        The figure.
    """
    least = min(float(curve.fpr[curve.fpr > 0].min()) for curve in curves.values())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.6))
        for style, (name, curve) in zip(series_styles(), curves.items(), strict=False):
            shown = {"color": style["color"], "linestyle": style["linestyle"], "marker": "none"}
            axes.step(curve.fpr, curve.tpr, where="post", label=name, **shown)
        axes.plot([least, 1], [least, 1], color="#888888", linewidth=0.8, marker="none", linestyle="-")
        axes.annotate("guessing", (0.12, 0.12), (4, -9), textcoords="offset points", fontsize=7, color="#666666")
        for fpr in fprs:
            axes.axvline(fpr, color="#888888", linewidth=0.8, linestyle=":", marker="none")
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(least, 1.1), ylim=(least, 1.1))
        for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
            scale("log")
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        return add_caption(add_legend(figure), caption)
