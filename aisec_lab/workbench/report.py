"""Pages for people who never see code."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from omegaconf import DictConfig

from aisec_lab.core.files import written_beside
from aisec_lab.workbench.stages import SUMMARIES, Declared, declared, experiments, studies

TEMPLATES = Environment(
    loader=PackageLoader("aisec_lab.workbench", "."),
    autoescape=select_autoescape(["html", "j2"]),
    keep_trailing_newline=True,
)


def page_of(notebook: NotebookNode) -> str:
    """The HTML page of an executed notebook: prose, figures and tables, no code, nothing fetched from elsewhere."""
    exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    back = Markup('<nav><a href="index.html">All pages of this study</a></nav>\n')
    return _page(title_of(notebook), back + Markup(body))


def title_of(notebook: NotebookNode) -> str:
    """The notebook's first heading."""
    return str(notebook.cells[0].source.splitlines()[0].lstrip("# "))


def write_report(config: DictConfig, folder: Path) -> None:
    """Gather the pages of every notebook of the study, and write the index that leads to them.

    Args:
        config: the whole configuration.
        folder: made if absent; it holds all that a reader needs, so it can be sent as it is.

    Raises:
        ValueError: notebooks of two studies have the same name, and so would their pages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stages = declared()
    answers: list[dict[str, Any]] = []
    sections: list[dict[str, Any]] = []
    for study in studies(stages):
        cells = experiments(stages, study)
        summary = SUMMARIES / study / "summary.ipynb"
        answers.append(_take(summary, f"{study}.html", folder))
        sections.append({"title": heading_of(Path("notebooks") / study / "README.md"), "pages": _rows(cells, folder)})
    files = [page["file"] for section in sections for page in section["pages"]]
    if twice := {file for file in files if files.count(file) > 1}:
        raise ValueError(f"two notebooks share the page {sorted(twice)}: rename one of them")
    body = TEMPLATES.get_template("index.html.j2").render(
        answers=answers,
        sections=sections,
        experiments=f"{sum(len(section['pages']) for section in sections)} notebooks run, in {len(sections)} studies",
        data=json.loads((Path("data") / config.data.name / "card.json").read_text()),
        configuration=hashlib.sha256(Path("params.yaml").read_bytes()).hexdigest(),
    )
    with written_beside(folder / "index.html") as beside:
        beside.write_text(_page(f"aisec_lab: {config.study.name}, {config.data.name}", Markup(body)))


def heading_of(page: Path) -> str:
    """The first heading of a Markdown file."""
    return page.read_text().splitlines()[0].lstrip("# ")


def _page(title: str, body: Markup) -> str:
    return TEMPLATES.get_template("page.html.j2").render(title=title, body=body)


def _rows(cells: Sequence[Declared], folder: Path) -> list[dict[str, Any]]:
    """For each result its question (once for all cells of a notebook), which cell it is, and its page."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        axes = {axis: value for axis, value in cell.axes.items() if axis != "notebook"}
        file = "-".join([cell.notebook.stem, *axes.values()]) + ".html"
        row = _take(cell.page.with_suffix(".ipynb"), file, folder)
        if not rows or rows[-1]["title"] != row["title"]:
            row["question"] = row["title"]
        shown = {axis: value for axis, value in axes.items() if value != "none"}
        row["cell"] = ", ".join(f"seed {value}" if axis == "seed" else value for axis, value in shown.items())
        rows.append(row)
    return rows


def _take(executed: Path, file: str, folder: Path) -> dict[str, Any]:
    """Copy the page of an executed notebook into the report; its name there, and its title."""
    with written_beside(folder / file) as beside:
        beside.write_bytes(executed.with_suffix(".html").read_bytes())
    return {"file": file, "title": title_of(nbformat.read(executed, as_version=4))}
