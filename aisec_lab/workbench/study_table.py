"""The files by which the results of a study become its table."""

import pandas as pd

from aisec_lab.evaluation import write_table
from aisec_lab.workbench.stages import TABLES

ROWS = "rows.parquet"  # in the folder of a notebook: what it measured


def write_study_table(study: str, table: pd.DataFrame) -> None:
    """Write the table of a study, `results/tables/STUDY/table.parquet`."""
    (TABLES / study).mkdir(parents=True, exist_ok=True)
    write_table(table, TABLES / study / "table.parquet")
