"""Curves: accuracy against the budget of an attacker, with intervals."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption, add_legend, series_styles


def security_curves(rates: pd.DataFrame, unit: str, caption: str) -> Figure:
    """Figure: accuracy against perturbation budget, one line for each defense, with its interval as a band.

    Args:
        rates: columns `defense`, `level`, `value`, `low`, `high`, and optionally `worst`: true for the worst case over
            attacks, which is drawn as a star.
        unit: name of the norm, such as "Linf".
        caption: text below the figure.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
        for series, (defense, line) in zip(series_styles(), rates.groupby("defense", sort=False), strict=False):
            worst = line.worst.astype(bool) if "worst" in line else pd.Series(False, index=line.index)
            draw(axes, line[~worst], defense, series)
            stars = line[worst].astype({"level": float, "value": float})
            star = {"color": series["color"], "markersize": 11, "markeredgecolor": "white", "zorder": 3}
            axes.plot(stars.level, stars.value, "*", clip_on=False, in_layout=False, **star)  # there may be none
        axes.set(xlabel=f"perturbation budget eps ({unit}, inputs in [0, 1])", ylabel="accuracy", ylim=(0, 1.02))
        axes.set_xlim(0, None)
        return add_caption(add_legend(figure), caption)


def distance_curves(rates: pd.DataFrame, caption: str) -> Figure:
    """Figure: accuracy against the size of the smallest adversarial perturbation, a panel for each norm.

    Args:
        rates: columns `knob` (the norm), `level`, `value`, `low`, `high`.
        caption: text below the figure.

    Returns:
        The figure.
    """
    norms = list(rates.groupby("knob", sort=False))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(norms), figsize=(WIDTH, 2.2), sharey=True, squeeze=False)
        for axes, series, (norm, line) in zip(panels[0], series_styles(), norms, strict=False):
            draw(axes, line, str(norm), series)
            axes.set(xlabel="pixels changed (L0)" if norm == "L0" else f"size ({norm})", ylim=(0, 1.02))
            axes.set_xlim(0, None)
            axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=norm == "L0"))
        panels[0, 0].set_ylabel("accuracy")
        return add_caption(figure, caption)


def query_curves(rates: pd.DataFrame, caption: str) -> Figure:
    """Figure: accuracy against the number of queries for each input, one line for each attack.

    Args:
        rates: columns `attack`, `level` (queries, at least 1), `value`, `low`, `high`.
        caption: text below the figure.

    Returns:
        The figure.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
        for series, (attack, line) in zip(series_styles(), rates.groupby("attack", sort=False), strict=False):
            draw(axes, line, str(attack), series)
        axes.set(xlabel="questions about each input", ylabel="accuracy", ylim=(0, 1.02), xscale="log")
        axes.set_xticks(sorted(set(rates.level)), [f"{level:g}" for level in sorted(set(rates.level))])
        axes.minorticks_off()
        return add_caption(add_legend(figure), caption)


def word_curves(rates: pd.DataFrame, caption: str) -> Figure:
    """Figure: accuracy against the share of words that may change, a panel for each attack, a line for each defense.

    Args:
        rates: columns `attack`, `defense`, `level` (the share), `value`, `low`, `high`.
        caption: text below the figure.

    Returns:
        The figure.
    """
    attacks = list(rates.groupby("attack", sort=False))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            -(-len(attacks) // 2), 2, figsize=(WIDTH, 2.2 * -(-len(attacks) // 2)), sharey=True
        )
        for axes, (attack, lines) in zip(panels.flat, attacks, strict=False):
            for series, (defense, line) in zip(series_styles(), lines.groupby("defense", sort=False), strict=False):
                draw(axes, line, str(defense), series)
            axes.set(title=attack, xlabel="share of words that may change", ylim=(0, 1.02))
            axes.xaxis.set_major_formatter(PercentFormatter(1))
        for axes in panels.flat[len(attacks) :]:
            axes.remove()
        panels.flat[0].set_ylabel("accuracy")
        return add_caption(add_legend(figure), caption)


def bracket_curves(rates: pd.DataFrame, caption: str, caps: Mapping[str, float]) -> Figure:
    """Figure: certified accuracy and accuracy under attack, with the gap between them shaded; a panel for each norm.

    Args:
        rates: columns `defense`, `metric`, `attack` (for the metric `certified_accuracy`, the name of the certificate),
            `knob` (the norm), `level`, `value`, `low`, `high`.
        caption: text below the figure.
        caps: by norm, the largest radius that can be certified, if there is one.

    Returns:
        The figure.
    """
    norms = list(rates.sort_values("level").groupby("knob", sort=False))
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(1, len(norms), figsize=(WIDTH, 2.8), sharey=True, squeeze=False)
        styles = series_styles()
        for axes, (norm, panel) in zip(panels[0], norms, strict=True):
            for _, lines in panel.groupby("defense", sort=False):
                attacked = lines[lines.metric == "robust_accuracy"].groupby("level").first().reset_index()
                proved = lines[lines.metric == "certified_accuracy"]
                best = proved.astype({"level": float, "value": float}).groupby("level").value.max()
                axes.fill_between(
                    best.index, best, attacked.value.astype(float), color="#888888", alpha=0.15, linewidth=0
                )
                _bars(axes, attacked, "under attack", next(styles))
                for certificate, line in proved.groupby("attack", sort=False):
                    _bars(axes, line, f"proved by {certificate}", next(styles))
            if norm in caps:
                axes.axvline(caps[norm], color="#444444", linestyle=":", linewidth=1)
            axes.set(xlabel=f"perturbation budget eps ({norm})", ylim=(-0.02, 1.02))
            axes.set_xlim(0, None)
            axes.legend(fontsize=7, loc="lower left")
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        panels[0, 0].set_ylabel("accuracy")
        return add_caption(figure, caption)


def draw(axes: Axes, line: pd.DataFrame, name: str, series: dict[str, Any]) -> None:
    """Draw a line of rates against `level`, with its interval as a band."""
    line = line.astype({"level": float, "value": float, "low": float, "high": float}).sort_values("level")
    axes.plot(line.level, line.value, label=name, clip_on=False, **series)
    axes.fill_between(line.level, line.low, line.high, color=series["color"], alpha=0.15, linewidth=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _bars(axes: Axes, line: pd.DataFrame, name: str, series: dict[str, Any]) -> None:
    """Draw rates against `level`, with their intervals as bars."""
    line = line.astype({"level": float, "value": float, "low": float, "high": float}).sort_values("level")
    error = [line.value - line.low, line.high - line.value]
    axes.errorbar(line.level, line.value, yerr=error, elinewidth=0.8, label=name, **series)
