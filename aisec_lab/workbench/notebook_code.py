"""The Python in a notebook's cells."""

import ast
import json
import re
from pathlib import Path

from aisec_lab.workbench.imports import Use
from aisec_lab.workbench.sources import Sources

LEGACY = "aisec-legacy"  # the kernel that has no aisec_lab
TIMERS = ("time", "timeit", "capture", "prun")  # magics that run what follows them
MAGIC = re.compile(r"^(?P<indent>\s*)(?P<target>[\w.,\s\[\]'\"]+=\s*)?[%!?]+(?P<name>\w*)(?P<rest>.*)$")
HELP = re.compile(r"^\s*[\w.*]+\?+\s*$")


def uses_of(sources: Sources, notebook: Path) -> tuple[Use, ...] | None:
    """The names of the package that a notebook uses; `None` where its kernel is the legacy one, which has no package.

    Args:
        sources: of the package, below the project's root.
        notebook: its path from there.

    Raises:
        FileNotFoundError: no such notebook.
        ValueError: it is no notebook, or a cell is no Python even without its magics and shell commands.
    """
    file = sources.root / notebook
    if not file.exists():
        raise FileNotFoundError(f"no notebook {notebook}, which a stage runs: mend its command in dvc.yaml")
    try:
        content = json.loads(file.read_bytes())
        cells = [(place, "".join(cell["source"])) for place, cell in enumerate(content["cells"]) if is_code(cell)]
        kernel = content["metadata"].get("kernelspec", {}).get("name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{notebook} is no notebook ({error!r}): write it with JupyterLab") from error
    if kernel == LEGACY:
        return None
    code = "\n".join(python_of(text, f"{notebook}, cell {place}") for place, text in cells)
    return sources.read(str(notebook), code.encode(), None).uses


def is_code(cell: dict[str, str]) -> bool:
    """Whether a cell of a notebook is run."""
    return cell["cell_type"] == "code"


def python_of(text: str, place: str) -> str:
    """A cell without what only IPython understands; line by line, and only if it is not all Python.

    Args:
        text: of the cell.
        place: of the cell, for the message of an error.
    """
    first, _, below = text.lstrip().partition("\n")
    if first.startswith("%%"):
        if first[2:].split(" ")[0] not in TIMERS:
            return ""  # a script in another process or language, or text
        text = below
    if not _is_python(text):
        text = "\n".join(_python_of_line(line) for line in text.split("\n"))
    if not _is_python(text):
        raise ValueError(f"{place} cannot be read as Python: mend it, or run the line in a cell of its own")
    return text


def _python_of_line(line: str) -> str:
    if HELP.match(line):
        return re.sub(r"\S.*", "pass", line)
    found = MAGIC.match(line)
    if not found:
        return line
    timed = found["rest"].strip() if found["name"] in TIMERS and "!" not in line else ""
    target = found["target"] or ""
    return found["indent"] + (timed if timed and _is_python(timed) else f"{target}None" if target else "pass")


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True
