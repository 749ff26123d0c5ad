"""The robustness study's table: from a row for every example to rates, curves and the worst case."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig

from aisec_lab.core.files import written_beside
from aisec_lab.evaluation import rate, tidy, worst_case
from aisec_lab.workbench.names import class_name, defense_name, model_name
from aisec_lab.workbench.stages import TABLES, Declared
from aisec_lab.workbench.study_table import ROWS, write_study_table

STUDY = "robustness"
METRICS = "metrics.json"
TAKES = {"train": METRICS, "evaluate": ROWS, "diagnose": METRICS}  # the file that the table takes from each notebook
COLUMNS = ("knob", "level", "row", "label", "clean", "adversarial", "size", "forward_passes", "backward_passes")
PLACE = ("objective", "defense", "attack", "seed")
MODEL = ("objective", "defense", "seed")
GROUP = ["objective", "defense", "seed", "knob", "level"]
Cells = Mapping[tuple[Any, ...], Declared]


def collect_robustness(config: DictConfig, stages: Sequence[Declared], more: Iterable[Mapping[str, Any]]) -> None:
    """Write `table.parquet`, `curve.csv` and `examples.npz` under `results/tables/robustness/`.

    Args:
        config: the part of the configuration that may be read: the study, its threat model and the curve.
        stages: of the study, all run.
        more: rows of the table that other notebooks of the study have measured.

    Raises:
        ValueError: a result lacks a column, or the study has no curve; nothing is written.
    """
    trainings, evaluations, verdicts = (
        _cells(stages, name, axes)
        for name, axes in (("train", ("objective", "seed")), ("evaluate", PLACE), ("diagnose", MODEL))
    )
    common = {
        "study": config.study.name,
        "data": config.data.name,
        "model": model_name(instantiate(config.model, _convert_="all")),
    }
    outcomes = pd.concat([read_rows(cell, place) for place, cell in evaluations.items()], ignore_index=True)
    rows = [
        *training_rows(trainings, dict.fromkeys(defense for _, defense, _, _ in evaluations)),
        *attack_rows(outcomes, evaluations),
        *worst_rows(outcomes, verdicts, config),
    ]
    table, shown = tidy([*(common | row for row in rows), *more]), examples(config, evaluations)
    write_study_table(STUDY, table)
    with written_beside(TABLES / STUDY / "curve.csv") as beside:
        curve(table, config).to_csv(beside, index=False)
    with written_beside(TABLES / STUDY / "examples.npz") as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **shown)


def read_rows(cell: Declared, place: Sequence[Any]) -> pd.DataFrame:
    """The per-example records of a cell, with its place in the grid; ValueError where a column is missing."""
    path = cell.folder / ROWS
    rows = pd.read_parquet(path)
    missing = [name for name in COLUMNS if name not in rows]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}: run its stage again (`dvc repro -f -s {cell.address}`)")
    return rows.assign(**dict(zip(PLACE, place, strict=True)))


def training_rows(trainings: Cells, defenses: Iterable[str]) -> list[dict[str, Any]]:
    """What training cost, for each model with each defense around it."""
    rows = []
    for (objective, seed), cell in trainings.items():
        facts = _metrics(cell)
        for defense, metric in product(defenses, ("training_forward_passes", "training_backward_passes")):
            place = {"defense": defense_name(objective, defense), "attack": "none", "seed": seed}
            rows.append({"metric": metric, "value": facts[metric], "config": facts["config"]} | place)
    return rows


def attack_rows(outcomes: pd.DataFrame, evaluations: Cells) -> list[dict[str, Any]]:
    """Robust accuracy under each attack at each level."""
    rows = []
    hashes = {place: _metrics(cell)["config"] for place, cell in evaluations.items()}
    for (objective, defense, seed, knob, level, attack), group in outcomes.groupby([*GROUP, "attack"], sort=True):
        broken = worst_case(group, GROUP)
        where = {
            "defense": defense_name(objective, defense),
            "knob": knob,
            "level": level,
            "seed": seed,
            "config": hashes[objective, defense, attack, seed],
        }
        queries = {"attack": attack, "queries": group.forward_passes.iloc[0]}
        rows.append(rate("robust_accuracy", int(broken.survives.sum()), len(broken), **where, **queries))
    return rows


def worst_rows(outcomes: pd.DataFrame, verdicts: Cells, config: DictConfig) -> list[dict[str, Any]]:
    """Clean accuracy, and the worst case over all attacks at the study's threat model, with the verdict on it."""
    rows = []
    threat = {"knob": class_name(config.ball._target_), "level": float(config.ball.eps)}
    for (objective, defense, seed), group in outcomes.groupby(list(MODEL), sort=True):
        place = {"defense": defense_name(objective, defense), "seed": seed}
        seen = group.drop_duplicates("row")
        rows.append(rate("clean_accuracy", int((seen.clean == seen.label).sum()), len(seen), attack="none", **place))
        same = group[(group.knob == threat["knob"]) & (group.level == threat["level"])]
        if same.empty:
            raise ValueError(
                f"no attack of the study was run at its threat model {threat}: set ball.eps or an attack's"
            )
        left = worst_case(same, GROUP)
        trusted = _metrics(verdicts[objective, defense, seed])["trusted"]
        where = threat | place | {"attack": "worst_case", "trusted": trusted}
        rows.append(rate("robust_accuracy", int(left.survives.sum()), len(left), **where))
    return rows


def curve(table: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """The security curves as `dvc plots` reads them: accuracy by level, defense and seed."""
    lines = table[(table.attack == config.curve.attack) | (table.metric == "clean_accuracy")].fillna({"level": 0.0})
    return lines[["level", "value", "low", "high", "defense", "seed"]].rename(
        columns={"level": "eps", "value": "accuracy"}
    )


def examples(config: DictConfig, evaluations: Cells) -> dict[str, np.ndarray]:
    """A few inputs of the first seed under the attack that draws the curve, as `DEFENSE/x`, `DEFENSE/x_adv`, …"""
    drawn, attacks = config.curve.attack, config.study.attacks
    if drawn not in attacks:  # `dvc exp run` composes without the checks of `aisec compose`
        raise ValueError(f"curve.attack is {drawn!r}: name one of study.attacks, {attacks}")
    arrays: dict[str, np.ndarray] = {}
    for (objective, defense, attack, seed), cell in evaluations.items():
        if attack == drawn and seed == config.study.seeds[0]:
            with np.load(cell.folder / "examples.npz") as file:
                arrays |= {f"{defense_name(objective, defense)}/{name}": file[name] for name in file.files}
    return arrays


def _cells(stages: Sequence[Declared], notebook: str, axes: Sequence[str]) -> dict[tuple[Any, ...], Declared]:
    """From the place in its grid to each stage of a notebook."""
    return {
        tuple(int(stage.axes[axis]) if axis == "seed" else stage.axes[axis] for axis in axes): stage
        for stage in stages
        if stage.notebook.stem == notebook
    }


def _metrics(cell: Declared) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((cell.folder / METRICS).read_text())
    return facts
