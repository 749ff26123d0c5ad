"""Every input of a stage is an output of a stage, or a file of the project."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from aisec_lab.workbench.configuration import project_root
from aisec_lab.workbench.lookups import paths_of
from aisec_lab.workbench.planned import PARAMETER, Planned

DATA = ("aisec", "data")


def check_inputs(config: DictConfig, stages: Sequence[Planned]) -> None:
    """Refuse, with a ValueError, a setting by which a stage would read what no stage makes.

    Such a setting names a model or a result (`evasion.objectives`, `poisoning.clean`), or a dataset of the catalog.
    """
    outs = {"params.yaml", *(out for stage in stages for out in stage.outs)}
    made = {Path(out).parts[0] for out in outs}  # the folders that stages fill: what else lies there is a leftover
    for stage in stages:
        for dep, template in zip(stage.deps, stage.sources, strict=True):
            if not (_meets(dep, outs) or (Path(dep).parts[0] not in made and _there(dep)) or _there(f"{dep}.dvc")):
                _refuse(config, stage, template, _unmade(dep, _similar(template, outs)))
        for name, path in _read_by_name(stage):
            if not _meets(path, outs):
                known = sorted(out for out in outs if Path(out).parent == Path(path).parent)
                template = dict(zip(stage.words, stage.templates, strict=False)).get(f"{name}={stage.passed[name]}", "")
                _refuse(config, stage, template, _unmade(path, known))
        if stage.words[:2] == DATA:
            check_datasets(config, stage)


def check_datasets(config: DictConfig, stage: Planned) -> None:
    """Refuse, with a ValueError, a dataset to prepare that the catalog does not have."""
    from aisec_lab.data import CATALOG

    for word, template in zip(stage.words[2:], stage.templates[2:], strict=True):
        if (name := Path(word).name) not in CATALOG:
            near = get_close_matches(name, CATALOG, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(CATALOG))}"
            _refuse(config, stage, template, f"prepares {name!r}, which is not in the catalog: {hint}")


def _refuse(config: DictConfig, stage: Planned, template: str, what: str) -> None:
    given = ", ".join(f"{name}: {_plain(OmegaConf.select(config, name))!r}" for name in stage.settings(template))
    raise ValueError(f"{given or template}: {stage.name} {what}")


def _unmade(path: str, known: Sequence[str]) -> str:
    return f"reads {path}, which no stage makes: there are {', '.join(known) or 'none'}"


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _meets(path: str, outs: Iterable[str]) -> bool:
    """Whether the path is an output, is inside one, or contains one."""
    return any(path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/") for out in outs)


def _there(path: str) -> bool:
    return (project_root() / path).exists()


def _similar(template: str, outs: Iterable[str]) -> list[str]:
    """The outputs that a template could name."""
    pattern = re.compile("[^-/]+".join(map(re.escape, PARAMETER.sub("\0", template).split("\0"))))
    return sorted(out for out in outs if pattern.fullmatch(out))


def _read_by_name(stage: Planned) -> Iterator[tuple[str, str]]:
    """The files in its inputs that a notebook finds by names from a setting, each with the parameter that names it."""
    if stage.notebook:
        parameters: Mapping[str, str] = stage.passed
        for name, path in paths_of(project_root() / stage.notebook, parameters):
            if any(path.startswith(f"{dep}/") for dep in stage.deps):
                yield name, path
