"""What the pipeline declares: its stages, as DVC reads them from the `dvc.yaml` of the project and of each study."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aisec_lab.workbench.configure import project_root

if TYPE_CHECKING:
    from dvc.repo import Repo

ROOT_STUDY = "root"  # the stages of the project's own dvc.yaml
RUN = ("aisec", "run")


class Declared(NamedTuple):
    """A stage, one cell of its matrix.

    Args:
        study: the folder under `notebooks/` whose `dvc.yaml` declares it, or `root`.
        name: as in that file, with its cell, such as `train@trades-0`.
        cmd: its command, on one line.
        parameters: names in `params.yaml` that it may read; DVC tracks a hash of each through `code.json`.
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
    def notebook(self) -> Path | None:
        """The notebook that it runs, if it runs one."""
        words = shlex.split(self.cmd)
        return Path(words[2]) if tuple(words[:2]) == RUN else None

    @property
    def folder(self) -> Path | None:
        """Where its notebook leaves its results."""
        words = shlex.split(self.cmd)
        return Path(words[3]) if tuple(words[:2]) == RUN else None


def declared(repo: "Repo | None" = None) -> list[Declared]:
    """Every stage of the project, in the order of the files.

    Args:
        repo: DVC's, of this project; opened where none is given.
    """
    from dvc.repo import Repo  # half a second that a run by hand need not pay

    repo = repo or Repo(str(project_root()))
    return [_declared(stage) for stage in repo.index.stages if stage.cmd]


def key_of(addressing: str) -> str:
    """The key in `code.json` of a stage as DVC addresses it, such as `notebooks/privacy/dvc.yaml:train@e1`."""
    file, _, name = addressing.rpartition(":")
    study = Path(file).parent.name if file else ""
    return f"{study or ROOT_STUDY}.{name}"


def of_study(stages: Sequence[Declared], study: str) -> list[Declared]:
    """The stages that a study declares."""
    return [stage for stage in stages if stage.study == study]


def _declared(stage: object) -> Declared:
    study, _, name = key_of(stage.addressing).partition(".")  # type: ignore[attr-defined]
    return Declared(
        study=study,
        name=name,
        cmd=" ".join(stage.cmd.split()),  # type: ignore[attr-defined]
        parameters=tuple(sorted(str((stage.meta or {}).get("params", "")).split())),  # type: ignore[attr-defined]
        axes=_axes(stage),
        deps=tuple(sorted(_place(dep) for dep in stage.deps)),  # type: ignore[attr-defined]
        outs=tuple(sorted(_place(out) for out in stage.outs)),  # type: ignore[attr-defined]
    )


def _place(entry: object) -> str:
    return str(Path(entry.fs_path).relative_to(entry.repo.root_dir))  # type: ignore[attr-defined]


def _axes(stage: object) -> dict[str, str]:
    """DVC joins the values of a cell by `-`, which no value on an axis contains; a `foreach` has the one axis `name`."""
    group, _, cell = stage.name.partition("@")  # type: ignore[attr-defined]
    definition = stage.dvcfile.contents["stages"][group]  # type: ignore[attr-defined]
    if not cell:
        return {}
    if "foreach" in definition:
        return {"name": cell}
    return dict(zip(definition["matrix"], cell.split("-"), strict=True))
