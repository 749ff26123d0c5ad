"""The command `aisec` without its script: a module that is run does something, or there is no such way to run it."""

import ast
import subprocess
import sys

import pytest

from tests.clone import ROOT

SOURCES = sorted(file for folder in ("aisec_lab", "benchmarks", "tests") for file in (ROOT / folder).rglob("*.py"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This interpreter, in the project's root."""
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["aisec_lab", "aisec_lab.workbench.command"])
def test_the_package_and_the_module_are_the_command(module: str) -> None:
    """With its words, its one line of an error, and its exit code."""
    listed, wrong = run("-m", module, "datasets"), run("-m", module, "data", "digitz")
    assert listed.returncode == 0
    assert "digits" in listed.stdout
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("aisec: no dataset 'digitz' in the catalog")


def test_every_main_is_run_by_its_module() -> None:
    """`python -m` on a module that has a `main` and never calls it would do nothing, and report success."""
    silent = []
    for file in SOURCES:
        body = ast.parse(file.read_text()).body
        defined = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in body)
        started = any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in body)
        if defined and not started:
            silent.append(str(file.relative_to(ROOT)))
    assert not silent
