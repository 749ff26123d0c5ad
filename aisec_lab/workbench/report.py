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

from aisec_lab.files import written_beside
from aisec_lab.workbench.grid import (
    RESULTS,
    Closer,
    evaluations,
    evasions,
    extractions,
    poisonings,
    privacies,
    trainings,
    verdicts,
)

TEMPLATES = Environment(
    loader=PackageLoader("aisec_lab.workbench", "."),
    autoescape=select_autoescape(["html", "j2"]),
    keep_trailing_newline=True,
)
ANSWERS = (
    "robustness_vs_accuracy",
    "evasion",
    "poisoning",
    "privacy",
    "extraction",
)  # notebooks of synthesis, in the order in which they are read


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
    """
    folder.mkdir(parents=True, exist_ok=True)
    answers = [{"file": _take(RESULTS / name, name, folder), "title": _title(RESULTS / name, name)} for name in ANSWERS]
    sections = [
        _section("Training", ("trained with", "seed"), [(cell, "train", cell) for cell in trainings(config)], folder),
        _section(
            "Attacks",
            ("trained with", "defense", "attack", "seed"),
            [(cell, "evaluate", cell) for cell in evaluations(config)],
            folder,
        ),
        _section(
            "Can the numbers be believed?",
            ("trained with", "defense", "seed"),
            [(cell, "diagnose", cell.cell) for cell in verdicts(config)],
            folder,
        ),
        _section(
            "A closer look",
            ("question", "model"),
            [
                (cell, cell.notebook, (_title(cell.folder, cell.notebook), cell.cell[0] if cell.cell else "its own"))
                for cell in [*evasions(config), Closer("svm")]  # what svm_ours looks at
            ],
            folder,
        ),
        _section(
            "Poisoned data",
            ("question", "attack", "seed"),
            [
                (cell, cell.notebook, (_title(cell.folder, cell.notebook), *(cell.cell or ("its own", "0"))))
                for cell in [*poisonings(config), Closer("poison_svm")]
            ],
            folder,
        ),
        _section(
            "Privacy",
            ("question", "promise"),
            [
                (cell, cell.notebook, (_title(cell.folder, cell.notebook), cell.cell[0] if cell.cell else "its own"))
                for cell in [*privacies(config), Closer("private_keras")]
            ],
            folder,
        ),
        _section(
            "Stolen models",
            ("question",),
            [(cell, cell.notebook, (_title(cell.folder, cell.notebook),)) for cell in extractions()],
            folder,
        ),
    ]
    body = TEMPLATES.get_template("index.html.j2").render(
        answers=answers,
        sections=sections,
        experiments=f"{len(sections[0]['pages'])} models trained, {len(sections[1]['pages'])} attacks run on them",
        data=json.loads((Path("data") / config.data.name / "card.json").read_text()),
        configuration=hashlib.sha256(Path("params.yaml").read_bytes()).hexdigest(),
    )
    with written_beside(folder / "index.html") as beside:
        beside.write_text(_page(f"aisec_lab: {config.study.name}, {config.data.name}", Markup(body)))


def _page(title: str, body: Markup) -> str:
    return TEMPLATES.get_template("page.html.j2").render(title=title, body=body)


def _section(
    title: str, columns: Sequence[str], cells: Sequence[tuple[Any, str, Sequence[Any]]], folder: Path
) -> dict[str, Any]:
    """A table of pages: for each cell, the name of its notebook and what stands in its columns."""
    pages = [{"values": values, "file": _take(cell.folder, name, folder)} for cell, name, values in cells]
    return {"title": title, "columns": columns, "pages": pages}


def _take(source: Path, name: str, folder: Path) -> str:
    """Copy a page into the report under the name of its cell."""
    file = f"{name}.html" if source.name == name else f"{name}-{source.name}.html"
    with written_beside(folder / file) as beside:
        beside.write_bytes((source / f"{name}.html").read_bytes())
    return file


def _title(source: Path, name: str) -> str:
    return title_of(nbformat.read(source / f"{name}.ipynb", as_version=4))
