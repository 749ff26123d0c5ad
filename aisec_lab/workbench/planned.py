"""The stages that DVC would run under a configuration that is not written yet."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from posixpath import normpath
from typing import Any, NamedTuple

import yaml

from aisec_lab.workbench.configuration import project_root
from aisec_lab.workbench.stages import RUN, pipeline_files

PARAMETER = re.compile(r"\$\{([^}]+)\}")


class Planned(NamedTuple):
    """A stage, one cell of its matrix, with all `${…}` replaced.

    Args:
        name: such as `evasion.model@smallest-trades`.
        words: of its commands.
        templates: the same words as `dvc.yaml` has them.
        deps, outs: paths from the project's root.
        sources: each path in `deps` as `dvc.yaml` has it.
        axes: from the axes of its matrix to what stands there: `${study.seeds}`, or a list.
    """

    name: str
    words: tuple[str, ...]
    templates: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    sources: tuple[str, ...]
    axes: Mapping[str, Any]

    @property
    def notebook(self) -> Path | None:
        """The notebook that it runs, if it runs one."""
        return Path(self.words[2]) if self.words[:2] == RUN else None

    @property
    def passed(self) -> dict[str, str]:
        """The parameters that it passes to its notebook."""
        return passed(self.words)

    def settings(self, template: str) -> list[str]:
        """The parameters of `params.yaml` from which a word or path of this stage is made."""
        axes = {f"item.{axis}": values for axis, values in self.axes.items()}
        keys = [key for name in PARAMETER.findall(template) for key in (axes if name == "key" else [name])]
        sources = [source for key in keys for source in PARAMETER.findall(str(axes.get(key, f"${{{key}}}")))]
        return list(dict.fromkeys(name for name in sources if not name.startswith(("item", "key"))))


def passed(words: tuple[str, ...]) -> dict[str, str]:
    """From the names to the values of all `-p NAME=VALUE` of a command."""
    assigned = (words[place + 1] for place, word in enumerate(words[:-1]) if word == "-p")
    return {name: value for name, _, value in (word.partition("=") for word in assigned)}


def definitions() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each `dvc.yaml` of the project with what it says."""
    for file in pipeline_files():
        yield file, yaml.safe_load(file.read_text())


def planned(parameters: Mapping[str, Any]) -> list[Planned]:
    """All stages of the project as DVC itself makes them of its files and these parameters.

    Raises:
        ValueError: DVC cannot read a file with these parameters.
    """
    from dvc.fs import localfs  # a second that only a composition pays
    from dvc.parsing import DataResolver, ResolveError

    class Files:  # all of a `dvc.repo.Repo` that the resolver uses
        fs, config = localfs, {}  # type: ignore[var-annotated]

    stages = []
    for file, written in definitions():
        study = "root" if file.parent == project_root() else file.parent.name
        nowhere = str(file.parent / "no folder")  # else DVC would add the old params.yaml
        try:
            resolver: Any = DataResolver(Files, nowhere, written | {"vars": [dict(parameters)]})
            resolved = resolver.resolve()["stages"]
        except ResolveError as error:
            raise ValueError(f"{file.relative_to(project_root())}: {error}") from error
        for name, stage in resolved.items():
            declared = written["stages"][name.partition("@")[0]]
            template = declared.get("do", declared)
            folder = file.parent.relative_to(project_root()) / stage.get("wdir", ".")
            stages.append(
                Planned(
                    name=f"{study}.{name}",
                    words=_words(stage["cmd"]),
                    templates=_words(template["cmd"]),
                    deps=_paths(stage.get("deps", ()), folder),
                    outs=_paths(stage.get("outs", ()), folder),
                    sources=tuple(template.get("deps", ())),
                    axes=axes_of(declared),
                )
            )
    return stages


def axes_of(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The axes of a stage's matrix, or the one of its `foreach`, whose values `${item}` and `${key}` are."""
    matrix: dict[str, Any] = definition.get("matrix", {})
    return matrix or ({"": definition["foreach"]} if "foreach" in definition else {})


def _words(cmd: str | list[str]) -> tuple[str, ...]:
    return tuple((cmd if isinstance(cmd, str) else " && ".join(cmd)).split())


def _paths(entries: Any, folder: PurePath) -> tuple[str, ...]:
    """The paths of inputs or outputs, of which some come with options."""
    names = (next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries)
    return tuple(normpath(folder / name) for name in names)
