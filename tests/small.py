"""A little project with a stage of every shape that the lab's own pipeline has, each of a second or two."""

import re
import shutil
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager

from tests.clone import Clone, Project

SOURCE = Path(__file__).parent / "small_project"
SHARED = ("aisec_lab/", "configs/", ".dvc/", ".dvcignore", ".gitignore", "notebooks/robustness/train.ipynb")
CELL = re.compile(r"^# %% ?(\S*)\n", re.MULTILINE)
LEGACY = "aisec-legacy" in KernelSpecManager().find_kernel_specs()


def small_project(root: Path) -> Project:
    """Make the little project: this repository's package, configuration groups and one notebook, the rest its own.

    Args:
        root: an empty folder, or one that is made.

    Returns:
        The project, committed to a git of its own, with `params.yaml` composed and nothing run. Its stage `words`
        runs in the kernel aisec-legacy where there is one.
    """
    project = Clone(root, SHARED)
    shutil.copytree(SOURCE, root, dirs_exist_ok=True)
    notebooks = root / "notebooks/small"
    for source in notebooks.glob("*.py"):
        other = LEGACY and source.stem == "words"
        nbformat.write(notebook_of(source.read_text(), "aisec-legacy" if other else "aisec-lab"), as_notebook(source))
        source.unlink()
    (root / "notebooks/robustness/train.ipynb").rename(notebooks / "train.ipynb")
    (root / "notebooks/robustness").rmdir()
    ignored = (root / ".gitignore").read_text()
    (root / ".gitignore").write_text(ignored.replace("robustness", "small").replace("pareto", "levels"))
    project.aisec("compose")
    project.commit("the small pipeline")
    return project


def as_notebook(source: Path) -> Path:
    """Where a notebook that is written as `NAME.py` goes."""
    return source.with_suffix(".ipynb")


def notebook_of(text: str, kernel: str) -> nbformat.NotebookNode:
    """A notebook from a script whose cells begin with `# %%`, as editors know them.

    Args:
        text: the script; `# %% [markdown]` begins prose, each line a comment; `# %% parameters` a tagged cell.
        kernel: the name of the kernel that runs it.
    """
    _, *parts = CELL.split(text)
    cells = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        if kind == "[markdown]":
            prose = "\n".join(line.removeprefix("# ") for line in body.strip().splitlines())
            cells.append(nbformat.v4.new_markdown_cell(prose))
        else:
            cells.append(nbformat.v4.new_code_cell(body.strip(), metadata={"tags": [kind]} if kind else {}))
    for place, cell in enumerate(cells):
        cell.id = f"cell-{place}"
    spec = {"name": kernel, "display_name": kernel, "language": "python"}
    metadata = {"kernelspec": spec, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)
