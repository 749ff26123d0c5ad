"""The rules of a row as a Great Expectations suite, and the pages that show how they were kept."""

import logging
import os
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from aisec_lab.data.validation.layout import MISSING, Chunk, Layout
from aisec_lab.data.validation.quarantine import COLUMN, Reason

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
FORMAT = {"result_format": "COMPLETE", "exclude_unexpected_values": True, "return_unexpected_index_query": False}
GROUP = 5  # columns of a frame: for each rule Great Expectations copies the frame, for each frame it has a fixed cost
SHOWN = 20  # row numbers of each rule on its page


@dataclass
class Total:
    """What a rule showed over all chunks, and the first rows that broke it."""

    rows: int = 0
    unexpected: int = 0
    missing: int = 0
    shown: list[int] = field(default_factory=list)

    def add(self, result: dict[str, Any], rows: int) -> None:
        """What it showed in one more chunk."""
        self.rows += rows
        self.unexpected += result["unexpected_count"]
        self.missing += result.get("missing_count", 0)
        self.shown = (self.shown + result["unexpected_index_list"])[:SHOWN]


class RowSuite:
    """Great Expectations' verdict on each row; one for each ingestion, as its context takes seconds to come up.

    Args:
        layout: what a row is made of.
        allowed: (2, D), the least and the greatest accepted value of each column.
        name: of the dataset.
    """

    def __init__(self, layout: Layout, allowed: np.ndarray, name: str) -> None:
        import great_expectations as gx  # seconds that nothing else should pay
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        self.layout, self.name = layout, name
        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(
                init_temp_docs_sites=False
            ),  # else a folder stays in /tmp
            progress_bars=ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        )
        self.context = gx.get_context(mode="ephemeral", project_config=config)
        asset = self.context.data_sources.add_pandas("incoming").add_dataframe_asset(name)
        self.batches = asset.add_batch_definition_whole_dataframe("chunk")
        self._totals: defaultdict[str, Total] = defaultdict(Total)

        rules: Any = gx.expectations
        self._number = {column: place for place, column in enumerate(() if layout.images else layout.columns)}
        if layout.images:
            limits = {"lowest pixel": (0.0, None), "highest pixel": (None, 1.0), "missing pixels": (0, 0)}
        else:
            limits = dict(zip(layout.columns, allowed.T.tolist(), strict=True))
        columns = [*limits, layout.label]
        self._suites: list[tuple[list[str], Any]] = []
        for start in range(0, len(columns), GROUP):
            suite = gx.ExpectationSuite(f"{name}: columns from {start}")
            for column in columns[start : start + GROUP]:
                if column not in layout.nullable:
                    suite.add_expectation(rules.ExpectColumnValuesToNotBeNull(column=column))
                if column == layout.label:
                    classes = list(range(len(layout.classes)))
                    suite.add_expectation(rules.ExpectColumnValuesToBeInSet(column=column, value_set=classes))
                else:
                    low, high = limits[column]
                    rule = rules.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)
                    suite.add_expectation(rule)
            self._suites.append((columns[start : start + GROUP], suite))

    def __call__(self, chunk: Chunk) -> np.ndarray:
        """The reasons against each row of a chunk (n,), uint32."""
        words = np.zeros(len(chunk), np.uint32)
        if not len(chunk):
            return words
        columns = self._columns(chunk)
        for names, suite in self._suites:
            frame = pd.DataFrame({name: columns[name] for name in names}, index=chunk.rows)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                verdict: Any = self.batches.get_batch({"dataframe": frame}).validate(suite, result_format=FORMAT)
            for found in verdict.results:
                column, rows = found.expectation_config.kwargs["column"], found.result["unexpected_index_list"]
                self._totals[_key(found.expectation_config)].add(found.result, len(chunk))
                places = np.searchsorted(chunk.rows, np.array(rows, np.int64))
                first = places[(words[places] >> COLUMN) == 0]
                words[places] |= np.uint32(self._reason(column, found.expectation_config.type))
                words[first] |= np.uint32((self._number.get(column, -1) + 1) << COLUMN)
        return words

    def _columns(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """What the rules are about (n,), of each."""
        y = {self.layout.label: np.where(chunk.y == MISSING, np.nan, chunk.y)}
        if not self.layout.images:
            return dict(zip(self.layout.columns, chunk.x.T, strict=True)) | y
        return {
            "lowest pixel": np.fmin.reduce(chunk.x, axis=1),
            "highest pixel": np.fmax.reduce(chunk.x, axis=1),
            "missing pixels": np.isnan(chunk.x).sum(1),
        } | y

    def _reason(self, column: str, kind: str) -> Reason:
        if column == self.layout.label:
            return Reason.MISSING if kind.endswith("not_be_null") else Reason.UNKNOWN_LABEL
        if kind.endswith("not_be_null") or column == "missing pixels":  # an image without any pixel has no lowest one
            return Reason.MISSING
        return Reason.UNKNOWN_WORD if column in self.layout.words else Reason.OUT_OF_RANGE

    def totals(self) -> list[tuple[Any, Total]]:
        """Every rule, and what it showed so far."""
        return [(r, self._totals[_key(r.configuration)]) for _, suite in self._suites for r in suite.expectations]


def _key(rule: Any) -> str:
    return f"{rule.type} {rule.kwargs['column']}"
