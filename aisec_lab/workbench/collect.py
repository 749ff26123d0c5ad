"""From what the notebooks of a study left to its table, and from the tables of all studies to the one table."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from aisec_lab.core.files import write_json
from aisec_lab.evaluation import machine, metrics, read_table, tidy, write_table
from aisec_lab.workbench.stages import RESULTS, TABLES, Declared, declared, experiments, studies

ROWS = "rows.parquet"


def collect(study: str) -> None:
    """Write the table of a study, `results/tables/STUDY/table.parquet`, from the rows of its notebooks.

    Args:
        study: its name.

    Raises:
        ValueError: no such study; a result is missing, a stray one is there, or one is neither collected nor read by
            another stage; nothing is written.
    """
    stages = declared()
    if study not in studies(stages):
        raise ValueError(f"no study {study!r}: there are {studies(stages)}")
    cells = experiments(stages, study)
    check_results(cells, RESULTS / study)
    check_readers(cells, stages)
    if study == "robustness":
        from aisec_lab.workbench.configuration import configure
        from aisec_lab.workbench.robustness_table import collect_robustness
        from aisec_lab.workbench.stages import COMMAND_READS

        collect_robustness(configure(reads=COMMAND_READS["aisec collect robustness"]), cells)
        return
    rows = pd.concat([pd.read_parquet(cell.folder / ROWS) for cell in cells if (cell.folder / ROWS).exists()])
    write_study_table(study, tidy(rows.to_dict("records")))


def merge(config: DictConfig) -> None:
    """Write `results/table.parquet` and `results/metrics.json`, the claims of all studies together.

    Args:
        config: what may be seen of the configuration: the data of the claims.

    Raises:
        ValueError: a study's table is damaged, or two of them measure the same.
    """
    tables = [read_table(TABLES / study / "table.parquet") for study in studies(declared())]
    table = tidy(pd.concat(tables).to_dict("records"))
    card = json.loads((Path("data") / config.data.name / "card.json").read_text())
    write_table(table, RESULTS / "table.parquet")
    write_json(RESULTS / "metrics.json", metrics(table, card, machine()))


def check_results(cells: Sequence[Declared], folder: Path) -> None:
    """Refuse, with a ValueError, results that are declared and not there, or there and not declared."""
    expected = {cell.folder: cell.page for cell in cells}
    there = {path.parent for path in folder.rglob("*.html")}
    if missing := sorted(str(place) for place, page in expected.items() if not page.exists()):
        raise ValueError(f"results missing: {', '.join(missing)}; run `aisec repro`")
    if stray := sorted(str(place) for place in there - expected.keys()):
        raise ValueError(f"results that no stage declares: {', '.join(stray)}; rm -r {' '.join(stray)}")


def check_readers(cells: Sequence[Declared], stages: Sequence[Declared]) -> None:
    """Refuse, with a ValueError, a result that holds no rows and that no other notebook reads."""
    read = {dep for stage in stages if stage.runs_notebook for dep in stage.deps}
    for cell in cells:
        own = [str(cell.folder), *map(str, cell.folder.parents)]
        if not any((cell.folder / name).exists() for name in (ROWS, "history.parquet", "findings.parquet")) and not (
            read & {place for place in own if place.startswith(f"{RESULTS}/")}
        ):
            raise ValueError(f"{cell.folder} holds no {ROWS} and no stage reads it: save rows, or drop {cell.key}")


def write_study_table(study: str, table: pd.DataFrame) -> None:
    """Write the table of a study."""
    (TABLES / study).mkdir(parents=True, exist_ok=True)
    write_table(table, TABLES / study / "table.parquet")
