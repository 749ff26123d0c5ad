"""What a reader of the report, and a user of JupyterLab, sees in a real browser."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from urllib.request import urlopen

import nbformat
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from aisec_lab.workbench.stages import SUMMARIES, declared, experiments, studies
from tests.clone import Project

CHROMIUM = shutil.which("chromium")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.xdist_group("study"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` on PATH"),
]
NO_FIGURE = {"diagnose", "tf_privacy"}  # notebooks that show tables only
CURVES = {  # figures of two cells of one notebook
    "evaluate-standard-none-apgd_ce-0.html": 2,  # the security curve, and what the attack does to a few inputs
    "evaluate-standard-none-square-0.html": 1,  # attacked at one budget only: no curve
}


def executed(study: Project) -> dict[str, Path]:
    """From each page of the report, but its index, to the executed notebook that it shows."""
    with chdir(study.root):
        stages = declared()
        cells = [cell for name in studies(stages) for cell in experiments(stages, name)]
    pages = {f"{name}.html": SUMMARIES / name / "summary.ipynb" for name in studies(stages)}
    for cell in cells:
        axes = [value for axis, value in cell.axes.items() if axis != "notebook"]
        pages["-".join([cell.notebook.stem, *axes]) + ".html"] = cell.page.with_suffix(".ipynb")
    return {page: study.root / notebook for page, notebook in pages.items()}


def figures_of(notebook: Path) -> int:
    """How many figures its cells have left; none is only right for NO_FIGURE."""
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    found = sum("image/png" in output.get("data", {}) for output in outputs)
    assert bool(found) == (notebook.stem not in NO_FIGURE), notebook
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def test_the_report_can_be_read_from_disk(study: Project, browser: Browser) -> None:
    """Every page is reached from the index, shows its figures and no code, and asks nothing of any other machine."""
    figures = {"index.html": 0} | {page: figures_of(notebook) for page, notebook in executed(study).items()}
    assert figures.items() >= CURVES.items()
    page, requests = browser.new_page(), set()
    page.on("request", lambda request: requests.add(request.url))
    index = (study.root / "reports/index.html").as_uri()
    page.goto(index)
    links = page.locator("a[href]").evaluate_all("links => links.map(link => link.href)")
    assert {Path(link).name for link in links} == figures.keys() - {"index.html"}
    for link in [index, *links]:
        page.goto(link)
        assert page.title()
        text = page.locator("body").inner_text()
        assert not re.search(r"^(import|from|cfg =)\b", text, re.MULTILINE), "code"
        widths = page.locator("img").evaluate_all("images => images.map(image => image.naturalWidth)")
        assert len(widths) == figures[Path(link).name], link
        assert all(width > 500 for width in widths), link
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{link} is cut off at the right"
        for target, place in page.locator("a[href]").evaluate_all(
            "all => all.map(a => [a.href.split('#')[0], a.hash])"
        ):
            assert Path(target.removeprefix("file://")).is_file(), target
            assert not place or page.evaluate("h => document.getElementById(decodeURIComponent(h.slice(1)))", place), (
                place
            )
    assert all(url.startswith(("file://", "data:")) for url in requests), requests


@pytest.fixture
def lab(study: Project, tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab in the study's folder, with settings of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "RUNTIME", "DATA")}
    command = ["jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=secret"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--ServerApp.port_retries=0"],
            cwd=study.root,
            env=study.environment | own,
            stdout=log,
            stderr=log,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            while True:
                assert server.poll() is None, (tmp_path / "log").read_text()
                try:
                    urlopen(f"{address}/api", timeout=60).close()
                    break
                except OSError:  # not there yet
                    time.sleep(0.2)
            yield address
        finally:
            server.terminate()
            server.wait()
            study.git("checkout", "-q", "notebooks")  # JupyterLab saves what it has run


def test_a_notebook_runs_in_jupyterlab(study: Project, browser: Browser, lab: str) -> None:
    """By hand, from the menu, on the data that was prepared: the figure appears, and the results are in scratch/."""
    page = browser.new_page()
    page.goto(f"{lab}/lab/tree/notebooks/robustness/train.ipynb?token=secret")
    page.get_by_role("button", name="aisec-lab | Idle").wait_for(timeout=120_000)  # asked earlier, it shows a dialog
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(page.locator(".jp-OutputArea-output img").first).to_be_visible(timeout=120_000)
    expect(page.locator(".jp-OutputArea-output").get_by_text("test inputs")).to_be_visible(timeout=60_000)
    expect(page.locator("[data-mime-type='application/vnd.jupyter.error']")).to_have_count(0)
    assert json.loads((study.root / "scratch/train/metrics.json").read_text())["clean_accuracy"] > 0
    assert study.git("status", "--porcelain", "results", "models") == ""
