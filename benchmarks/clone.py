"""Copies of the project, in which tests and benchmarks run its commands."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner

from aisec_lab.workbench.command import main

ROOT = Path(__file__).parents[1]


class Project:
    """A project in a folder of its own, with git and DVC, in which commands can be run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def environment(self) -> dict[str, str]:
        """The caller's, with this interpreter's commands first, and the project's own package."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        return inherited | {"PATH": path, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}

    def git(self, *arguments: str) -> str:
        """Run git here; its output."""
        done = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self, message: str) -> None:
        """Commit all that git does not ignore."""
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command here, see that it exits with `code`; stdout and stderr together."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == code, done.stdout[-4000:]
        return done.stdout

    def aisec(self, *words: str, code: int = 0) -> str:
        """Run `aisec` in this process, standing here, see that it exits with `code`; stdout and stderr together.

        It is this repository's `aisec`, whatever package lies here: for what only reads the project.
        """
        with contextlib.chdir(self.root):
            done = CliRunner().invoke(main, words)
        assert done.exit_code == code, done.output[-4000:]
        return done.output

    def copy(self, root: Path) -> "Project":
        """The same project in another folder, which is made."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)


class Clone(Project):
    """A copy of this repository, but for results and locks.

    Args:
        root: an empty folder, or one that is made.
        parts: how the names of the files to copy may begin; all of them by default.
    """

    def __init__(self, root: Path, parts: Sequence[str] = ("",)) -> None:
        super().__init__(root)
        root.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in listed.stdout.splitlines():
            wanted = name.startswith(tuple(parts)) and not name.startswith("results/") and Path(name).name != "dvc.lock"
            if wanted and (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name)
        self.git("init", "-q")
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@localhost")
        self.commit("clone")
