"""The rows of a study's notebooks become its table, and the tables of all studies become one."""

import json
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from aisec_lab.core.files import write_json
from aisec_lab.evaluation import machine, metrics, read_table, tidy, write_table
from aisec_lab.workbench import robustness_table
from aisec_lab.workbench.configuration import configure
from aisec_lab.workbench.result_check import check_readers, check_results, check_studies
from aisec_lab.workbench.stages import COMMAND_READS, RESULTS, TABLES, declared, experiments, studies
from aisec_lab.workbench.study_table import ROWS, write_study_table


def collect(study: str) -> None:
    """Write the table of a study, `results/tables/STUDY/table.parquet`, from the rows of its notebooks.

    Args:
        study: its name.

    Raises:
        ValueError: no such study, a study whose results nobody collects, a declared result that is missing, a result
            that no stage declares, or one that is neither collected nor read by another stage. Nothing is written.
    """
    stages = declared()
    if study not in studies(stages):
        raise ValueError(f"no study {study!r}: there are {studies(stages)}")
    check_studies(stages)
    cells = experiments(stages, study)
    check_results(cells, stages, study)
    own = robustness_table.TAKES if study == robustness_table.STUDY else {}
    check_readers(cells, stages, own)
    plain = [cell.folder / ROWS for cell in cells if own.get(cell.notebook.stem) != ROWS]
    parts = [pd.read_parquet(file) for file in plain if file.exists()]
    rows = pd.concat(parts).to_dict("records") if parts else []
    if own:
        config = configure(reads=COMMAND_READS[f"aisec collect {study}"])
        robustness_table.collect_robustness(config, cells, rows)
    else:
        write_study_table(study, tidy(rows))


def merge(config: DictConfig) -> None:
    """Write `results/table.parquet` and `results/metrics.json`, the claims of all studies together.

    Args:
        config: the part of the configuration that may be read: the data of the claims.

    Raises:
        ValueError: a study's table is damaged, or two tables hold the same measurement.
    """
    tables = [read_table(TABLES / study / "table.parquet") for study in studies(declared())]
    table = tidy(pd.concat(tables).to_dict("records"))
    card = json.loads((Path("data") / config.data.name / "card.json").read_text())
    write_table(table, RESULTS / "table.parquet")
    write_json(RESULTS / "metrics.json", metrics(table, card, machine()))
