"""What the pipeline declares: its stages, as DVC reads them from the `dvc.yaml` of the project and of each study."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

from aisec_lab.workbench.configuration import project_root
from aisec_lab.workbench.reads import reads_of

if TYPE_CHECKING:
    from dvc.repo import Repo

RESULTS = Path("results")
SUMMARIES = RESULTS / "summary"
TABLES = RESULTS / "tables"
ROOT_STUDY = "root"  # the stages of the project's own dvc.yaml
RUN = ("aisec", "run")
COMMAND_READS = {  # what the commands of stages without a notebook may see of params.yaml
    "aisec collect robustness": ("ball", "curve", "data", "model", "study"),
    "aisec table": ("data",),
    "aisec report": ("data", "study"),
}


class Declared(NamedTuple):
    """A stage, one cell of its matrix.

    Args:
        study: the folder under `notebooks/` whose `dvc.yaml` declares it, or `root`.
        name: as in that file, with its cell, such as `train@trades-0`.
        cmd: its command, on one line.
        parameters: names in `params.yaml` that its notebook reads; DVC tracks a hash of each through `code.json`.
        axes: from the axes of its matrix to the values of this cell, such as `{"objective": "trades", "seed": "0"}`.
        deps, outs: paths from the project's root.
    """

    study: str
    name: str
    cmd: str
    parameters: tuple[str, ...]
    axes: dict[str, str]
    deps: tuple[str, ...]
    outs: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its place in `code.json`, such as `robustness.train@trades-0`."""
        return f"{self.study}.{self.name}"

    @property
    def address(self) -> str:
        """As `dvc repro` takes it, such as `notebooks/robustness/dvc.yaml:train@trades-0`."""
        return self.name if self.study == ROOT_STUDY else f"notebooks/{self.study}/dvc.yaml:{self.name}"

    @property
    def runs_notebook(self) -> bool:
        """Whether its command is `aisec run NOTEBOOK FOLDER …`."""
        return tuple(self.cmd.split()[:2]) == RUN

    @property
    def notebook(self) -> Path:
        """The notebook that it runs; of a stage that `runs_notebook`."""
        return Path(shlex.split(self.cmd)[2])

    @property
    def folder(self) -> Path:
        """Where that notebook leaves its results."""
        return Path(shlex.split(self.cmd)[3])

    @property
    def page(self) -> Path:
        """The page of that notebook."""
        return self.folder / f"{self.notebook.stem}.html"


def declared(repo: "Repo | None" = None) -> list[Declared]:
    """Every stage of the project, in the order of the files.

    Args:
        repo: DVC's, of this project; opened where none is given.
    """
    from dvc.repo import Repo  # takes half a second, which a run by hand does not need

    repo = repo or Repo(str(project_root()))
    stages = [stage for stage in repo.index.stages if stage.cmd]
    files = {stage.path: stage.dvcfile for stage in stages}
    definitions = {path: file.contents["stages"] for path, file in files.items()}  # DVC reads it at each look
    return [_declared(stage, definitions[stage.path]) for stage in stages]


def pipeline_files() -> list[Path]:
    """The `dvc.yaml` of the project and of each study."""
    root = project_root()
    return [root / "dvc.yaml", *sorted(root.glob("notebooks/*/dvc.yaml"))]


def key_of(addressing: str) -> str:
    """The key in `code.json` of a stage as DVC addresses it, such as `notebooks/privacy/dvc.yaml:train@e1`."""
    file, _, name = addressing.rpartition(":")
    study = Path(file).parent.name if file else ""
    return f"{study or ROOT_STUDY}.{name}"


def studies(stages: Sequence[Declared]) -> list[str]:
    """The names of the studies, in the order in which they are read: that of stage `collect`."""
    return [stage.axes["study"] for stage in stages if stage.name.startswith("collect@")]


def experiments(stages: Sequence[Declared], study: str) -> list[Declared]:
    """The stages of a study that run a notebook, but for its summary, in the order of its `dvc.yaml`."""
    return [
        stage for stage in stages if stage.study == study and stage.runs_notebook and stage.folder != SUMMARIES / study
    ]


def _declared(stage: object, definitions: Mapping[str, Any]) -> Declared:
    study, _, name = key_of(stage.addressing).partition(".")  # type: ignore[attr-defined]
    lines = stage.cmd if isinstance(stage.cmd, list) else [stage.cmd]  # type: ignore[attr-defined]
    cmd = " && ".join(" ".join(line.split()) for line in lines)
    return Declared(
        study=study,
        name=name,
        cmd=cmd,
        parameters=_parameters(shlex.split(cmd)),
        axes=_axes(stage.name, definitions),  # type: ignore[attr-defined]
        deps=tuple(sorted(_place(dep) for dep in stage.deps)),  # type: ignore[attr-defined]
        outs=tuple(sorted(_place(out) for out in stage.outs)),  # type: ignore[attr-defined]
    )


def _place(entry: object) -> str:
    return str(Path(entry.fs_path).relative_to(entry.repo.root_dir))  # type: ignore[attr-defined]


def _parameters(words: Sequence[str]) -> tuple[str, ...]:
    """What a notebook reads, or a command of the workbench."""
    if tuple(words[:2]) == RUN:
        assignments = [words[place + 1] for place, word in enumerate(words) if word == "-p"]
        passed = OmegaConf.to_container(OmegaConf.from_dotlist(assignments))
        return reads_of(project_root() / words[2], passed)  # type: ignore[arg-type]
    return COMMAND_READS.get(" ".join(words[:3]), COMMAND_READS.get(" ".join(words[:2]), ()))


def _axes(name: str, definitions: Mapping[str, Any]) -> dict[str, str]:
    """DVC joins the values of a cell by `-`, which no value on an axis contains; a `foreach` is one over notebooks."""
    group, _, cell = name.partition("@")
    definition = definitions[group]
    if not cell:
        return {}
    if "foreach" in definition:
        return {"notebook": cell}
    return dict(zip(definition["matrix"], cell.split("-"), strict=True))
