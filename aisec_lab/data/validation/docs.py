"""Data Docs: how the rules of a row, and those of the whole file, were kept, as pages for people."""

import datetime as dt
import logging
import warnings
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from aisec_lab.data.validation.suite import RowSuite, Total


def write_docs(suite: RowSuite, facts: dict[str, tuple[float, float]], folder: Path) -> Path:
    """Write Data Docs.

    The page of the row rules adds up what Great Expectations found in every chunk. The page of the whole file is its
    verdict on one row of aggregates. Pages name the time, take their style from the
    network, and differ from run to run.

    Args:
        suite: after it has seen all rows.
        facts: of the whole file: for each its value and the most that it may be.
        folder: made; `index.html` begins there.

    Returns:
        The first page.
    """
    import great_expectations as gx
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    rules: Any = gx.expectations
    facts = {escape(fact): value for fact, value in facts.items()}  # a file may have named its columns in HTML
    context, whole = suite.context, gx.ExpectationSuite(f"{suite.name}: the whole file")
    for fact, (_, most) in facts.items():
        whole.add_expectation(rules.ExpectColumnValuesToBeBetween(column=fact, max_value=most))
    frame = pd.DataFrame({fact: [value] for fact, (value, _) in facts.items()})
    batch = suite.batches.get_batch({"dataframe": frame})
    run = RunIdentifier(run_name=suite.name, run_time=dt.datetime.now(dt.UTC))
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.absolute())}
    context.add_data_docs_site(
        "docs",
        {
            "class_name": "SiteBuilder",
            "store_backend": backend,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )

    def added(rule: Any, total: Total) -> ExpectationValidationResult:
        share = 100 * total.unexpected / total.rows if total.rows else 0.0
        return ExpectationValidationResult(
            success=not total.unexpected,
            expectation_config=_escaped(rule),
            result={
                "element_count": total.rows,
                "unexpected_count": total.unexpected,
                "unexpected_percent": share,
                "missing_count": total.missing,
                "missing_percent": 100 * total.missing / total.rows if total.rows else 0.0,
                "unexpected_percent_total": share,
                "unexpected_percent_nonmissing": share,
                "partial_unexpected_list": [f"row {row}" for row in total.shown],
            },
            meta={},
            exception_info={"raised_exception": False, "exception_message": None, "exception_traceback": None},
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = batch.validate(whole, result_format="BASIC")
        rows = gx.ExpectationSuite(f"{suite.name}: each row")
        results = [added(rule, total) for rule, total in suite.totals()]
        for rule, _ in suite.totals():
            rows.add_expectation_configuration(_escaped(rule))
        for one, verdict in ((rows, _verdict(results, rows.name)), (whole, seen)):
            context.suites.add(one)
            meta = {**seen.meta, "run_id": run}
            kept = ExpectationSuiteValidationResult(
                success=bool(verdict.success),
                results=verdict.results,
                suite_name=one.name,
                statistics=verdict.statistics,
                meta=meta,
            )
            key = ValidationResultIdentifier(ExpectationSuiteIdentifier(one.name), run, suite.name)
            context.validation_results_store.set(key, kept)
        context.build_data_docs()
    return folder / "index.html"


def _escaped(rule: Any) -> Any:
    """What a rule says, with its column as a page may show it: Great Expectations writes names as they are."""
    said = rule.configuration
    said.kwargs["column"] = escape(said.kwargs["column"])
    return said


def _verdict(results: list[Any], name: str) -> Any:
    from great_expectations.core import ExpectationSuiteValidationResult

    good = sum(bool(result.success) for result in results)
    return ExpectationSuiteValidationResult(
        success=good == len(results),
        results=results,
        suite_name=name,
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": good,
            "unsuccessful_expectations": len(results) - good,
            "success_percent": 100 * good / len(results),
        },
    )
