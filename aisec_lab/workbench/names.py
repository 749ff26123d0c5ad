"""The names that tables give to models and defenses, each made in one place."""

from dataclasses import is_dataclass


def defense_name(objective: str, defense: str) -> str:
    """The name of a defended model: what it was trained for, and what is wrapped around it.

    Args:
        objective: a name under `objectives` in `params.yaml`.
        defense: a name under `defenses`; `none` is left out.

    Returns:
        Such as `trades` or `trades+jpeg`.
    """
    return objective if defense == "none" else f"{objective}+{defense}"


def class_name(configured: object) -> str:
    """The name of the class that a part of the configuration names, or of the object that was built from it.

    Args:
        configured: a `_target_` such as `aisec_lab.models.CNN`, or the object itself.

    Returns:
        Such as `CNN`.
    """
    target = configured if isinstance(configured, str) else type(configured).__name__
    return target.rsplit(".")[-1]


def model_name(architecture: object) -> str:
    """The name of a model in a table: its architecture with every setting, so that two widths have two names.

    Args:
        architecture: a dataclass, such as `CNN(width=16)`.

    Returns:
        Such as `CNN(width=16, hidden=64)`.

    Raises:
        TypeError: no dataclass, whose text may hold an address in memory.
    """
    if not is_dataclass(architecture) or isinstance(architecture, type):
        raise TypeError(f"an architecture is a dataclass, such as CNN(width=16), got {type(architecture).__name__}")
    return repr(architecture)
