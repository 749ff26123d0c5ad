"""Pipelines of seconds, in a project of their own, for the tests of whoever runs pipelines."""

import os
from collections.abc import Iterable
from pathlib import Path

import nbformat
import yaml
from dvc.repo import Repo

from aisec_lab.core.files import sha256_of, write_json
from aisec_lab.workbench.stage import CODE, REACH
from tests.clone import ROOT, Project

PRELOAD = "ipykernel.kernelapp ipykernel.ipkernel papermill nbconvert dvc.repo psutil"  # no torch: for the impatient

DRAW = (
    "# Draw",
    'out = "scratch"\nseed = 0\nseconds = 0.0',
    "import time\nfrom pathlib import Path\n\nimport matplotlib.pyplot as plt\nimport numpy as np\n"
    "import pandas as pd\nimport torch\nfrom tqdm.auto import tqdm",
    "x = torch.randn(20, generator=torch.Generator().manual_seed(seed))\nfor _ in tqdm(range(3)):\n    pass\n"
    "pd.DataFrame({'x': x.numpy()}).describe()",
    "fig, ax = plt.subplots()\nax.plot(np.cumsum(x.numpy()))\nax.set_title(f'{plt.rcParams[\"figure.dpi\"]}');",
    "plt.hist(x.numpy())\nprint(plt.get_backend(), torch.get_num_threads())",
    "fig",
    "time.sleep(seconds)\nPath(out, 'rows.txt').write_text(f'{x.sum():.6f}\\n')\nprint(sorted(Path('data').iterdir()))",
)
COUNT = (
    "# Count",
    'out = "scratch"\nsource = ""\nseconds = 0.0',
    "import time\nfrom pathlib import Path",
    "time.sleep(seconds)\nlines = Path(source, 'rows.txt').read_text().splitlines()",
    "rows = Path(out, 'rows.txt')\nrows.write_text('half')\ntime.sleep(seconds)\n"
    "rows.write_text(f'{len(lines)}\\n')\nlines",
)
FAIL = ("# Fail", 'out = "scratch"', "1 / 0")


class Pipeline(Project):
    """A project whose dvc.yaml a test writes, run with the package of this repository.

    Args:
        root: where it lies.
        more: variables of the environment of what runs there.
    """

    def __init__(self, root: Path, **more: str) -> None:
        super().__init__(root)
        self.more = more

    @classmethod
    def new(cls, root: Path) -> "Pipeline":
        """One without stages, in a folder that is made."""
        project = cls(root)
        root.mkdir()
        project.git("init", "-q")
        project.git("config", "user.name", "test")
        project.git("config", "user.email", "test@localhost")
        Repo.init(str(root)).close()
        (root / ".dvc/config").write_text(
            "[core]\n    analytics = false\n    autostage = true\n    check_update = false\n"
        )
        (root / ".gitignore").write_text("*.failed.ipynb\n/results/**\n")
        (root / "dvc.yaml").write_text("stages: {}\n")
        return project

    @property
    def environment(self) -> dict[str, str]:
        """As of any project, with the package under test."""
        return super().environment | {"PYTHONPATH": f"{ROOT}{os.pathsep}{self.root}"} | self.more

    def copy(self, root: Path, **more: str) -> "Pipeline":
        """The same in another folder, with further variables in the environment."""
        super().copy(root)
        return Pipeline(root, **more)

    def write(self, name: str, stages: dict[str, object], **more: object) -> None:
        """Write a dvc.yaml."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({**more, "stages": stages}, sort_keys=False))

    def notebook(self, name: str, title: str, parameters: str, *cells: str, kernel: str = "aisec-lab") -> None:
        """Write a notebook, the same at each call."""
        nodes = [nbformat.v4.new_markdown_cell(title)]
        nodes += [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
        nodes += [nbformat.v4.new_code_cell(cell) for cell in cells]
        for place, node in enumerate(nodes):
            node.id = f"cell-{place}"
        spec = {"name": kernel, "display_name": kernel, "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=nodes, metadata={"kernelspec": spec})
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)

    def keys(self, study: str, *names: str) -> None:
        """Write the keys of stages that reach no code of the package, as stage `code` would."""
        write_json(self.root / CODE, {study: {name: {"code": "0" * 12} for name in names}})
        write_json(self.root / REACH, {"modules": {}, "stages": {f"{study}.{name}": [] for name in names}})

    def files(self) -> dict[str, str]:
        """The sha256 of every file but those of git, and of what DVC remembers of this machine."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        names = {str(path.relative_to(self.root)): path for path in found}
        ours = {name: path for name, path in names.items() if not name.startswith((".git/", ".dvc/tmp/"))}
        return {name: sha256_of(path) for name, path in sorted(ours.items())}

    def staged(self) -> str:
        """What git's index holds."""
        return self.git("ls-files", "--stage")


def notebooks(root: Path, seconds: float = 0.0) -> Pipeline:
    """A project with one stage of each kind: shell commands, a matrix of notebooks, one that reads what they leave.

    Args:
        root: an empty folder.
        seconds: for which the notebooks sleep, once or twice.
    """
    project = Pipeline.new(root)
    project.write(
        "dvc.yaml",
        {
            "data": {"cmd": "mkdir -p data && echo hello > data/a.txt", "outs": ["data"]},
            "upper": {
                "cmd": ["tr a-z A-Z < data/a.txt > upper.txt", "echo 'and \"more\"' >> upper.txt"],
                "deps": ["data"],
                "outs": [{"upper.txt": {"cache": False}}],
            },
            "report": {
                "cmd": "cat results/demo/draw-1/rows.txt results/demo/count/rows.txt upper.txt > report.txt",
                "deps": ["results/demo/count", "results/demo/draw-1", "upper.txt"],
                "outs": ["report.txt"],
            },
        },
    )
    (root / "params.yaml").write_text("seeds: [0, 1]\n")
    draw = {
        "wdir": "../..",
        "matrix": {"seed": "${seeds}"},
        "cmd": "aisec run notebooks/demo/draw.ipynb results/demo/draw-${key}\n"
        f"-p seed=${{item.seed}} -p seconds={seconds}",
        "params": [{"params.yaml": ["seeds"]}],
        "deps": ["notebooks/demo/draw.ipynb", "data"],
        "outs": ["results/demo/draw-${key}"],
    }
    draw["cmd"] = " ".join(str(draw["cmd"]).split())
    count = {
        "wdir": "../..",
        "cmd": f"aisec run notebooks/demo/count.ipynb results/demo/count -p source=results/demo/draw-1 "
        f'-p "seconds={seconds}"',
        "deps": ["notebooks/demo/count.ipynb", "results/demo/draw-1"],
        "outs": ["results/demo/count"],
    }
    project.write("notebooks/demo/dvc.yaml", {"draw": draw, "count": count}, vars=["../../params.yaml"])
    project.notebook("notebooks/demo/draw.ipynb", *DRAW)
    project.notebook("notebooks/demo/count.ipynb", *COUNT)
    project.keys("demo", "draw@0", "draw@1", "count")
    project.commit("pipeline")
    return project


def shells(root: Path, stages: Iterable[tuple[str, str]]) -> Pipeline:
    """A project whose stages are shell commands: each writes its name and what it reads.

    Args:
        root: an empty folder.
        stages: names, each with the names of those that it reads, blanks between.
    """
    project = Pipeline.new(root)
    declared = {}
    for name, sources in stages:
        reads = [f"{source}.txt" for source in sources.split()]
        declared[name] = {
            "cmd": f"(echo {name}; cat /dev/null {' '.join(reads)} {name}.in) > {name}.txt",
            "deps": [*reads, f"{name}.in"],
            "outs": [f"{name}.txt"],
        }
        (root / f"{name}.in").write_text(f"in of {name}\n")
    project.write("dvc.yaml", declared)
    project.commit("pipeline")
    return project
