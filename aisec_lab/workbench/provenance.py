"""For an entry of the ledger: the author, the commit, the configuration, and where the bytes can be restored from."""

import getpass
import subprocess
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from aisec_lab.workbench.configuration import config_hash


def git_author() -> str:
    """Name and address as git knows them, else the name of the account."""
    name, address = _git("config", "user.name"), _git("config", "user.email")
    return f"{name} <{address}>" if name and address else name or getpass.getuser()


def commit() -> str | None:
    """The commit that the project in the working directory stands on, or None."""
    return _git("rev-parse", "--verify", "HEAD")


def configuration() -> str | None:
    """The hash of `params.yaml`, as `config_hash` has it, or None without one."""
    if not Path("params.yaml").exists():
        return None
    config = OmegaConf.load("params.yaml")
    assert isinstance(config, DictConfig)
    return config_hash(config)


def restore(name: str) -> str | None:
    """Where the bytes that are at `name` now can be restored from.

    Args:
        name: path of an output of DVC, or of a file or folder in git, from the project's root.

    Returns:
        `dvc:<md5>` if DVC's cache has all of it (whether or not `dvc.lock` names it yet); `git:<commit>` if it is
        committed as it is; else None: after the next change these bytes cannot be restored.
    """
    if md5 := _in_cache(name):
        return f"dvc:{md5}"
    committed = _git("ls-tree", "HEAD", "--", name)
    if committed and not _git("status", "--porcelain", "--ignored", "--", name):
        return f"git:{commit()}"
    return None


def _in_cache(name: str) -> str | None:
    from dvc.exceptions import NotDvcRepoError, OutputNotFoundError
    from dvc.repo import Repo  # half a second that only an append pays

    try:
        (output,) = Repo(".").find_outs_by_path(name)
    except (NotDvcRepoError, OutputNotFoundError):
        return None
    if not output.use_cache:
        return None
    output.hash_info = output.get_hash()  # of the bytes that are there, not those that dvc.lock names
    output.obj = None
    return None if output.changed_cache() else str(output.hash_info.value)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
