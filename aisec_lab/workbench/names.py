"""The names that tables give to models and defenses, each made in one place."""


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
    """
    target = configured if isinstance(configured, str) else type(configured).__name__
    return target.rsplit(".")[-1]


def model_name(architecture: object) -> str:
    """The name of a model in a table: that of its class in lower case, so two widths of a CNN are both `cnn`.

    Args:
        architecture: its `_target_`, or the object itself.
    """
    return class_name(architecture).lower()
