"""The key of each stage: a hash of the code that it can reach, and one of each parameter that it tracks."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aisec_lab.core.files import written_beside
from aisec_lab.workbench.configuration import read_parameters
from aisec_lab.workbench.imports import PACKAGE, Use
from aisec_lab.workbench.memory import Memory
from aisec_lab.workbench.notebook_code import uses_of
from aisec_lab.workbench.parameters import canonical, hashes_of, value_of
from aisec_lab.workbench.reach import Reach, target
from aisec_lab.workbench.sources import Sources, short_hash
from aisec_lab.workbench.stage import CODE, REACH
from aisec_lab.workbench.stages import Declared

MAKES_KEYS = "code"  # the command that writes them, whose own stage has none
COMMANDS = {  # what makes the result of each command that a stage may run; `aisec run` has its notebook instead
    "data": ("aisec_lab.data.prepare",),
    "collect": ("aisec_lab.workbench.collect",),
    "table": ("aisec_lab.workbench.collect", "aisec_lab.workbench.configure"),
    "report": ("aisec_lab.workbench.report", "aisec_lab.workbench.configure"),
}
NAME = re.compile(rf"{PACKAGE}(\.[A-Za-z_]\w*)+")


class Keys(NamedTuple):
    """The keys of a project's stages.

    Args:
        code: as in `code.json`: by study and name, the hash of the code and of each tracked parameter.
        modules: a hash of each module that any of them reaches.
        stages: by key, such as `robustness.train@trades-0`, the modules that the stage reaches, sorted.
        meanings: what each hash of `code` stands for: a value; or modules with their hashes, and exported names with
            the modules that they lead to.
    """

    code: dict[str, dict[str, dict[str, str]]]
    modules: dict[str, str]
    stages: dict[str, list[str]]
    meanings: dict[str, Any]


def keys_of(root: Path, stages: Sequence[Declared], sources: Sources) -> Keys:
    """The keys of stages, as their notebooks, the package and `params.yaml` are now.

    Args:
        root: of the project.
        stages: the declared ones.
        sources: of the package below `root`.

    Raises:
        ValueError: a name of the package that is not there, a parameter that `params.yaml` lacks, or a command whose
            code is not known; the message says where.
        FileNotFoundError: no notebook of that name, or no `params.yaml`.
    """
    parameters, reach = read_parameters(root), Reach(sources)
    keys = Keys({}, {}, {}, {})
    for stage in stages:
        if _words(stage)[:2] == ["aisec", MAKES_KEYS]:
            continue
        if "code" in stage.parameters:
            raise ValueError(f"{stage.key} tracks a parameter `code`, which is what its code is called: rename that")
        found = [reach.of(uses, where) for uses, where in _uses(stage, parameters, sources)]
        reached = sorted({module for part in found for module in part.modules})
        hashes = {module: sources.code(module) for module in reached}
        entry = hashes_of(parameters, stage.parameters, stage.key)
        keys.meanings.update({entry[name]: value_of(parameters, name, stage.key) for name in entry})
        meaning = {name: module for part in found for name, module in part.exports.items()} | hashes
        code = short_hash(canonical(meaning))
        keys.meanings[code] = meaning
        keys.code.setdefault(stage.study, {})[stage.name] = {"code": code} | entry
        keys.modules.update(hashes)
        keys.stages[stage.key] = reached
    return keys


def current_keys(root: Path, stages: Sequence[Declared]) -> Keys:
    """The keys as they are now; files that were parsed for an earlier call, of any process, are not parsed again."""
    memory = Memory(root)
    sources = Sources(root, formerly := memory.parsed())
    keys = keys_of(root, stages, sources)
    if sources.parsed.keys() != formerly.keys():
        memory.keep_parsed(sources.parsed)
    return keys


def outdated(root: Path, stages: Sequence[Declared]) -> set[str]:
    """The stage that makes the keys, as DVC addresses it, if `code.json` is of other stages or other parameters.

    A `dvc.yaml` has changed then, and DVC lets no stage depend on that file.

    Args:
        root: of the project.
        stages: the declared ones.
    """
    if not (root / CODE).exists():
        return set()
    written = json.loads((root / CODE).read_bytes())
    makers = [stage for stage in stages if _words(stage)[:2] == ["aisec", MAKES_KEYS]]
    declared = {(stage.study, stage.name): {"code", *stage.parameters} for stage in stages if stage not in makers}
    known = {(study, name): set(entry) for study, names in written.items() for name, entry in names.items()}
    return {maker.address for maker in makers if declared != known}


def write_keys(root: Path, keys: Keys) -> None:
    """Write `code.json` and `reach.json`, the same bytes for the same keys, and remember what the hashes stand for."""
    Memory(root).keep(keys.meanings)
    with written_beside(root / CODE) as beside:
        beside.write_text(json.dumps(keys.code, indent=1, sort_keys=True) + "\n")
    parts = ",\n".join(
        f'"{name}": {_lines(part)}' for name, part in (("modules", keys.modules), ("stages", keys.stages))
    )
    with written_beside(root / REACH) as beside:
        beside.write_text(f"{{\n{parts}\n}}\n")


def names_in(value: Any) -> Iterator[str]:
    """The names of the package in a configuration's value, at any depth: `_target_`s, and what their settings name."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)
    elif isinstance(value, str) and NAME.fullmatch(value):
        yield value


def _uses(stage: Declared, parameters: dict[str, Any], sources: Sources) -> Iterator[tuple[Iterable[Use], str]]:
    """The names of the package that a stage uses, with where it does."""
    words = _words(stage)
    if words[0] != "aisec":
        if any(word == "aisec" or word.startswith(PACKAGE) for word in words):
            raise ValueError(f"{stage.key} runs `{stage.cmd}`: a command that uses the package begins with `aisec`")
        return
    if words.count("aisec") > 1:
        raise ValueError(f"{stage.key} runs `{stage.cmd}`: make a stage of each command")
    if stage.runs_notebook:
        uses = uses_of(sources, stage.notebook)
        if uses is None:
            return
        yield uses, str(stage.notebook)
        for name in stage.parameters:
            yield map(target, names_in(value_of(parameters, name, stage.key))), f"params.yaml, {name}"
    elif words[1] in COMMANDS:
        yield map(target, COMMANDS[words[1]]), f"COMMANDS in {Path(__file__).name}"
    else:
        raise ValueError(
            f"{stage.key} runs `aisec {words[1]}`, whose code is not known, only that of {sorted(COMMANDS)}: "
            f"add it to COMMANDS in {Path(__file__).name}"
        )


def _words(stage: Declared) -> list[str]:
    return shlex.split(stage.cmd)


def _lines(part: dict[str, Any]) -> str:
    """A mapping as JSON, each of its entries on one line."""
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(part[name])}" for name in sorted(part))
    return f"{{\n{lines}\n}}" if lines else "{}"
