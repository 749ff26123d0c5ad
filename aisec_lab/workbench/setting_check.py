"""The settings of a configuration: classes check their own, and the rest are of the kind that `configs/` declares."""

import inspect
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

TARGET = "_target_"
NUMBERS = "a finite number, at least 0"
KINDS = {bool: "true or false", int: "an integer, at least 0", float: NUMBERS, str: "a text", dict: "a mapping"}


def check_classes(config: DictConfig) -> None:
    """Build everything that names a class; a ValueError with the reason where a class refuses its settings."""
    content = OmegaConf.to_container(config)
    for place in targets(content):
        _build(config, place)
    for place in targets(content, nested=True):
        node = OmegaConf.select(config, place)
        if node.get("_partial_"):
            check_partial(_build(config, place), place)


def targets(node: Any, path: str = "", *, nested: bool = False) -> Iterator[str]:
    """Where the configuration names a class: the outermost places, or with `nested` all of them."""
    if isinstance(node, dict) and TARGET in node:
        yield path
        if not nested:
            return
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        place = f"{path}[{key}]" if isinstance(node, list) else f"{path}.{key}" if path else str(key)
        yield from targets(value, place, nested=nested)


def check_partial(built: partial[Any], place: str) -> None:
    """Refuse, with a ValueError, settings of a class that gets the rest from its notebook."""
    signature = inspect.signature(built.func)
    try:
        signature.bind_partial(*built.args, **built.keywords)
    except TypeError as error:
        names = [name for name in signature.parameters if name not in ("args", "kwargs")]
        raise ValueError(f"{place}: {_one_line(error)}; there are {names}") from error
    try:
        signature.bind(*built.args, **built.keywords)
    except TypeError:
        return  # what is missing comes from the notebook: its constructor cannot be run yet
    try:
        built()
    except ValueError as error:
        raise ValueError(f"{place}: {_one_line(error)}") from error


def check_plain(given: Any, declared: Any, path: str = "") -> None:
    """Refuse, with a ValueError, a setting of no class that is not of the kind that is declared.

    No such number is negative or infinite, and no such list is empty or has a value twice: what may be so belongs to
    a class, which says so.

    Args:
        given: the configuration, as plain Python.
        declared: the same, composed without overrides of single values; it says of which kind each setting is.
        path: where in the configuration this is.
    """
    if isinstance(given, dict) and TARGET in given:
        return
    if isinstance(given, dict):
        for key, value in given.items():
            known = declared.get(key) if isinstance(declared, dict) else None
            check_plain(value, known, f"{path}.{key}" if path else str(key))
        accepted = _kind(declared) if not isinstance(declared, dict | None) else None
    elif isinstance(given, list):
        first = _common(declared) if isinstance(declared, list) else None
        for place, value in enumerate(given):
            check_plain(value, first, f"{path}[{place}]")
        repeats = any(value in given[:place] for place, value in enumerate(given))
        whole = declared is None or isinstance(declared, list)
        accepted = _kind(declared) if not whole else "one or more values, each once" if repeats or not given else None
    else:
        accepted = None if _fits(given, declared) else _kind(given if declared is None else declared)
    if accepted:
        raise ValueError(f"{path}: {_shown(given)}: should be {accepted}")


def _fits(given: Any, declared: Any) -> bool:
    """Whether a single value is of the kind of another; of any kind where that one is None."""
    if isinstance(given, int | float) and not isinstance(given, bool) and not (math.isfinite(given) and given >= 0):
        return False
    if declared is None:
        return True
    if given is None:
        return isinstance(declared, str)  # text may be left out
    accepted = (int, float) if type(declared) is float else (type(declared),)
    return type(given) in accepted


def _kind(declared: Any) -> str:
    return "a list" if isinstance(declared, list) else KINDS[type(declared)]


def _common(declared: list[Any]) -> Any:
    """A value whose kind all values of a list have; None where there is none."""
    numbers = all(type(value) in (int, float) for value in declared)
    if numbers:
        return next((value for value in declared if type(value) is float), declared[0] if declared else None)
    return declared[0] if len({type(value) for value in declared}) == 1 else None


def _shown(given: Any) -> str:
    if isinstance(given, Mapping):
        return f"a mapping of {sorted(map(str, given))}"
    return "null" if given is None else repr(given)


def _build(config: DictConfig, place: str) -> Any:
    try:
        return instantiate(OmegaConf.select(config, place), _convert_="all")
    except HydraException as error:
        raise ValueError(f"{place}: {_one_line(error.__cause__ or error)}") from error


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())
