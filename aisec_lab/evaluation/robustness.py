"""What an attack does to a model, row by row, and the worst case over attacks."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from aisec_lab.attacks import Attack, Ball, InBatches, MinimumNormAttack, MinimumNormResult, Targeted
from aisec_lab.data import Dataset
from aisec_lab.evaluation.table import rate
from aisec_lab.models import PassCounter, device_of, logits_of, seeded

BATCH = 250  # rows attacked at a time; outcomes may depend on it in the last bits, so nobody varies it
FRESH = 2**31  # seed of the draws that score a random model, apart from those that an attack has seen
REJECTED = -1  # in place of a class, where a model with a reject option takes it


class BallAttack(Attack, Protocol):
    """An attack with a ball."""

    @property
    def ball(self) -> Ball:
        """The threat model."""
        ...


def run_attack(attack: Attack, model: nn.Module, dataset: Dataset, *, seed: int) -> tuple[Tensor, PassCounter]:
    """Attack every row of a dataset.

    Args:
        attack: an evasion attack.
        model: classifier in evaluation mode.
        dataset: rows and their true classes.
        seed: of the generator that each batch is given anew; noise is keyed by row, so batches do not repeat it.

    Returns:
        Adversarial inputs (N, *input) on the CPU, and the passes that they cost.

    Raises:
        ValueError: an attack with the goal `Targeted`, which would take the true classes for its targets; a
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
    """The smallest perturbation of every row of a dataset.

    Args:
        attack: a minimum-norm attack, its ball of radius 0 for the whole security curve.
        model, dataset, seed: as for `run_attack`.

    Returns:
        What was found, on the CPU, and the passes that it cost.

    Raises:
        ValueError: an attack with the goal `Targeted`, or one that looks for no smallest perturbation.
    """
    found, counted = _in_batches(attack, model, dataset, seed)
    if not isinstance(found, MinimumNormResult):
        raise ValueError(
            f"{type(attack).__name__} looks for a perturbation of a given size, not for the smallest: use `run_attack`"
        )
    return MinimumNormResult(found.x_adv.cpu(), found.distance.cpu()), counted


def curve_from_distances(distance: Tensor, levels: Iterable[float], **cell: Any) -> list[dict[str, Any]]:
    """The security curve from one run of a minimum-norm attack: a row is broken at eps if its distance is at most eps.

    Args:
        distance: of each row (N,); 0 where it is wrong as it is, `inf` where nothing was found.
        levels: budgets eps, in the units of the distances.
        cell: the other columns of the table.

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


def predicted_classes(model: nn.Module, x: Tensor, classes: int) -> Tensor:
    """The answers (N,) of a model as it is used, a random one with draws that no attack has seen.

    Args:
        model: classifier; one with a reject option, which is its last column, says so by an attribute `rejects`.
        x: inputs (N, *input).
        classes: how many there are.

    Returns:
        Classes, int64; `REJECTED` where the model refuses to answer.

    Raises:
        ValueError: the model has more or fewer columns than that, or answers NaN.
    """
    answers, columns = _winners(model, x)
    rejects = any(getattr(module, "rejects", False) is True for module in model.modules())
    if len(answers) and columns != classes + rejects:
        option = ", and a reject option" if rejects else ""
        raise ValueError(
            f"the model answers with {columns} logits, the data set names {classes} classes{option}: give "
            "the model as many, or, where its last one rejects, an attribute rejects = True"
        )
    return torch.where(answers == classes, REJECTED, answers)


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """The winning columns (N,) of a model's answers, the reject option's among them. Args: as for `predicted_classes`.

    Raises:
        ValueError: one logit, whose column wins every row, or NaN.
    """
    answers, columns = _winners(model, x)
    if columns < 2:
        raise ValueError(
            "a classifier has at least two logits, got one: for a binary model wrap it in aisec_lab.models.TwoLogits"
        )
    return answers


def _winners(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    with seeded(model, torch.Generator().manual_seed(FRESH)):
        logits = logits_of(model, x)
    if logits.ndim != 2:
        raise ValueError(f"a classifier answers with logits (N, K), got {tuple(logits.shape)}: wrap it so that it does")
    return logits.argmax(1), logits.shape[1]


def is_robust(rows: pd.DataFrame) -> pd.Series:
    """Which records are of a right answer on the clean input that the attack did not turn into a wrong one.

    To be rejected is an error on a clean input, and no success of an attacker.
    """
    return (rows.clean == rows.label) & ((rows.adversarial == rows.label) | (rows.adversarial == REJECTED))


def security_curve(
    attack: BallAttack, model: nn.Module, dataset: Dataset, levels: Iterable[float], *, seed: int
) -> tuple[pd.DataFrame, Tensor]:
    """Outcomes of one attack at each perturbation budget (Biggio & Roli, 2018, section 3.4).

    Args:
        attack: an evasion attack; its ball is given each level in turn.
        model: classifier in evaluation mode.
        dataset: rows and their true classes.
        levels: budgets eps beside the attack's own, in the units of its ball.
        seed: as for `run_attack`, the same at every level.

    Returns:
        One record for each level, from the lowest up, and row: `knob` (the ball's name), `level`, `row`, `label`,
        `clean` and `adversarial` (the predicted classes), `size` (of the perturbation, in the ball's norm),
        `forward_passes`, `backward_passes` (of the whole level, for one row on average); and the adversarial inputs
        of the attack's own level.

    Raises:
        ValueError: as for `run_attack`; a model with other columns than the data set has classes; an attack without a
            ball.
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
    """Which rows no attack broke: the per-example worst case.

    Args:
        rows: records of `security_curve`, with the name of their `attack`.
        by: columns that name one model and one level; the attacks within such a group are taken together.

    Returns:
        `by`, `row` and `survives`: right on the clean input and under every attack of the group.

    Raises:
        ValueError: a group whose attacks did not all see the same rows.
    """
    grouped = rows.assign(survives=is_robust(rows)).groupby([*by, "row"], sort=True)
    attacks = rows.groupby(by).attack.nunique()  # of each group; each of its rows must have met as many
    if (grouped.attack.nunique().groupby(by).min() < attacks).any():
        raise ValueError(f"the attacks of one group of {by} must see the same rows: evaluate them on the same sample")
    return grouped.survives.all().reset_index()
