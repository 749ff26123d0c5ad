"""What a command does differently inside a DVC stage."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from aisec_lab.workbench.configuration import project_root, read_parameters
from aisec_lab.workbench.memory import Memory
from aisec_lab.workbench.parameters import hashes_of
from aisec_lab.workbench.sources import Sources
from aisec_lab.workbench.stages import key_of

CODE, REACH = "code.json", "reach.json"  # what `aisec code` writes


def exit_with_parent() -> None:
    """Inside a DVC stage: end when `dvc` ends, even by SIGKILL, and end the kernel too. By hand: do nothing."""
    if in_stage():
        threading.Thread(target=_watch, args=(_line(),), daemon=True).start()


def in_stage() -> bool:
    """Whether DVC runs this process as a stage."""
    return "DVC_STAGE" in os.environ


def enter_stage(reads: Iterable[str]) -> None:
    """Inside a DVC stage: check that its key in `code.json` covers what it will read and run. By hand: do nothing.

    Args:
        reads: the parameters that its command or notebook reads.

    Raises:
        FileNotFoundError: no `code.json`, `reach.json` or `params.yaml`.
        ValueError: `code.json` has no key of this stage or misses one of the parameters; or one of them, or the code
            that the stage reaches, has changed since: the result would be recorded under what was there before.
    """
    if not in_stage():
        return
    root, key = project_root(), key_of(os.environ["DVC_STAGE"])
    study, _, name = key.partition(".")
    tracked: dict[str, str] | None = _read(root, CODE).get(study, {}).get(name)
    if tracked is None or not tracked.keys() >= set(reads):
        lacking = "no key" if tracked is None else f"no {', '.join(sorted(set(reads) - tracked.keys()))} in the key"
        raise ValueError(f"{CODE} has {lacking} of {key}: run `dvc repro -f code`")
    now = hashes_of(read_parameters(root), set(tracked) - {"code"}, key)
    changed = sorted(name for name in now if now[name] != tracked[name])
    if changed:
        raise ValueError(
            f"{', '.join(changed)} in params.yaml changed since `aisec code` read it: run the pipeline again"
        )
    _check_code(root, key, Sources(root, Memory(root).parsed()))


def leave_stage(imported: Iterable[str]) -> None:
    """Inside a DVC stage whose notebook has run: check that its key covers all that was run. By hand: do nothing.

    Args:
        imported: the modules of the package that the kernel has imported; packages that hold no code do not count. Its
            child processes are not checked: they run functions of modules that the kernel has imported itself.

    Raises:
        ValueError: one of them is not covered, or the code that the stage reaches has changed since the key was made.
    """
    if not in_stage():
        return
    root, key = project_root(), key_of(os.environ["DVC_STAGE"])
    sources = Sources(root, Memory(root).parsed())
    foreign = set(imported) - set(_read(root, REACH)["stages"][key])
    missing = sorted(module for module in foreign if module not in sources.modules or not sources.is_empty(module))
    if missing:
        raise ValueError(
            f"this stage imported {', '.join(missing)}, which its key in {CODE} does not cover: "
            "import it by name in the notebook or name it as a _target_"
        )
    _check_code(root, key, sources)


def _check_code(root: Path, key: str, sources: Sources) -> None:
    """Refuse, with a ValueError, source code that is not what it was when the key of a stage was made."""
    reach = _read(root, REACH)
    for module in reach["stages"][key]:
        if module not in sources.modules or sources.code(module) != reach["modules"][module]:
            raise ValueError(f"{module} changed since `aisec code` read it: run the pipeline again")


def _read(root: Path, name: str) -> dict[str, Any]:
    if not (root / name).exists():
        raise FileNotFoundError(f"no {name}, which says what a stage reads and runs: run `dvc repro -f code`")
    content: dict[str, Any] = json.loads((root / name).read_bytes())
    return content


def _line() -> list[int]:
    """The ancestors of this process up to `dvc`: `dvc` itself, and a shell if it started this process in one."""
    parents = psutil.Process().parents()
    shell = os.path.basename(os.environ.get("SHELL") or "/bin/sh")  # the one that dvc takes; some replace themselves
    return [parent.pid for parent in parents[: 1 + (parents[0].name() in (shell, "sh"))]]


def _watch(line: list[int]) -> None:
    """Kill this process and its kernel when `dvc` or the shell dies: orphans are re-parented, so the parents change."""
    while [parent.pid for parent in psutil.Process().parents()][: len(line)] == line:
        time.sleep(0.5)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
