"""`configs/` becomes `params.yaml`, and what no stage could run is refused before that."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aisec_lab.core.files import written_beside
from aisec_lab.workbench.axis_check import axes, check_axis
from aisec_lab.workbench.configuration import composed, project_root
from aisec_lab.workbench.input_check import check_inputs
from aisec_lab.workbench.lookups import lookups_of
from aisec_lab.workbench.planned import planned
from aisec_lab.workbench.setting_check import check_classes, check_plain


def compose_params(overrides: Sequence[str]) -> str:
    """Compose, check and render the configuration.

    Args:
        overrides: Hydra overrides, such as `["data=mnist", "study.seeds=[0]"]`.

    Returns:
        The text of `params.yaml`, the same bytes that `dvc exp run` writes.

    Raises:
        ValueError: an override that Hydra cannot take, an axis that DVC cannot read, a name of something that is not
            there, or a setting that its class or its kind refuses; one line says what was given and what is accepted.
    """
    try:
        config = composed(overrides)
        choices = [override for override in overrides if is_choice(override)]
        declared = config if len(choices) == len(overrides) else composed(choices)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"configs/ with {list(overrides)}: {' '.join(str(error).split())}") from error
    check(config, declared)
    return OmegaConf.to_yaml(config)


def check(config: DictConfig, declared: DictConfig) -> None:
    """Refuse, with a ValueError, a configuration with which some stage could not run.

    Args:
        config: as composed.
        declared: composed from the same files of `configs/`, without overrides of single values.
    """
    for axis, group in axes().items():
        check_axis(config, axis, group)
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    check_plain(content, OmegaConf.to_container(declared))
    stages = planned({str(name): value for name, value in content.items()})
    for notebook in dict.fromkeys(stage.notebook for stage in stages):
        if notebook:
            check_names(config, project_root() / notebook)
    check_inputs(config, stages)
    if config.curve.attack not in config.study.attacks:
        raise ValueError(f"curve.attack is {config.curve.attack!r}: name one of study.attacks, {config.study.attacks}")
    check_classes(config)


def is_choice(override: str) -> bool:
    """Whether an override chooses a file of `configs/`; any other one gives a value."""
    group = OverridesParser.create().parse_override(override).key_or_group
    return (project_root() / "configs" / group).is_dir()


def check_names(config: DictConfig, notebook: Path) -> None:
    """Refuse, with a ValueError, a name in the settings of a notebook that is no key where the notebook looks it up."""
    for names, mapping in sorted(lookups_of(notebook)):
        given, keys = _selected(config, names), _selected(config, mapping)
        for name in [given] if isinstance(given, str) else given if isinstance(given, list) else ():
            if isinstance(name, str) and keys is not None and name not in keys:
                raise ValueError(f"{names}: {given!r}: no {name!r} among {mapping}, there are {sorted(map(str, keys))}")


def write_params(overrides: Sequence[str]) -> None:
    """Write `params.yaml`; where the configuration is refused, the old file stays."""
    text = compose_params(overrides)
    with written_beside(project_root() / "params.yaml") as beside:
        beside.write_text(text)


def check_params() -> None:
    """Refuse, with a ValueError, a `params.yaml` that is not what `configs/` composes to."""
    path = project_root() / "params.yaml"
    if not path.exists() or path.read_text() != compose_params([]):
        raise ValueError("params.yaml is not what configs/ composes to: run `aisec compose` and commit it")


def _selected(config: DictConfig, place: str) -> Any:
    """A part of the configuration as plain Python, or None if the configuration lacks it."""
    node = OmegaConf.select(config, place)
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
