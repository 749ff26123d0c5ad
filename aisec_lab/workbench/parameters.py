"""`params.yaml` as DVC sees it through `code.json`: a hash of each parameter that a stage tracks."""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from aisec_lab.workbench.sources import short_hash


class _Loader(yaml.CSafeLoader):  # type: ignore[misc]
    """Reads scalars as `OmegaConf.load` does, which the notebooks use, in a tenth of its time."""

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


def value_of(parameters: dict[str, Any], name: str, where: str) -> Any:
    """The value of a parameter such as `attacks.pgd`.

    Args:
        parameters: from `read_parameters`.
        name: its path, joined by dots.
        where: who tracks it, for the message of an error.

    Raises:
        ValueError: there is no such parameter.
    """
    value: Any = parameters
    for place, part in enumerate(parts := name.split(".")):
        if not isinstance(value, dict) or part not in value:
            near = difflib.get_close_matches(part, list(map(str, value)) if isinstance(value, dict) else [], 1)
            hint = f"; did you mean {'.'.join([*parts[:place], near[0]])!r}?" if near else ""
            raise ValueError(
                f"{where} tracks {name!r}, which params.yaml lacks{hint}: mend its `meta.params` in dvc.yaml"
            )
        value = value[part]
    return value


def hash_of(value: Any) -> str:
    """A short hash of a parameter's value, the same for equal values."""
    return short_hash(canonical(value))


def canonical(value: Any) -> str:
    """A value as JSON, the same text for equal values."""
    return json.dumps(value, sort_keys=True)


def hashes_of(parameters: dict[str, Any], names: Iterable[str], where: str) -> dict[str, str]:
    """A hash of each of the named parameters; a ValueError where one is not there."""
    return {name: hash_of(value_of(parameters, name, where)) for name in sorted(names)}
