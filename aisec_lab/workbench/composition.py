"""`configs/` becomes `params.yaml`, and nothing that a study could not run gets there."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aisec_lab.core.files import written_beside
from aisec_lab.workbench.configuration import composed, project_root
from aisec_lab.workbench.reads import reads_of
from aisec_lab.workbench.stages import pipeline_files

NAME = re.compile(r"[a-z0-9_]+")
EVERY = "*"
VALUE = re.compile(r"\$\{([\w.]+)\}")  # as an axis of a matrix names its values


def compose_params(overrides: Sequence[str]) -> str:
    """Compose, check and render the configuration.

    Args:
        overrides: Hydra overrides, such as `["data=mnist", "study.seeds=[0]"]`.

    Returns:
        The text of `params.yaml`, the same bytes that `dvc exp run` writes.

    Raises:
        ValueError: an override that Hydra cannot take, an axis that DVC cannot walk, or a setting that its class
            refuses; one line with the mend.
    """
    try:
        config = composed(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"configs/ with {list(overrides)}: {_one_line(error)}") from error
    for axis, group in axes().items():
        check_axis(config, axis, group)
    for name in settings(OmegaConf.to_container(config)):
        check_settings(config, name)
    if config.curve.attack not in config.study.attacks:
        raise ValueError(f"curve.attack is {config.curve.attack!r}: name one of study.attacks, {config.study.attacks}")
    return OmegaConf.to_yaml(config)


def axes() -> dict[str, str | None]:
    """The axes of all matrices of the pipeline, and what their values are.

    Returns:
        From where the configuration has an axis, such as `study.objectives`, to the group whose names stand on it,
        such as `objectives`: the one from which its notebook reads by that axis. None for seeds, and for names that
        only another stage reads.
    """
    found: dict[str, str | None] = {}
    for file in pipeline_files():
        for stage in yaml.safe_load(file.read_text())["stages"].values():
            for axis, values in stage.get("matrix", {}).items():
                if isinstance(values, str) and (place := VALUE.fullmatch(values)):
                    found[place[1]] = found.get(place[1]) or _group(stage["cmd"], axis)
    return found


def check_axis(config: DictConfig, axis: str, group: str | None) -> None:
    """Refuse, with a ValueError, an axis that DVC would misread: it joins names by `-` and merges repeats."""
    values: list[Any] = list(OmegaConf.select(config, axis))
    where = f"{axis}: {values}"
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{where}: an axis is neither empty nor has repeats; name each value once")
    for value in values:
        if axis.endswith(".seeds"):
            if type(value) is not int or value < 0:
                raise ValueError(f"{where}: {value!r} should be an integer from 0 up")
            continue
        if type(value) is not str:
            raise ValueError(f"{where}: {value!r} should be a name")
        if not NAME.fullmatch(value):
            raise ValueError(f"{where}: {value!r} should be made of a-z, 0-9 and _ only")
        if group and value not in config[group]:
            raise ValueError(f"{where}: no {value!r} among {group}, there are {sorted(config[group])}")


def settings(node: Any, path: str = "") -> Iterator[str]:
    """Where the configuration names a class, outermost places only."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield path
            return
        for key, value in node.items():
            yield from settings(value, f"{path}.{key}" if path else key)


def check_settings(config: DictConfig, name: str) -> None:
    """Build what `name` configures; a ValueError with its reason where its class refuses."""
    try:
        instantiate(OmegaConf.select(config, name), _convert_="all")
    except HydraException as error:
        raise ValueError(f"{name}: {_one_line(error.__cause__ or error)}") from error


def write_params(overrides: Sequence[str]) -> None:
    """Write `params.yaml`; what is refused leaves the old one."""
    text = compose_params(overrides)
    with written_beside(project_root() / "params.yaml") as beside:
        beside.write_text(text)


def check_params() -> None:
    """Refuse, with a ValueError, a `params.yaml` that is not what `configs/` composes to."""
    path = project_root() / "params.yaml"
    if not path.exists() or path.read_text() != compose_params([]):
        raise ValueError("params.yaml is not what configs/ composes to: run `aisec compose` and commit it")


def _group(cmd: str, axis: str) -> str | None:
    notebook = project_root() / cmd.split()[2]
    if not notebook.exists():  # one of several notebooks of a stage
        return None
    read = reads_of(notebook, {axis: EVERY})
    return next((name.removesuffix(f".{EVERY}") for name in read if name.endswith(f".{EVERY}")), None)


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())
