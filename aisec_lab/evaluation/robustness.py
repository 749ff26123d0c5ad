"""What an attack does to a model, row by row, and the worst case over attacks."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from aisec_lab.attacks import Attack, Ball
from aisec_lab.data import Dataset
from aisec_lab.models import Counted, logits_of

BATCH = 250  # rows attacked at a time; outcomes may depend on it in the last bits, so nobody varies it


class BallAttack(Attack, Protocol):
    """An attack with a ball."""

    @property
    def ball(self) -> Ball:
        """The threat model."""
        ...


def attacked(attack: Attack, model: nn.Module, dataset: Dataset, *, seed: int) -> tuple[Tensor, Counted]:
    """Attack every row of a dataset.

    Args:
        attack: an evasion attack.
        model: classifier in evaluation mode.
        dataset: rows and their true classes.
        seed: of the generator that each batch is given anew; noise is keyed by row, so batches do not repeat it.

    Returns:
        Adversarial inputs (N, *input) on the CPU, and the passes that they cost.
    """
    counted = Counted(model)
    device = next((parameter.device for parameter in model.parameters()), dataset.x.device)
    x_adv = [
        attack(counted, x.to(device), y.to(device), generator=torch.Generator().manual_seed(seed)).cpu()
        for x, y in zip(dataset.x.split(BATCH), dataset.y.split(BATCH), strict=True)
    ]
    return torch.cat(x_adv), counted


def security_curve(
    attack: BallAttack, model: nn.Module, dataset: Dataset, levels: Iterable[float], *, seed: int
) -> tuple[pd.DataFrame, Tensor]:
    """Outcomes of one attack at each perturbation budget (Biggio & Roli, 2018, section 3.4).

    Args:
        attack: an evasion attack; its ball is given each level in turn.
        model: classifier in evaluation mode.
        dataset: rows and their true classes.
        levels: budgets eps beside the attack's own, in the units of its ball.
        seed: as for `attacked`, the same at every level.

    Returns:
        One record for each level, from the lowest up, and row: `knob` (the ball's name), `level`, `row`, `label`,
        `clean` and `adversarial` (the predicted classes), `size` (of the perturbation, in the ball's norm),
        `forward_passes`, `backward_passes` (of the whole level, for one row on average); and the adversarial inputs
        of the attack's own level.
    """
    clean = logits_of(model, dataset.x).argmax(1)
    records, own = [], dataset.x
    for level in sorted({*levels, attack.ball.eps}):
        ball = attack.ball.with_eps(level)
        x_adv, passes = attacked(replace(attack, ball=ball), model, dataset, seed=seed)  # type: ignore[type-var]
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
                    "adversarial": logits_of(model, x_adv).argmax(1).numpy(),
                    "size": ball.size(x_adv - dataset.x).numpy(),
                    "forward_passes": passes.forward_passes / len(dataset),
                    "backward_passes": passes.backward_passes / len(dataset),
                }
            )
        )
    return pd.concat(records, ignore_index=True), own


def survivors(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Which rows no attack broke: the per-example worst case.

    Args:
        rows: records of `security_curve`, with the name of their `attack`.
        by: columns that name one model and one level; the attacks within such a group are taken together.

    Returns:
        `by`, `row` and `survives`: right on the clean input and under every attack of the group.

    Raises:
        ValueError: a group whose attacks did not all see the same rows.
    """
    right = (rows.clean == rows.label) & (rows.adversarial == rows.label)
    grouped = rows.assign(survives=right).groupby([*by, "row"], sort=True)
    attacks = rows.groupby(by).attack.nunique()  # of each group; each of its rows must have met as many
    if (grouped.attack.nunique().groupby(by).min() < attacks).any():
        raise ValueError(f"the attacks of one group of {by} must see the same rows: evaluate them on the same sample")
    return grouped.survives.all().reset_index()
