"""An output of a DVC stage: its bytes are locked, replaced by those of another version, and recorded in `dvc.lock`."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc.exceptions import DvcException, OutputNotFoundError
from dvc.output import Output
from dvc.repo import Repo, lock_repo
from dvc.rwlock import rwlock
from dvc.stage import PipelineStage
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import dump_yaml, parse_yaml_for_update
from dvc_data.hashfile.hash_info import HashInfo

from aisec_lab.core.files import written_beside

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)


@contextmanager
def is_complete(name: str) -> Iterator[Output]:
    """The output at `name` of the project in which we stand; no command of DVC reads or writes it meanwhile.

    Raises:
        ValueError: no output of a stage that DVC caches, one that a stage is using, or another error of DVC.
    """
    try:
        with Repo(".") as repo, lock_repo(repo):
            out = _find(repo, name)
            hardlink = repo.config["core"].get("hardlink_lock", False)
            with rwlock(repo.tmp_dir, repo.fs, f"rollback of {name}", [], [out.fs_path], hardlink):
                yield out
    except DvcException as error:
        raise ValueError(f"{name}: {error}") from error


def keep(out: Output) -> str:
    """Copy the output into DVC's cache; its md5."""
    out.save()
    out.commit(relink=False)
    return str(out.hash_info.value)


@contextmanager
def restore(out: Output, md5: str) -> Iterator[Path]:
    """Put other bytes of an output, from DVC's cache, in its place.

    Yields:
        A path beside its place with the new bytes, to be looked at. Where that raises, or the process is killed, the
        old ones stay; at the end all new ones are there at once, and the old ones gone.

    Raises:
        FileNotFoundError: the cache lacks some of the bytes.
    """
    place = Path(out.fs_path)
    there = copy(out)
    there.hash_info, there.obj, there.files = HashInfo(out.hash_name, md5), None, None
    if there.changed_cache():
        raise FileNotFoundError(
            f"DVC's cache lacks some of {md5}, which {out} was: `dvc fetch --all-commits {out}` brings it from a remote"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{place.name}.", suffix=".part", dir=place.parent) as part:
        beside = Path(part) / place.name
        there.fs_path = str(beside)
        there.checkout(force=True)
        yield beside
        swap(beside, place)


def write_lock(out: Output, *, whole_stage: bool) -> None:
    """Record the output as it is now in `dvc.lock`: alone, or with its stage's command and dependencies."""
    stage = out.stage
    out.save()
    if whole_stage:
        stage.save_deps()
    now = to_single_stage_lockfile(stage)
    lock = Path(stage.dvcfile.path).with_suffix(".lock")
    written: dict[str, Any] = {"schema": "2.0", "stages": {}}
    if lock.exists():
        written = parse_yaml_for_update(lock.read_text(), lock)
    former = written["stages"].get(stage.name)
    if whole_stage:
        written["stages"][stage.name] = now
    elif former is not None:  # a stage that never ran has nothing to say: it is stale as it was
        (ours,) = (one for one in now["outs"] if one["path"] == out.def_path)
        former["outs"] = [ours if one["path"] == out.def_path else one for one in former["outs"]]
    with written_beside(lock) as beside:
        dump_yaml(beside, written)


def swap(beside: Path, place: Path) -> None:
    """Exchange two files or folders, in one step if the file system can do that."""
    if not place.exists():
        beside.rename(place)
        return
    step = getattr(ctypes.CDLL(None), "renameat2", None)
    if step and step(AT_FDCWD, os.fsencode(beside), AT_FDCWD, os.fsencode(place), RENAME_EXCHANGE) == 0:
        return
    former = beside.with_name("former")  # two steps: a kill between them leaves nothing at `place`, not half of it
    place.rename(former)
    try:
        beside.rename(place)
    except OSError:
        former.rename(place)
        raise


def _find(repo: Repo, name: str) -> Output:
    mend = "a rollback is of an output of a stage, as params.yaml and dvc.yaml have it"
    try:
        (out,) = repo.find_outs_by_path(name)
    except OutputNotFoundError:
        raise ValueError(f"{name} is no output of DVC: {mend}") from None
    if not (out.use_cache and isinstance(out.stage, PipelineStage)):
        raise ValueError(f"{name} does not lie in DVC's cache by a stage: {mend}")
    return out
