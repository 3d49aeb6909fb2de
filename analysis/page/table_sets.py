"""All tables of a report, and those of the panels that it shows first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page import mask_tables, paper_tables, run_tables, tables
from cppo_lab.analysis.page.rates_table import rates_table
from cppo_lab.analysis.page.scaling_table import scaling_table
from cppo_lab.analysis.page.step_size_tables import step_size_tables
from cppo_lab.analysis.page.tables import Table
from cppo_lab.analysis.page.tuned_table import tuned_table
from cppo_lab.analysis.summary import Summary

_BY_LABEL = ("scaling", "masked-tokens")
"""Tables from the run folders with a row for each method of every panel."""


def all_tables(study: Study, summary: Summary) -> dict[str, Table]:
    """Every table by name; one without rows is left out."""
    made = [
        tables.results_table(summary),
        rates_table(summary),
        tables.learning_table(summary),
        scaling_table(study, summary),
        tables.contrasts_table(summary),
        tables.claims_table(summary.claims, summary.table) if summary.claims else None,
        tuned_table(study.tuned),
        paper_tables.paper_table(summary),
        paper_tables.benchmarks_table(summary),
        tables.stability_table(summary),
        mask_tables.masked_tokens_table(study),
        mask_tables.unsafe_keeps_table(study),
        run_tables.differences_table(study),
        run_tables.budget_table(study),
        run_tables.runs_table(study, summary),
        *(step_size_tables(summary.step_size) if summary.step_size else ()),
    ]
    return {table.name: table.marked(study.mark) for table in made if table is not None}


def first_tables(study: Study, first: Summary, whole: Mapping[str, Table]) -> dict[str, Table]:
    """The tables that have a row for each method of every panel, with the rows of the panels of `first` alone."""
    made = [
        tables.results_table(first),
        tables.learning_table(first),
        tables.contrasts_table(first),
        tables.stability_table(first),
    ]
    labels = {result.label for result in first.results}
    found = {table.name: table.marked(study.mark) for table in made if table is not None}
    for name in _BY_LABEL:
        if name in whole:
            rows = tuple(row for row in whole[name].rows if row[0].text in labels)
            found[name] = replace(whole[name], rows=rows)
    return found
