"""The part of the configuration that a notebook may read: the one file of the workbench that results depend on."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

UNTRACKED = "${untracked:"


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]
    """Reads scalars as `OmegaConf.load` does, in a tenth of its time."""

    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers


def read_parameters(root: Path) -> dict[str, Any]:
    """The content of `params.yaml`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no YAML mapping.
    """
    file = root / "params.yaml"
    if not file.exists():
        raise FileNotFoundError("no params.yaml: run `aisec compose`")
    try:
        values = yaml.load(file.read_bytes(), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"params.yaml cannot be read ({error}): run `aisec compose`") from error
    if not isinstance(values, dict):
        raise ValueError("params.yaml holds no parameters: run `aisec compose`")
    return values


def project_root() -> Path:
    """The nearest folder upwards that holds a `dvc.yaml` and is no study; FileNotFoundError where there is none."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists() and folder.parent.name != "notebooks":
            return folder
    raise FileNotFoundError(f"no dvc.yaml in {here} or above: go into your clone of the project")


def composed(overrides: Sequence[str]) -> DictConfig:
    """Compose `configs/` with Hydra, all interpolations resolved, as `dvc exp run` does it."""
    from hydra import compose, initialize_config_dir  # half a second that a stage need not pay

    with initialize_config_dir(str(project_root() / "configs"), version_base=None):
        config = compose("config", overrides=list(overrides))
    OmegaConf.resolve(config)
    return config


def configure(overrides: Sequence[str] = (), *, reads: Sequence[str]) -> DictConfig:
    """The configuration of this notebook, from the project's root, where the working directory then is.

    Args:
        overrides: Hydra overrides to try by hand, such as `["attacks.pgd.steps=10"]`; a stage has none.
        reads: the parameters that the notebook may read, such as `["data", "attacks.pgd"]`. Stage `code` finds them
            here and lets DVC track each: an f-string may name parameters of the notebook, nothing else.

    Returns:
        `params.yaml`, or `configs/` recomposed with the overrides, cut down to what `reads` names: reading any other
        parameter is an error, so no result depends on what DVC did not see.

    Raises:
        ValueError: overrides inside a stage.
        FileNotFoundError: no project, or no `params.yaml`.
        KeyError: a name in `reads` that the configuration does not have.
    """
    os.chdir(project_root())
    if overrides and "DVC_STAGE" in os.environ:
        raise ValueError(f"overrides {list(overrides)} inside a stage would hide from DVC: use `aisec compose`")
    values = OmegaConf.to_container(composed(overrides)) if overrides else read_parameters(Path())
    for name in reads:
        if not _has(values, name.split(".")):
            raise KeyError(f"the configuration has no `{name}`, which `reads` names: see params.yaml")
    OmegaConf.register_new_resolver("untracked", _refuse, replace=True)
    config = OmegaConf.create(_cut(values, set(reads)))
    OmegaConf.set_readonly(config, True)
    return config


def visible(config: DictConfig) -> dict[str, Any]:
    """The part of a configuration that may be read.

    Args:
        config: from `configure`.

    Returns:
        Plain dictionaries, without what `reads` did not name.
    """
    return _seen(OmegaConf.to_container(config))


def config_hash(config: DictConfig) -> str:
    """A short hash of the part of a configuration that may be read.

    Args:
        config: from `configure`.

    Returns:
        The first twelve digits of a sha256, the same for equal settings.
    """
    return hashlib.sha256(json.dumps(visible(config), sort_keys=True).encode()).hexdigest()[:12]


def _cut(node: Any, tracked: set[str], path: str = "") -> Any:
    """Replace what is not tracked by an interpolation that raises when it is read."""
    if path in tracked:
        return node
    if isinstance(node, dict) and (not path or any(name.startswith(f"{path}.") for name in tracked)):
        return {key: _cut(value, tracked, f"{path}.{key}" if path else key) for key, value in node.items()}
    return f"{UNTRACKED}{path}}}"


def _has(node: Any, path: Sequence[str]) -> bool:
    return not path or (isinstance(node, dict) and path[0] in node and _has(node[path[0]], path[1:]))


def _seen(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    hidden = {key for key, value in node.items() if isinstance(value, str) and value.startswith(UNTRACKED)}
    return {key: _seen(value) for key, value in node.items() if key not in hidden}


def _refuse(path: str) -> None:
    raise KeyError(f"`{path}` is not among what this notebook reads: name it in `configure(…, reads=[…])`")
