"""Run evasion attacks on a dataset, and measure robust accuracy, row by row and in the worst case."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from aisec_lab.attacks import Attack, Ball, InBatches, MinimumNormAttack, MinimumNormResult, Targeted
from aisec_lab.data import Dataset
from aisec_lab.evaluation.predictions import REJECTED, predicted_classes
from aisec_lab.evaluation.table import rate
from aisec_lab.models import PassCounter, device_of, seeded

BATCH = 250  # rows attacked at a time; a constant, since the last bits of an outcome may depend on it


class BallAttack(Attack, Protocol):
    """An evasion attack with a ball."""

    @property
    def ball(self) -> Ball:
        """The threat model: a norm and a radius."""
        ...


def run_attack(attack: Attack, model: nn.Module, dataset: Dataset, *, seed: int) -> tuple[Tensor, PassCounter]:
    """Attack every row of a dataset.

    Args:
        attack: an evasion attack.
        model: classifier in evaluation mode.
        dataset: N rows and their true classes.
        seed: seed of the generator. Each batch gets a new one; noise is keyed by row, so batches do not repeat it.

    Returns:
        Adversarial inputs (N, *input) on the CPU, and the number of passes through the model.

    Raises:
        ValueError: an attack with the goal `Targeted`, which would take the true classes for its targets, or a
            minimum-norm attack.
    """
    x_adv, counted = _in_batches(attack, model, dataset, seed)
    if isinstance(x_adv, MinimumNormResult):
        raise ValueError(
            f"{type(attack).__name__} looks for the smallest perturbation, and none of a given size: use "
            "`run_minimum_norm` and `curve_from_distances`, or FixedEpsilon(ball, attack)"
        )
    return x_adv.cpu(), counted


def run_minimum_norm(
    attack: MinimumNormAttack, model: nn.Module, dataset: Dataset, *, seed: int
) -> tuple[MinimumNormResult, PassCounter]:
    """Search the smallest adversarial perturbation of every row of a dataset.

    Args:
        attack: a minimum-norm attack. Radius 0 of its ball gives the whole security curve.
        model: classifier in evaluation mode.
        dataset: N rows and their true classes.
        seed: seed of the generator, as in `run_attack`.

    Returns:
        Adversarial inputs and distances, on the CPU, and the number of passes through the model.

    Raises:
        ValueError: an attack with the goal `Targeted`, or one that is no minimum-norm attack.
    """
    found, counted = _in_batches(attack, model, dataset, seed)
    if not isinstance(found, MinimumNormResult):
        raise ValueError(
            f"{type(attack).__name__} looks for a perturbation of a given size, not for the smallest: use `run_attack`"
        )
    return MinimumNormResult(found.x_adv.cpu(), found.distance.cpu()), counted


def curve_from_distances(distance: Tensor, levels: Iterable[float], **cell: Any) -> list[dict[str, Any]]:
    """The security curve from one run of a minimum-norm attack: a row is robust at eps if its distance is larger.

    Args:
        distance: of each row (N,), at least 0; 0 if the clean row is misclassified, `inf` if nothing was found.
        levels: radii eps, in the units of the distances.
        cell: other columns of the table (docs/evaluation.md).

    Returns:
        Rows of the table: `robust_accuracy` at each level, with its interval.

    Raises:
        ValueError: distances that are NaN or negative.
    """
    if not (distance >= 0).all():
        raise ValueError(f"distances must be at least 0, got {distance.min().item()}, and not the attack's `distance`")
    return [
        rate("robust_accuracy", int((distance > level).sum()), len(distance), level=float(level), **cell)
        for level in levels
    ]


def _in_batches(
    attack: Attack | MinimumNormAttack, model: nn.Module, dataset: Dataset, seed: int
) -> tuple[Tensor | MinimumNormResult, PassCounter]:
    """Run an attack on all rows, in batches, with counted passes; refuse targeted attacks."""
    if getattr(attack, "goal", None) == Targeted():
        raise ValueError(
            f"{type(attack).__name__} with the goal Targeted takes the classes that it is given for its targets, and a "
            "data set has the true ones: use the goal Untargeted, or call the attack with targets"
        )
    counted = PassCounter(model)
    device = device_of(model, dataset.x)
    x, y, generator = dataset.x.to(device), dataset.y.to(device), torch.Generator().manual_seed(seed)
    with seeded(counted, torch.Generator().manual_seed(seed)):
        return InBatches(attack, BATCH)(counted, x, y, generator=generator), counted


def is_robust(rows: pd.DataFrame) -> pd.Series:
    """Which records are robust: classified correctly on the clean input, and not misclassified under attack.

    A rejected clean input is an error; a rejected adversarial input is no success of the attack.

    Args:
        rows: columns `label`, `clean` and `adversarial`, as in `security_curve`.

    Returns:
        Booleans, with the index of `rows`.
    """
    return (rows.clean == rows.label) & ((rows.adversarial == rows.label) | (rows.adversarial == REJECTED))


def security_curve(
    attack: BallAttack, model: nn.Module, dataset: Dataset, levels: Iterable[float], *, seed: int
) -> tuple[pd.DataFrame, Tensor]:
    """Run one attack at each perturbation budget (Biggio & Roli, 2018, section 3.4).

    Args:
        attack: an evasion attack with a ball, whose radius is set to each level in turn.
        model: classifier in evaluation mode.
        dataset: N rows and their true classes.
        levels: radii eps beside the attack's own, in the units of its ball.
        seed: seed of the generator, the same at every level.

    Returns:
        First, one record for each level, in ascending order, and row: `knob` (name of the norm), `level`, `row`,
        `label`, `clean` and `adversarial` (predicted classes), `size` (norm of the perturbation), `forward_passes` and
        `backward_passes` (at this level, for one row on average). Second, the adversarial inputs (N, *input) at the
        attack's own radius.

    Raises:
        ValueError: an attack without a ball, with the goal `Targeted` or of minimum norm; a model whose number of
            columns does not fit the classes of the dataset.
    """
    if not isinstance(getattr(attack, "ball", None), Ball):
        raise ValueError(
            f"a security curve gives the ball of an attack each radius in turn, and {type(attack).__name__} has none: "
            "make one for each level, and use `run_attack`"
        )
    clean = predicted_classes(model, dataset.x, len(dataset.classes))
    records, own = [], dataset.x
    for level in sorted({*levels, attack.ball.eps}):
        ball = attack.ball.with_eps(level)
        x_adv, passes = run_attack(replace(attack, ball=ball), model, dataset, seed=seed)  # type: ignore[type-var]
        if level == attack.ball.eps:
            own = x_adv
        records.append(
            pd.DataFrame(
                {
                    "knob": ball.name,
                    "level": float(level),
                    "row": range(len(dataset)),
                    "label": dataset.y.numpy(),
                    "clean": clean.numpy(),
                    "adversarial": predicted_classes(model, x_adv, len(dataset.classes)).numpy(),
                    "size": ball.norm(x_adv - dataset.x).numpy(),
                    "forward_passes": passes.forward_passes / len(dataset),
                    "backward_passes": passes.backward_passes / len(dataset),
                }
            )
        )
    return pd.concat(records, ignore_index=True), own


def worst_case(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The per-example worst case: which rows are robust against all attacks.

    Args:
        rows: records of `security_curve`, with a column `attack`.
        by: columns that identify a model and a level; all attacks with equal values there form a group.

    Returns:
        The columns of `by`, `row`, and `survives`: whether the row is robust against every attack of its group.

    Raises:
        ValueError: a group whose attacks did not all have the same rows.
    """
    grouped = rows.assign(survives=is_robust(rows)).groupby([*by, "row"], sort=True)
    attacks = rows.groupby(by).attack.nunique()  # of each group; each of its rows must have met as many
    if (grouped.attack.nunique().groupby(by).min() < attacks).any():
        raise ValueError(f"the attacks of one group of {by} must see the same rows: evaluate them on the same sample")
    return grouped.survives.all().reset_index()
