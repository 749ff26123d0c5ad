"""What stands around the package: the citation, the workflow, the hooks, the shape of notebooks."""

import ast
import json
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from aisec_lab.workbench.notebook_code import is_code, python_of
from tests.clone import ROOT, Clone

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version() -> None:
    """Version, licence and authors are the package's."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title"} <= set(citation)
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]


def test_the_workflow_runs_what_the_readme_says() -> None:
    """`make test`, under the Python that the package asks for; `on` is true in YAML 1.1."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    assert set(workflow[True]) == {"push", "pull_request"}
    steps = workflow["jobs"]["test"]["steps"]
    assert steps[-1] == {"run": "make test"}
    (python,) = (step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    assert PROJECT["requires-python"].startswith(f">={python},")


def test_the_hooks_mend_what_make_test_would_refuse(clone: Clone) -> None:
    """A badly formatted file, and a notebook with outputs; the second commit of the same passes."""
    (clone.root / ".venv").symlink_to(sys.prefix)
    notebook = clone.root / "notebooks/robustness/train.ipynb"
    content = json.loads(notebook.read_text())
    code = next(cell for cell in content["cells"] if cell["cell_type"] == "code")
    code["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["a result"]}]
    notebook.write_text(json.dumps(content))
    (clone.root / "aisec_lab/crooked.py").write_text('"""Crooked."""\nimport os\nx = [1,2]\n')
    for code in (1, 0):
        clone.git("add", "notebooks/robustness/train.ipynb", "aisec_lab/crooked.py")
        output = clone.run("env", f"PRE_COMMIT_HOME={clone.root}/.git/hooks-home", "pre-commit", "run", code=code)
        assert output.count("Failed") == (3 if code else 0), output
    assert "a result" not in notebook.read_text()
    assert (clone.root / "aisec_lab/crooked.py").read_text() == '"""Crooked."""\n\nx = [1, 2]\n'
    clone.run("nbstripout", "--verify", "--keep-id", "notebooks/robustness/train.ipynb")


@pytest.mark.parametrize(("length", "code"), [(100, 0), (101, 1)])
def test_a_hook_refuses_a_longer_subject(clone: Clone, length: int, code: int) -> None:
    """Of the subject only: the body may have longer lines."""
    message = clone.root / "message"
    message.write_text(f"{'x' * length}\n\n{'y' * 150}\n")
    words = ("pre-commit", "run", "--hook-stage", "commit-msg", "--commit-msg-filename", str(message))
    clone.run("env", f"PRE_COMMIT_HOME={clone.root}/.git/hooks-home", *words, code=code)


def test_a_hook_holds_the_parameters_to_their_configuration(clone: Clone) -> None:
    """Whichever of the two is committed."""
    (clone.root / ".venv").symlink_to(sys.prefix)
    words = ("env", f"PRE_COMMIT_HOME={clone.root}/.git/hooks-home", "pre-commit", "run", "compose", "--files")
    clone.run(*words, "params.yaml")
    (clone.root / "configs/ball/linf.yaml").write_text("_target_: aisec_lab.attacks.Linf\neps: 0.14\n")
    assert "aisec compose" in clone.run(*words, "configs/ball/linf.yaml", code=1)


@pytest.mark.parametrize("notebook", sorted(ROOT.glob("notebooks/*/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_defines_little(notebook: Path) -> None:
    """Functions of at most ten lines; what is longer, and every class, belongs into the package."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        for node in ast.walk(ast.parse(python_of(cell.source, str(notebook)))) if is_code(cell) else ():
            assert not isinstance(node, ast.ClassDef), node.name
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 10, f"{node.name} is too long for a notebook"


def test_a_renamed_claim_is_still_a_claim() -> None:
    """`renamed_claims.json` leads from the key of a claim before the names of papers came in to the one it has now."""
    renamed = json.loads((ROOT / "tests/renamed_claims.json").read_text())
    claims = json.loads((ROOT / "results/metrics.json").read_text())["claims"]
    assert set(renamed.values()) <= set(claims)
    assert not set(renamed) & set(claims)
    assert len(set(renamed.values())) == len(renamed)


def test_no_file_of_the_package_is_longer_than_a_reader_holds() -> None:
    """250 lines at most, and at most 115 in the median."""
    lengths = sorted(len(path.read_text().splitlines()) for path in (ROOT / "aisec_lab").rglob("*.py"))
    assert lengths[-1] <= 250
    assert lengths[len(lengths) // 2] <= 115
