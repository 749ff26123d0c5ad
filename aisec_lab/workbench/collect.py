"""From the cells of the declared grid to the one table."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from aisec_lab.evaluation import machine, metrics, rate, survivors, tidy, write_table
from aisec_lab.files import write_json, written_beside
from aisec_lab.workbench.grid import (
    RESULTS,
    Closer,
    Evaluation,
    evaluations,
    evasions,
    extractions,
    poisonings,
    privacies,
    trainings,
    verdicts,
)

ROWS = ("knob", "level", "row", "label", "clean", "adversarial", "size", "forward_passes", "backward_passes")
GROUP = ["objective", "defense", "seed", "knob", "level"]


def collect(config: DictConfig) -> None:
    """Write `table.parquet`, `metrics.json`, `curve.csv` and `examples.npz` under `results/`.

    Args:
        config: the whole configuration; its grid says which cells there must be.

    Raises:
        ValueError: a cell is missing, a stray one is there, one lacks a column, or the study has no curve; nothing is
            written.
    """
    cells, closer = evaluations(config), [*evasions(config), *poisonings(config), *privacies(config), *extractions()]
    check_cells({cell.folder for cell in cells}, RESULTS / "evaluate", "rows.parquet")
    check_cells({cell.folder for cell in trainings(config)}, RESULTS / "train", "history.parquet")
    check_cells({cell.folder for cell in verdicts(config)}, RESULTS / "diagnose", "findings.parquet")
    for notebook in {cell.notebook for cell in closer}:
        check_cells({cell.folder for cell in closer if cell.notebook == notebook}, RESULTS / notebook, "rows.parquet")
    card = json.loads((Path("data") / config.data.name / "card.json").read_text())
    common = {"study": config.study.name, "data": card["name"], "model": config.model._target_.rsplit(".")[-1].lower()}

    outcomes = pd.concat([read_rows(cell) for cell in cells], ignore_index=True)
    hashes = {cell: _metrics(cell.folder)["config"] for cell in cells}
    looked_at = pd.concat([pd.read_parquet(cell.folder / "rows.parquet") for cell in closer])
    table = tidy([*(common | row for row in measured(config, outcomes, hashes)), *looked_at.to_dict("records")])
    shown = examples(config)

    write_table(table, RESULTS / "table.parquet")
    write_json(RESULTS / "metrics.json", metrics(table, card, machine()))
    with written_beside(RESULTS / "curve.csv") as beside:
        curve(table, config).to_csv(beside, index=False)
    with written_beside(RESULTS / "examples.npz") as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **shown)


def check_cells(declared: set[Path], folder: Path, file: str) -> None:
    """Refuse, with a ValueError, cells that are declared and not there, or there and not declared."""
    there = {path.parent for path in (*folder.glob(file), *folder.glob(f"*/{file}"))}
    if declared - there:
        raise ValueError(f"cells missing from {folder}: {_names(declared - there)}; run `dvc repro`")
    if there - declared:
        stray = " ".join(map(str, sorted(there - declared)))
        raise ValueError(
            f"cells in {folder} that the study does not declare: {_names(there - declared)}; rm -r {stray}"
        )


def read_rows(cell: Evaluation) -> pd.DataFrame:
    """The per-example records of a cell, with its place in the grid; ValueError where a column is missing."""
    path = cell.folder / "rows.parquet"
    rows = pd.read_parquet(path)
    missing = [name for name in ROWS if name not in rows]
    if missing:
        raise ValueError(f"{path} lacks the columns {missing}: run its cell again (`dvc repro -f evaluate`)")
    return rows.assign(**cell._asdict())


def measured(config: DictConfig, outcomes: pd.DataFrame, hashes: dict[Evaluation, str]) -> list[dict[str, Any]]:
    """The rows of the table: training cost, clean accuracy, each attack at each level, and the worst case."""
    rows: list[dict[str, Any]] = []
    for training in trainings(config):
        facts = _metrics(training.folder)
        for defense, metric in product(config.study.defenses, ("training_forward_passes", "training_backward_passes")):
            name = Evaluation(training.objective, defense, "", training.seed).defended_by
            place = {"defense": name, "attack": "none", "seed": training.seed, "config": facts["config"]}
            rows.append({"metric": metric, "value": facts[metric]} | place)
    for (*place, attack), group in outcomes.groupby([*GROUP, "attack"], sort=True):
        objective, defense, seed, knob, level = place
        cell = Evaluation(objective, defense, attack, seed)
        broken = survivors(group, GROUP)
        where = {"defense": cell.defended_by, "knob": knob, "level": level, "seed": seed, "config": hashes[cell]}
        queries = {"attack": attack, "queries": group.forward_passes.iloc[0]}
        rows.append(rate("robust_accuracy", int(broken.survives.sum()), len(broken), **where, **queries))
    for (objective, defense, seed), group in outcomes.groupby(["objective", "defense", "seed"], sort=True):
        name = Evaluation(objective, defense, "", seed).defended_by
        seen = group.drop_duplicates("row")
        right = int((seen.clean == seen.label).sum())
        rows.append(rate("clean_accuracy", right, len(seen), defense=name, attack="none", seed=seed))
        threat = {"knob": config.ball._target_.rsplit(".")[-1], "level": float(config.ball.eps)}
        same = group[(group.knob == threat["knob"]) & (group.level == threat["level"])]
        if same.empty:
            raise ValueError(
                f"no attack of the study was run at its threat model {threat}: set ball.eps or an attack's"
            )
        left = survivors(same, GROUP)
        trusted = _metrics(Closer("diagnose", (objective, defense, str(seed))).folder)["trusted"]
        where = threat | {"defense": name, "attack": "worst_case", "seed": seed, "trusted": trusted}
        rows.append(rate("robust_accuracy", int(left.survives.sum()), len(left), **where))
    return rows


def curve(table: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """The security curves as `dvc plots` reads them: accuracy by level, defense and seed."""
    table = table[table.study == config.study.name]
    lines = table[(table.attack == config.curve.attack) | (table.metric == "clean_accuracy")].fillna({"level": 0.0})
    return lines[["level", "value", "low", "high", "defense", "seed"]].rename(
        columns={"level": "eps", "value": "accuracy"}
    )


def examples(config: DictConfig) -> dict[str, np.ndarray]:
    """A few inputs of the first seed under the attack that draws the curve, as `DEFENSE/x`, `DEFENSE/x_adv`, …"""
    attack, attacks = config.curve.attack, config.study.attacks
    if attack not in attacks:  # `dvc exp run` composes without the checks of `aisec compose`
        raise ValueError(f"curve.attack is {attack!r}: name one of study.attacks, {attacks}")
    arrays: dict[str, np.ndarray] = {}
    for cell in evaluations(config):
        if cell.attack == attack and cell.seed == config.study.seeds[0]:
            with np.load(cell.folder / "examples.npz") as file:
                arrays |= {f"{cell.defended_by}/{name}": file[name] for name in file.files}
    return arrays


def _metrics(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return facts


def _names(folders: set[Path]) -> str:
    return ", ".join(sorted(folder.name for folder in folders))
