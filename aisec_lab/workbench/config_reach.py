"""Which parameters a configuration file composes to, found by composing it changed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

MARK = "changed by aisec reaches"


def composed_from(file: Path) -> list[str]:
    """The parameters whose values come from a file under `configs/` of the project in which we stand.

    Each value in a copy of the file is replaced by another. A parameter that then has another value comes from the
    file, also by interpolation. The file has no parameters if `configs/config.yaml` does not choose it.

    Args:
        file: its path from the root.

    Returns:
        Names such as `attacks.pgd.steps`, sorted.

    Raises:
        ValueError: the file is no YAML mapping, or the others do not compose with its values changed.
    """
    lines = file.read_text().splitlines()
    header = [line for line in lines if line.startswith("# @package")]
    try:
        values = yaml.safe_load("\n".join(lines))
        if not isinstance(values, dict):
            raise ValueError(f"{file} holds no settings")
        changed = {name: value if name in ("defaults", "hydra") else _marked(value) for name, value in values.items()}
        with TemporaryDirectory() as folder:
            copy = Path(folder).resolve() / "configs"
            shutil.copytree("configs", copy)
            was = _composed(copy)
            (copy / file.relative_to("configs")).write_text("\n".join([*header, yaml.safe_dump(changed)]))
            now = _composed(copy)
    except (yaml.YAMLError, HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        mend = "change it, and look at what `aisec compose` makes of it"
        raise ValueError(f"what {file} composes to can't be told ({reason}): {mend}") from error
    return sorted(_different(was, now))


def _composed(folder: Path) -> Any:
    with initialize_config_dir(str(folder), version_base=None):
        return OmegaConf.to_container(compose("config"), resolve=True)


def _marked(value: Any) -> Any:
    """The same shape with other values."""
    if isinstance(value, dict) and value:
        return {name: _marked(inner) for name, inner in value.items()}
    if isinstance(value, list) and value:
        return [_marked(inner) for inner in value]
    return MARK


def _different(was: Any, now: Any, place: str = "") -> Iterator[str]:
    """The names of the leaves that differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in was.keys() | now.keys():
            yield from _different(was.get(name), now.get(name), f"{place}.{name}".lstrip("."))
    elif was != now:
        yield place
