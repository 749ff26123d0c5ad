"""Run a notebook headless, so that a second run leaves the same bytes."""

import difflib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from aisec_lab.core.files import written_beside
from aisec_lab.workbench.configuration import project_root
from aisec_lab.workbench.kernel import ENGINE
from aisec_lab.workbench.notebook_code import LEGACY
from aisec_lab.workbench.reads import reads_of
from aisec_lab.workbench.report import page_of
from aisec_lab.workbench.stage import enter_stage, in_stage, leave_stage

ADDRESS = re.compile(r"(?: at |\.)0x[0-9a-f]{6,}")
WIDGET = "application/vnd.jupyter.widget-view+json"


class NotebookError(RuntimeError):
    """A cell failed, or the kernel died; the message carries the traceback."""


def run_notebook(notebook: Path, out: Path, parameters: Mapping[str, Any]) -> None:
    """Execute a notebook and write it, with its page, under `out`.

    Args:
        notebook: the source, with one cell tagged `parameters`; it is not changed.
        out: folder that gets `NAME.ipynb`, without times and identifiers, and `NAME.html`, without code; passed to the
            notebook as `out`.
        parameters: values for names that the notebook declares.

    Raises:
        FileNotFoundError: no such notebook.
        ValueError: a parameter that the notebook does not declare, an output that would differ at each run, or a
            cell that ended in a ValueError: bad input, refused by the lab. Nothing is written. In a stage also one that
            read or ran what its key does not cover; then what the notebook left in `out` goes too.
        NotebookError: a cell failed otherwise, or the kernel died; `NAME.failed.ipynb` keeps what there is.
    """
    if not notebook.exists():
        raise FileNotFoundError(
            f"no notebook {notebook}: there are {sorted(map(str, Path('notebooks').rglob('*.ipynb')))}"
        )
    declared = papermill.inspect_notebook(str(notebook))
    for name in parameters:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            hint = f", did you mean {near[0]!r}" if near else ""
            raise ValueError(f"{notebook} declares no parameter {name!r}{hint}? It has {sorted(declared)}")

    kernel = nbformat.read(notebook, as_version=4).metadata.get("kernelspec", {}).get("name")
    keyed = in_stage() and kernel != LEGACY  # that one has no package of ours, and its stage no key
    if keyed:
        enter_stage(reads_of(notebook, parameters))

    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    failed = out / f"{notebook.stem}.failed.ipynb"
    imported: set[str] = set()
    try:
        executed = papermill.execute_notebook(
            str(notebook),
            str(failed),
            dict(parameters) | {"out": os.path.relpath(out, project_root())},  # the kernel starts at the root
            cwd=str(project_root()),
            stderr_file=sys.stderr,
            engine_name=ENGINE,
            imported=imported,
            shutdown_kernel="immediate",  # all is written: a polite end takes longer than the imports
        )
        strip_volatile(executed)
    except PapermillExecutionError as error:
        if error.ename == "ValueError":
            failed.unlink()
            if new and not any(out.iterdir()):
                out.rmdir()
            cell = error.exec_count - 1  # as JupyterLab counts: without the cell that papermill injects
            raise ValueError(f"{notebook}, cell {cell}: {error.evalue}") from error
        raise NotebookError(f"{error}\n{notebook} failed; what there is of it: {failed}") from error
    except DeadKernelError as error:
        raise NotebookError(f"the kernel of {notebook} died ({error}); what there is of it: {failed}") from error
    try:
        if keyed:
            leave_stage(imported)
    except ValueError:
        failed.unlink()
        if new:
            shutil.rmtree(out)  # what the notebook saved is no result of this stage
        raise
    with written_beside(out / f"{notebook.stem}.html") as beside:
        beside.write_text(page_of(executed))
    with written_beside(out / f"{notebook.stem}.ipynb") as beside:
        nbformat.write(executed, beside)
    failed.unlink()


def strip_volatile(notebook: NotebookNode) -> None:
    """Take out of an executed notebook all that differs at each run.

    Times, random identifiers, widgets and the text on stderr (progress, warnings with paths) are removed. A memory
    address in an output is refused with a ValueError.
    """
    notebook.metadata = {name: notebook.metadata[name] for name in ("kernelspec", "language_info")}
    for place, cell in enumerate(notebook.cells):
        cell.id = f"cell-{place}"
        cell.metadata = {name: cell.metadata[name] for name in ("tags",) if name in cell.metadata}
        if cell.cell_type != "code":
            continue
        cell.outputs = [
            output for output in cell.outputs if output.get("name") != "stderr" and WIDGET not in output.get("data", {})
        ]
        found = ADDRESS.search(json.dumps(cell.outputs))
        if found:
            raise ValueError(f"cell {place} shows a memory address ({found[0].strip()}): end its last line with `;`")
