"""Whether an owner still recognises a stolen model after a removal attack."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from aisec_lab.attacks import RemovalAttack
from aisec_lab.data import Dataset
from aisec_lab.evaluation.style import STYLE, WIDTH, add_caption
from aisec_lab.evaluation.table import rate
from aisec_lab.models import logits_of

RECOGNISED = 1e-6  # a model with a smaller p-value counts as recognised
DEEPEST = 12  # powers of ten that the colours distinguish
DARK = 0.55  # share of these from which the text of a cell is white
SMALLEST = 1e-300  # smaller p-values are drawn as this, since log(0) cannot be


class Verify(Protocol):
    """Verification of a claim."""

    def __call__(self, suspect: nn.Module, /) -> float:
        """The p-value of "this suspect has nothing to do with the claim", in [0, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class OwnedModel:
    """A model and its owner's claim.

    With a watermark it is `OwnedModel(marked.model, partial(mark.verify, marked=marked))`, with a fingerprint
    `OwnedModel(model, fingerprint.verify)`. See docs/ownership.md.

    Args:
        model: the model that is stolen, a classifier in evaluation mode.
        verify: maps a suspect to a p-value.
    """

    model: nn.Module
    verify: Verify


def removal_rows(
    owned: Mapping[str, OwnedModel],
    removals: Mapping[str, RemovalAttack],
    clean: Dataset,
    test: Dataset,
    *,
    seed: int,
    **cell: Any,
) -> list[dict[str, Any]]:
    """Test every claim after every removal attack, and measure the accuracy that the thief has left.

    Args:
        owned: claims by name, the column `defense`.
        removals: removal attacks by name, the column `attack`. "none", the model as it was stolen, is added.
        clean: the thief's own rows.
        test: rows on which the thief's model is evaluated.
        seed: seed of a new generator for each attack, so that no cell depends on another.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table, for each pair `p_value` without an interval, and `clean_accuracy` of the thief's model with
        its interval.

    Raises:
        ValueError: an attack called "none".
    """
    if "none" in removals:
        raise ValueError("'none' is the name of the model as it was stolen: give the removal another name")
    rows: list[dict[str, Any]] = []
    treated: dict[int, dict[str, nn.Module]] = {}  # several claims may be about one model
    for defense, claim in owned.items():
        if id(claim.model) not in treated:
            treated[id(claim.model)] = {"none": claim.model} | {
                name: removal(claim.model, clean, generator=torch.Generator().manual_seed(seed))
                for name, removal in removals.items()
            }
        for attack, suspect in treated[id(claim.model)].items():
            at = {"defense": defense, "attack": attack, "seed": seed} | cell
            right = int((logits_of(suspect, test.x).argmax(1) == test.y.cpu()).sum())
            rows.append({"metric": "p_value", "value": claim.verify(suspect)} | at)
            rows.append(rate("clean_accuracy", right, len(test), **at))
    return rows


def p_value_grid(rows: pd.DataFrame, attacks: Sequence[str], defenses: Sequence[str], caption: str) -> Figure:
    """Figure: the p-value of every claim (columns) after every removal attack (rows), and the accuracy that is left.

    Args:
        rows: columns `attack`, `defense`, `metric` ("p_value" or "clean_accuracy"), `value`; one row for each cell and
            metric.
        attacks: from top to bottom.
        defenses: from left to right.
        caption: text below the figure.

    Returns:
        The figure. Recognised models are bold; pairs that are not in `rows` have a dash.
    """
    cells = rows.set_index(["metric", "attack", "defense"]).value.astype(float)
    values, kept = (
        cells.loc[metric].unstack().reindex(index=list(attacks), columns=list(defenses))
        for metric in ("p_value", "clean_accuracy")
    )
    depth = -np.log10(values.clip(lower=SMALLEST))
    with plt.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.42 * len(attacks)))
        image = axes.imshow(np.ma.masked_invalid(-depth), cmap="Blues_r", vmin=-DEEPEST, vmax=0, aspect="auto")
        for i in range(len(attacks)):
            for j in range(len(defenses)):
                p, accuracy = values.iloc[i, j], kept.iloc[i, j]
                if np.isnan(p):
                    axes.text(j, i, "-", ha="center", va="center", color="#444444")
                    continue
                color = "white" if depth.iloc[i, j] > DARK * DEEPEST else "black"
                shown: dict[str, Any] = {"ha": "center", "va": "center", "color": color}
                weight = "bold" if p < RECOGNISED else "normal"
                axes.text(j, i - 0.12, _power(p), fontsize=7, fontweight=weight, **shown)
                axes.text(j, i + 0.25, f"{accuracy:.0%} right", fontsize=5.5, **shown)
        axes.set_xticks(range(len(defenses)), [name.replace("_", "\n") for name in defenses], fontsize=6.5)
        axes.set_yticks(range(len(attacks)), [name.replace("_", " ") for name in attacks], fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label="log10 of the p-value", extend="min", fraction=0.04, pad=0.02)
        return add_caption(figure, caption)


def _power(p: float) -> str:
    """A p-value as text: 0.34, or "< 1e-6", the power of ten above it."""
    return f"{p:.2g}" if p >= 0.001 else f"< 1e{math.floor(math.log10(max(p, SMALLEST))) + 1}"
