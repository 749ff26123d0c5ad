"""Running notebooks headless."""

import json
import re
from pathlib import Path

import nbformat
import pytest

from aisec_lab.workbench.execute import strip_volatile
from tests.clone import Clone

KERNEL = {
    "kernelspec": {"name": "aisec-lab", "display_name": "aisec-lab", "language": "python"},
    "language_info": {"name": "python"},
}


def notebook(path: Path, *cells: str) -> Path:
    """A notebook with a parameters cell and the given code."""
    first = nbformat.v4.new_code_cell('colour = "red"\nout = "scratch"', metadata={"tags": ["parameters"]})
    code = [nbformat.v4.new_code_cell(cell) for cell in cells]
    title = nbformat.v4.new_markdown_cell("# A title")
    nbformat.write(nbformat.v4.new_notebook(cells=[title, first, *code], metadata=KERNEL), path)
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("project"))


def test_two_runs_leave_the_same_bytes_and_no_code(project: Clone) -> None:
    """Progress bars, warnings and random identifiers are gone; the figure and what was printed are there."""
    source = notebook(
        project.root / "good.ipynb",
        "import sys, warnings\nfrom tqdm import tqdm\nfrom tqdm.notebook import tqdm as widget",
        "for _ in tqdm(range(3)):\n    pass\nwarnings.warn('look out')\nprint(colour, out)",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2]);",
        "open(out + '/saved.txt', 'w').write(colour);",
    )
    seen = []
    words = ("run", source.name, "results/x", "-p", "colour=blue")
    for run in (project.aisec, lambda *words: project.run("aisec", *words)):  # here, and in a process of its own
        output = run(*words)
        assert "look out" in output, "what a cell says on stderr is for the person who watches"
        seen.append([(project.root / "results/x" / f"good.{kind}").read_bytes() for kind in ("ipynb", "html")])
    assert seen[0] == seen[1]
    text, page = seen[0][0].decode(), seen[0][1].decode()
    assert "blue results/x" in text
    assert "look out" not in text.replace("warnings.warn('look out')", "")
    assert "data:image/png;base64" in page
    assert "plt.plot" not in page
    assert "https://" not in page, "a page fetches nothing"
    assert (project.root / "results/x/saved.txt").read_text() == "blue"
    assert sorted(path.name for path in (project.root / "results/x").iterdir()) == [
        "good.html",
        "good.ipynb",
        "saved.txt",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.ipynb", "results/y"], "no notebook nowhere.ipynb"),
        (["bad.ipynb", "results/y", "-p", "color=blue"], "no parameter 'color', did you mean 'colour'?"),
        (["bad.ipynb", "results/y", "-p", "colour"], "write KEY=VALUE"),
        (["bad.ipynb", "results/y", "-p", "colour=["], "no YAML value in one of"),
        (["bad.ipynb", "results/y"], "cell 2: pixels must lie in"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_changes_nothing(
    project: Clone, arguments: list[str], message: str
) -> None:
    """An unknown notebook or parameter, and a cell in which the lab itself refused what it was given."""
    notebook(project.root / "bad.ipynb", "raise ValueError('pixels must lie in [0, 1], got [-2, 2]')")
    output = project.aisec("run", *arguments, code=2)
    refusals = [line for line in output.splitlines() if line.startswith("aisec: ")]
    assert len(refusals) == 1
    assert message in refusals[0]
    assert not (project.root / "results/y").exists()


@pytest.mark.parametrize(
    ("cell", "message"),
    [("1 / 0", "ZeroDivisionError"), ("import os\nos._exit(9)", "the kernel of .* died")],
    ids=["error", "dead kernel"],
)
def test_a_failing_cell_leaves_its_traceback_and_the_partial_notebook(project: Clone, cell: str, message: str) -> None:
    """Exit code 1; the former result comes back with what the message names."""
    source = notebook(project.root / "fails.ipynb", "print('before')", cell)
    output = project.aisec("run", source.name, "results/z", code=1)
    assert re.search(message, output)
    assert "dvc checkout" in output
    assert [path.name for path in (project.root / "results/z").iterdir()] == ["fails.failed.ipynb"]


def test_a_memory_address_in_an_output_is_refused() -> None:
    """It would differ at every run; the message says how to avoid it."""
    cell = nbformat.v4.new_code_cell("axes")
    cell.outputs = [
        nbformat.v4.new_output("execute_result", {"text/plain": "<Axes at 0x7f3a2c1d5e80>"}, execution_count=1)
    ]
    executed = nbformat.v4.new_notebook(cells=[cell], metadata=KERNEL)
    with pytest.raises(ValueError, match="end its last line with `;`"):
        strip_volatile(executed)


def test_scrubbing_keeps_what_a_reader_needs() -> None:
    """Tags and outputs stay; widgets, stderr, timing and identifiers go."""
    cell = nbformat.v4.new_code_cell("x", metadata={"tags": ["parameters"], "papermill": {"duration": 1.5}})
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="50 %"),
        nbformat.v4.new_output("stream", name="stdout", text="kept"),
        nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "a1"}}),
    ]
    metadata = KERNEL | {"papermill": {"start_time": "now"}, "widgets": {}}
    executed = nbformat.v4.new_notebook(cells=[cell], metadata=metadata)
    strip_volatile(executed)
    assert json.loads(json.dumps(executed.cells[0])) == {
        "cell_type": "code",
        "execution_count": None,
        "id": "cell-0",
        "metadata": {"tags": ["parameters"]},
        "outputs": [{"name": "stdout", "output_type": "stream", "text": "kept"}],
        "source": "x",
    }
    assert set(executed.metadata) == {"kernelspec", "language_info"}
