"""`params.yaml` as DVC sees it through `code.json`: a hash of each parameter that a stage tracks."""

import difflib
import json
from collections.abc import Iterable
from typing import Any

from aisec_lab.workbench.sources import short_hash


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
