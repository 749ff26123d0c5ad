"""Why a stage is stale: what has changed in the project since the stage was last run."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aisec_lab.workbench.keys import Keys, current_keys
from aisec_lab.workbench.memory import Memory
from aisec_lab.workbench.parameters import canonical
from aisec_lab.workbench.stage import CODE
from aisec_lab.workbench.stages import Declared, declared, key_of

if TYPE_CHECKING:
    from dvc.stage import PipelineStage

MOST = 12  # lines of one kind that are shown: the answer fits on a screen
WIDTH = 60  # of a value


def explain(name: str) -> str:
    """Say whether a stage of the project in which we stand is stale, and why.

    Args:
        name: of the stage; see `find`.

    Returns:
        Lines for a terminal: the state of the stage, then what changed, then the stages that have to run before it.

    Raises:
        ValueError: no such stage, or a key that can't be made; see `keys_of`.
    """
    from dvc.repo import Repo
    from networkx import descendants

    root = Path.cwd()
    with Repo(str(root)) as repo:
        stages = declared(repo)
        asked = find(name, stages)
        keys = current_keys(root, stages)
        nodes = {key_of(node.addressing): node for node in repo.index.graph}
        reasons = list(_reasons(nodes[asked.key], keys, Memory(root)))
        above = sorted(key_of(node.addressing) for node in descendants(repo.index.graph, nodes[asked.key]))
        waits = [key for key in above if key in keys.stages and any(_reasons(nodes[key], keys, Memory(root)))]
    state = "is stale" if reasons else "is up to date"
    lines = [f"{asked.key} {state}" + (", and waits for stages that are stale" if waits else "")]
    return "\n".join([*lines, *reasons, *_few("waits for ", waits)])


def find(name: str, stages: Sequence[Declared]) -> Declared:
    """The stage of that name.

    Args:
        name: as DVC addresses it (`notebooks/privacy/dvc.yaml:train@e1`), its key (`privacy.train@e1`), or without its
            study (`train@e1`) where that is enough.
        stages: the declared ones.

    Raises:
        ValueError: none, or more than one; near names are listed.
    """
    found = [stage for stage in stages if name in (stage.key, stage.name) or key_of(name) == stage.key]
    exact = [stage for stage in found if name == stage.key or key_of(name) == stage.key]
    if len(exact) == 1 or len(found) == 1:
        return (exact or found)[0]
    if found:
        raise ValueError(f"{name} is a stage of several studies: name one of {', '.join(stage.key for stage in found)}")
    names = {spelling: stage.key for stage in stages for spelling in (stage.key, stage.name, stage.address)}
    near = [spelling for spelling in names if name in spelling] or difflib.get_close_matches(name, names, 5)
    hint = f"did you mean {', '.join(sorted({names[spelling] for spelling in near})[:5])}?" if near else "see dvc.yaml"
    raise ValueError(f"no stage {name}: {hint}")


def differences(was: Any, now: Any, place: str) -> Iterator[str]:
    """What differs between two values, leaf by leaf, such as `attacks.square.ball.eps: 0.15 -> 0.2`."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in sorted({*was, *now}, key=str):
            if name not in now:
                yield f"{place}.{name}: {_short(was[name])} -> removed"
            elif name not in was:
                yield f"{place}.{name}: added {_short(now[name])}"
            else:
                yield from differences(was[name], now[name], f"{place}.{name}")
    elif canonical(was) != canonical(now):
        yield f"{place}: {_short(was)} -> {_short(now)}"


def _reasons(node: "PipelineStage", keys: Keys, memory: Memory) -> Iterator[str]:
    """What makes a stage stale, a line each."""
    from dvc.dependency import ParamsDependency

    key = key_of(node.addressing)
    if not any(out.hash_info for out in node.outs):
        yield "  never run, or not recorded in its dvc.lock"
        return
    if node.frozen:
        yield "  frozen: DVC does not run it even if its inputs change"
    if node.cmd_changed:
        yield f"  command   changed; it is now `{' '.join(node.cmd.split())}`"
    study, _, name = key.partition(".")
    inputs = [dep for dep in node.deps if not isinstance(dep, ParamsDependency)]
    for dep in node.params:
        recorded = (dep.hash_info.value or {}).get(key)
        if Path(dep.fs_path).name == CODE and recorded is not None:
            yield from _changed_key(recorded, keys.code[study][name], key, keys, memory)
        elif dep.status():
            yield f"  parameter {dep} changed"
    for kind, entries in (("input", inputs), ("output", node.outs)):
        states = [f"{path} {state}" for entry in entries for path, state in entry.status().items()]
        yield from _few(f"{kind:<10}", states)


def _changed_key(was: Mapping[str, str], now: Mapping[str, str], key: str, keys: Keys, memory: Memory) -> Iterator[str]:
    if was["code"] != now["code"]:
        known, modules = memory.recall(was["code"])
        if known:
            yield from _few("code      ", _changed_modules(modules, keys.meanings[now["code"]]))
        else:
            yield f"  code      changed, but this machine has no memory of {was['code']}: it was run on another"
    lines: list[str] = []
    for name in sorted((was.keys() | now.keys()) - {"code"}):
        if name not in now:
            lines.append(f"{name}: no longer read")
        elif name not in was:
            lines.append(f"{name}: read now, and not before")
        elif was[name] != now[name]:
            known, value = memory.recall(was[name])
            present = keys.meanings[now[name]]
            lines += differences(value, present, name) if known else [f"{name}: ? -> {_short(present)}"]
    yield from _few("parameter ", lines)


def _changed_modules(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    both = [name for name in sorted(was.keys() & now.keys()) if was[name] != now[name]]
    edited = [f"{name} is now of {now[name]}" if "." in now[name] else f"edited {name}" for name in both]
    added = [f"now reaches {module}" for module in sorted(now.keys() - was.keys())]
    return edited + added + [f"no longer reaches {module}" for module in sorted(was.keys() - now.keys())]


def _few(kind: str, lines: Sequence[str]) -> list[str]:
    """The first lines of a kind, and how many more there are."""
    shown = [f"  {kind}{line}" for line in lines[:MOST]]
    return shown + ([f"  {kind}… and {len(lines) - MOST} more"] if len(lines) > MOST else [])


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
