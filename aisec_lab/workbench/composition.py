"""`configs/` becomes `params.yaml`, and nothing that a study could not run gets there."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aisec_lab.files import written_beside
from aisec_lab.workbench.configure import composed, project_root

AXES = {  # of the grids, and the group whose names stand on each; on an axis of seeds stand integers
    "study.objectives": "objectives",
    "study.defenses": "defenses",
    "study.attacks": "attacks",
    "study.seeds": None,
    "poisoning.attacks": "poisons",
    "poisoning.seeds": None,
    "privacy.promises": "promises",
}
NAME = re.compile(r"[a-z0-9_]+")
GROUPS = ("objectives", "defenses", "attacks", "poisons", "promises")
SINGLE = (
    "data", "model", "fit", "ball",
    "diagnose", "smallest", "black_box", "certify", "physical", "tables", "text", "control", "svm", "cleanse",
    "incident", "availability", "matching", "partition", "poison_svm",
    "private", "mechanism", "release", "reconstruct", "memorise", "invert", "federated",
    "steal", "publish", "watch", "claim", "compress",
)  # fmt: skip


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
    check_axes(config)
    for group in GROUPS:
        for name in config[group]:
            check_settings(config, f"{group}.{name}")
    for name in SINGLE:
        check_settings(config, name)
    if config.curve.attack not in config.study.attacks:
        raise ValueError(f"curve.attack is {config.curve.attack!r}: name one of study.attacks, {config.study.attacks}")
    return OmegaConf.to_yaml(config)


def check_axes(config: DictConfig) -> None:
    """Refuse, with a ValueError, a grid that DVC would misread: it joins names by `-` and merges repeats."""
    for axis, group in AXES.items():
        values: list[Any] = list(OmegaConf.select(config, axis))
        where = f"{axis}: {values}"
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{where}: an axis is neither empty nor has repeats; name each value once")
        for value in values:
            if group is None:
                if type(value) is not int or value < 0:
                    raise ValueError(f"{where}: {value!r} should be an integer from 0 up")
                continue
            if type(value) is not str:
                raise ValueError(f"{where}: {value!r} should be a name")
            if not NAME.fullmatch(value):
                raise ValueError(f"{where}: {value!r} should be made of a-z, 0-9 and _ only")
            if value not in config[group]:
                raise ValueError(f"{where}: no {value!r} among {group}, there are {sorted(config[group])}")


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


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())
