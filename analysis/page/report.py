"""Writes a report: a self-contained page, the same content as Markdown, figures and tables."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cppo_lab.analysis import method_notes
from cppo_lab.analysis.figures.looks import looks_of
from cppo_lab.analysis.figures.registry import SECTIONS
from cppo_lab.analysis.figures.render import Rendered, palette_css, render, variable
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.load.study import Study
from cppo_lab.analysis.page import run_tables
from cppo_lab.analysis.page.exhibits import Exhibit, exhibits
from cppo_lab.analysis.page.latex import latex
from cppo_lab.analysis.page.markdown import cell, fence, line
from cppo_lab.analysis.page.provenance import provenance
from cppo_lab.analysis.page.sample_data import SampleData, sample_data
from cppo_lab.analysis.page.samples import Sample, choice_in_words, choose, left_out, token_notes
from cppo_lab.analysis.page.table_sets import all_tables, first_tables
from cppo_lab.analysis.page.tables import Table
from cppo_lab.analysis.safe_text import brief, visible
from cppo_lab.analysis.single_rates import folded_panels
from cppo_lab.analysis.spent import DEFAULT_AXIS
from cppo_lab.analysis.step_size_text import HEADING, control_sentences, explained
from cppo_lab.analysis.summary import Summary, summarise
from cppo_lab.analysis.verdict_text import panel_title, power_statements
from cppo_lab.analysis.verdicts import (
    SINGLE_RATES,
    Sentences,
    folded_note,
    verdicts,
    verdicts_at_single_rates,
)

FORMATS = ("html", "md", "png", "pdf", "csv", "tex")
# In the order in which they take effect.
_SCRIPTS = ("page.js", "axes.js", "tokens.js", "samples.js")
_STYLES = ("page.css", "samples.css", "print.css")


@dataclass(frozen=True)
class ReportFiles:
    """The paths written; None or empty for a format that was not requested."""

    folder: Path
    html: Path | None
    markdown: Path | None
    figures: tuple[Path, ...]
    tables: tuple[Path, ...]

    @property
    def all(self) -> tuple[Path, ...]:
        pages = tuple(path for path in (self.html, self.markdown) if path is not None)
        return (*pages, *self.figures, *self.tables)


@dataclass(frozen=True)
class Content:
    """The content of both pages.

    folded: the panels at single rates that are folded away. first_tables: the tables without their rows, by name, where
    there are such rows; `tables` has all of them.
    """

    study: Study
    summary: Summary
    verdicts: Sentences
    single_rates: Sentences
    folded: tuple[str, ...]
    power: Sentences
    step_size: Sentences
    step_size_notes: tuple[str, ...]
    caveats: tuple[str, ...]
    statistics: tuple[str, ...]
    tables: dict[str, Table]
    first_tables: dict[str, Table]
    settings: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    samples: tuple[Sample, ...]
    sample_data: SampleData | None
    exhibits: tuple[Exhibit, ...]
    rendered: dict[str, Rendered]


def write_report(
    output_root: Path,
    sweep: str | Sequence[str] | None = None,
    run_folders: Sequence[Path] | None = None,
    destination: Path | None = None,
    formats: Sequence[str] = FORMATS,
    *,
    force: bool = False,
) -> ReportFiles:
    """Write the report of one or several sweeps, of chosen run folders, or of the latest sweep.

    destination: default OUTPUT/reports/NAME. `force` reports runs that are not comparable, with a warning on every
    figure and table. Raises what `load_study` and `write_study` raise.
    """
    study = load_study(output_root, sweep, run_folders, force=force)
    return write_study(study, destination or output_root / "reports" / study.name, formats)


def write_study(
    study: Study,
    folder: Path,
    formats: Sequence[str] = FORMATS,
    *,
    axis: str = DEFAULT_AXIS,
    all_panels: bool = False,
) -> ReportFiles:
    """Write the report of a study into `folder`. Everything is computed before the first file is written.

    axis: the horizontal axis of the accuracy curves (a key of `analysis/spent.py`); the page offers the others as well.
    all_panels: draw the figures of panels that the page folds away too, see `analysis/single_rates.py`.
    Raises ValueError for an unknown format, and UserError for an axis that the runs have nothing to place on.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ValueError(f"formats = {', '.join(unknown) or 'none'}: allowed are {', '.join(FORMATS)}.")
    # The Markdown page links to PNG files.
    wanted = {*formats, *(("png",) if "md" in formats else ())}
    content = collect(study, wanted, axis, all_panels=all_panels)
    out: dict[Path, bytes] = {}
    if "html" in wanted:
        out[folder / "index.html"] = html_page(content).encode("utf-8")
    if "md" in wanted:
        out[folder / "report.md"] = markdown_page(content).encode("utf-8")
    for name, figure in content.rendered.items():
        if figure.png is not None:
            out[folder / "figures" / f"{name}.png"] = figure.png
        if figure.pdf is not None:
            out[folder / "figures" / f"{name}.pdf"] = figure.pdf
    if "csv" in wanted:
        for name, table in content.tables.items():
            out[folder / "tables" / f"{name}.csv"] = table.frame().to_csv(index=False).encode("utf-8")
    if "tex" in wanted:
        for name, table in content.tables.items():
            out[folder / "tables" / f"{name}.tex"] = latex(table).encode("utf-8")
    for path, data in out.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return ReportFiles(
        folder,
        folder / "index.html" if "html" in wanted else None,
        folder / "report.md" if "md" in wanted else None,
        tuple(path for path in out if path.parent.name == "figures"),
        tuple(path for path in out if path.parent.name == "tables"),
    )


def collect(
    study: Study, formats: set[str], axis: str = DEFAULT_AXIS, *, all_panels: bool = False
) -> Content:
    """Compute every statistic, sentence, table and figure of the report."""
    summary = summarise(study)
    # Figures take most of the time; tables alone do not need them.
    drawn = formats & {"html", "md", "png", "pdf"}
    shown = (
        exhibits(study, summary, axis, with_views="html" in formats, all_panels=all_panels) if drawn else []
    )
    rendered = {
        exhibit.name: render(
            exhibit.name,
            exhibit.figure,
            png="png" in formats,
            pdf="pdf" in formats,
            page="html" in formats,
            mark=study.mark,
        )
        for exhibit in shown
        if exhibit.figure is not None
    }
    rendered |= {
        view.name: render(view.name, view.figure, png=False, pdf=False, page=True, mark=study.mark)
        for exhibit in shown
        for view in exhibit.views
        if view.name not in rendered
    }
    folded = folded_panels(summary)
    first = summary.of_panels([panel.panel for panel in summary.panels if panel.panel not in folded])
    tables = all_tables(study, summary)
    return Content(
        study=study,
        summary=summary,
        verdicts=(
            *((("", (method_notes.warning(study),)),) if study.mark else ()),
            *verdicts(study, summary),
        ),
        single_rates=verdicts_at_single_rates(study, summary),
        folded=folded,
        power=tuple(
            (panel_title(study, panel.panel), tuple(power_statements(panel)))
            for panel in first.panels
            if panel.contrasts
        ),
        step_size=tuple(control_sentences(summary.step_size)) if summary.step_size else (),
        step_size_notes=tuple(explained(summary.step_size)) if summary.step_size else (),
        caveats=tuple(method_notes.caveats(study, summary)),
        statistics=tuple(method_notes.method_of_statistics(summary)),
        tables=tables,
        first_tables=first_tables(study, first, tables) if folded else {},
        settings=tuple(run_tables.shared_settings(study)),
        provenance=tuple(provenance(study)),
        samples=tuple(choose(study)),
        sample_data=sample_data(study) if "html" in formats else None,
        exhibits=tuple(shown),
        rendered=rendered,
    )


def html_page(content: Content) -> str:
    """The self-contained page: styles, scripts and figures inside, nothing loaded from anywhere."""
    environment = _environment(autoescape=True)
    environment.filters.update(token_notes=token_notes)
    looks = looks_of(content.study.grouping.methods)
    scripts = [_asset(name) for name in _SCRIPTS]
    return environment.get_template("template.html.j2").render(
        content=content,
        study=content.study,
        parts=_parts(content),
        sections=_sections(content),
        folded_sections=_sections(content, folded=True),
        single_rates_heading=SINGLE_RATES,
        folded_note=folded_note(content.folded, any(exhibit.folded for exhibit in content.exhibits)),
        markup={name: Markup(figure.markup or "") for name, figure in content.rendered.items()},
        swatch={method: Markup(variable(look.color)) for method, look in looks.items()},
        css=Markup("".join(map(_asset, _STYLES))),
        light=Markup(palette_css(dark=False)),
        dark=Markup(palette_css(dark=True)),
        scripts=[Markup(script) for script in scripts],
        script_digests=[_digest(script) for script in scripts],
    )


def markdown_page(content: Content) -> str:
    """The same content as Markdown, its figures linked as files."""
    environment = _environment(autoescape=False)
    environment.filters.update(cell=cell, line=line, fence=fence)
    text = environment.get_template("template.md.j2").render(
        content=content,
        study=content.study,
        parts=_parts(content),
        sections=_sections(content),
        folded_sections=_sections(content, folded=True),
        single_rates_heading=SINGLE_RATES,
        folded_note=folded_note(content.folded, any(exhibit.folded for exhibit in content.exhibits)),
    )
    return text.rstrip() + "\n"


def _sections(content: Content, *, folded: bool = False) -> dict[str, list[Exhibit]]:
    return {
        section: [
            exhibit for exhibit in content.exhibits if exhibit.section == section and exhibit.folded == folded
        ]
        for section in SECTIONS
    }


def _parts(content: Content) -> dict[str, str]:
    """The sections that have content, in page order, with their headings."""
    sections = _sections(content)
    said = {
        "verdict": True,
        "accuracy": sections["accuracy"] or "contrasts" in content.tables,
        "step_size": content.summary.step_size,
        "stability": sections["stability"] or "stability" in content.tables,
        "mechanisms": sections["mechanisms"],
        "samples": content.samples,
        "configurations": True,
        "provenance": True,
    }
    headings = {"step_size": HEADING}
    order = list(said)
    if content.single_rates:
        order.remove("step_size")
        order.insert(1, "step_size")
    return {name: headings.get(name, name.capitalize()) for name in order if said[name]}


def _environment(*, autoescape: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cppo_lab.analysis.page", "."),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(brief=brief, left_out=left_out, choice_in_words=choice_in_words)
    return environment


def _seen(value: Any) -> Any:
    """What a template prints, with invisible characters written out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _asset(name: str) -> str:
    return files("cppo_lab.analysis.page").joinpath(name).read_text(encoding="utf-8")
