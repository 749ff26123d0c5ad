"""DVC's remote as the way on which files travel between the machines of a cluster."""

from pathlib import Path
from typing import TYPE_CHECKING

from aisec_lab.workbench.repro.parcel import Parcel

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc_data.hashfile.db import HashFileDB


def default_remote(repo: "Repo") -> "HashFileDB | None":
    """Where the default remote keeps files by their md5; None where none is configured.

    Raises:
        DvcException: a remote that keeps versions of files under their names, where none can be found by its content.
    """
    return repo.cloud.get_remote_odb() if repo.config["core"].get("remote") else None


def push(remote: "HashFileDB", root: Path, parcel: Parcel) -> None:
    """Put files into a remote, where `dvc pull` finds them too.

    Args:
        remote: as `default_remote` gives it.
        root: the folder from which the parcel's paths are meant.
        parcel: of files below the root.
    """
    from dvc_objects.fs.local import localfs

    files = {blob.md5: str(root / path) for path, blob in parcel.files.items()}
    remote.add(list(files.values()), localfs, list(files))
