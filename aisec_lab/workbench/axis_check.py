"""The axes of the pipeline's matrices: DVC can read each value, and each value names something to run."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from omegaconf import DictConfig, OmegaConf

from aisec_lab.workbench.configuration import project_root
from aisec_lab.workbench.planned import PARAMETER, axes_of, definitions, passed
from aisec_lab.workbench.reads import reads_of
from aisec_lab.workbench.stages import RUN

NAME = re.compile(r"[a-z0-9_]+")
EVERY = "*"


def axes() -> dict[str, str | None]:
    """The axes of all matrices and `foreach` of the pipeline, and what their values are.

    Returns:
        From the parameter that holds the values, such as `study.objectives`, to the group whose names they are, such as
        `objectives`: the one from which a notebook of the stage reads by that axis. None for seeds, and for names by
        which no notebook reads: these name what another stage has made, see `input_check`.
    """
    found: dict[str, str | None] = {}
    for _, written in definitions():
        for stage in written["stages"].values():
            declared = axes_of(stage)
            for axis, values in declared.items():
                if isinstance(values, str) and (place := PARAMETER.fullmatch(values)):
                    cmd = stage.get("do", stage)["cmd"]
                    found[place[1]] = found.get(place[1]) or next(_groups(cmd, axis, declared), None)
    return found


def check_axis(config: DictConfig, axis: str, group: str | None) -> None:
    """Refuse, with a ValueError, an axis that DVC would misread: it joins names by `-` and merges repeats."""
    values: list[Any] = list(OmegaConf.select(config, axis) or ())
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


def _groups(cmd: str | Sequence[str], axis: str, declared: Mapping[str, Any]) -> Iterator[str]:
    """The groups from which the notebooks of a stage read by the parameter that gets the value of an axis."""
    words = tuple((cmd if isinstance(cmd, str) else " ".join(cmd)).split())
    if words[:2] != RUN:
        return
    value = {f"${{item.{axis}}}", "${item}" if not axis else "", "${key}" if len(declared) == 1 else ""}
    parameters = {name: EVERY for name, template in passed(words).items() if template in value}
    listed = {name: values for name, values in declared.items() if isinstance(values, list)}
    for cell in product(*listed.values()):
        notebook = words[2]
        for name, one in zip(listed, map(str, cell), strict=True):
            notebook = notebook.replace(f"${{item.{name}}}", one)
        if (project_root() / notebook).exists():
            read = reads_of(project_root() / notebook, parameters)
            yield from (name.removesuffix(f".{EVERY}") for name in read if name.endswith(f".{EVERY}"))
