"""The source of the project on the coordinator's machine, of which every node gets a copy."""

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aisec_lab.workbench.repro.parcel import pack

if TYPE_CHECKING:
    from dvc.repo import Repo

DVC_LOCK = "dvc.lock"  # no stage reads it, and it changes with each stage


class ProjectSource(NamedTuple):
    """An archive of the source.

    Args:
        name: its content's hash; equal sources have the same.
        archive: a compressed tar file.
    """

    name: str
    archive: bytes


def source_of(repo: "Repo") -> ProjectSource:
    """The files that git would see, committed or not, without outputs of stages.

    Args:
        repo: DVC's.

    Raises:
        ValueError: the project is no git repository.
    """
    root = Path(repo.root_dir)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise ValueError(f"git does not say what the project's source is ({listed.stderr.strip()}): `git init` it")
    outs = [Path(out.fs_path) for out in repo.index.outs if out.protocol == "local"]
    names = [name for name in listed.stdout.split("\0") if name and _is_source(root / name, outs)]
    files = pack(root, sorted(names), repo.state).files
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=3) as tar:
        for name in files:
            tar.add(root / name, name, filter=_plain)
    return ProjectSource(hashlib.sha256(repr(files).encode()).hexdigest()[:16], packed.getvalue())


def _is_source(file: Path, outs: list[Path]) -> bool:
    return file.is_file() and file.name != DVC_LOCK and not any(file.is_relative_to(out) for out in outs)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same for the same content: Python compiles a file again where its time differs."""
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
