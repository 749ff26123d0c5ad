"""The house stands as DESIGN.md draws it: imports go down, never up, never in a circle."""

import ast
from pathlib import Path

import pytest

from tests.clone import ROOT

FLOORS = ["data", "models", "attacks", "defenses", "privacy", "evaluation", "trust", "guard", "workbench"]
LIBRARIES = {"attacks", "defenses", "privacy"}
PIPELINE = {"hydra", "omegaconf", "dvc", "papermill", "nbconvert", "nbformat"}
FILES = sorted((ROOT / "aisec_lab").rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_imports_only_from_its_own_floor_and_below(file: Path) -> None:
    """Libraries know nothing of the pipeline; only the workbench does."""
    parts = file.relative_to(ROOT / "aisec_lab").parts
    floor = FLOORS.index(parts[0]) if len(parts) > 1 else -1
    for name in imports(file):
        package, *below = name.split(".")
        if package == "aisec_lab" and below and below[0] in FLOORS:
            assert FLOORS.index(below[0]) <= floor, f"{file} imports {name}, a floor above it"
        if parts[0] != "workbench":
            assert package not in PIPELINE, f"{file} imports {name}: only the workbench knows the pipeline"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_is_one_idea(file: Path) -> None:
    """Past 300 lines it has become two things; an __init__ defines nothing."""
    text = file.read_text()
    assert text.count("\n") <= 300
    if file.name == "__init__.py":
        kinds = (ast.FunctionDef, ast.ClassDef)
        assert not [node for node in ast.parse(text).body if isinstance(node, kinds)]
