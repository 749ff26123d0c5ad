"""A small project of its own, in which a notebook runs the lab's commands as a steward would."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from aisec_lab.workbench import data_command, ledger_command  # noqa: F401  (run in other processes: a stage reaches them)


class ScratchProject:
    """A folder with git, DVC and an empty ledger, and one dataset that DVC knows as the output of a stage.

    Args:
        root: an empty folder.
        dataset: the folder of a prepared dataset, which is copied to `data/` there.
        access: the folder of the access policy, which is copied to `configs/access` there.

    Raises:
        RuntimeError: one of the commands fails.
    """

    def __init__(self, root: Path, dataset: Path, access: Path = Path("configs/access")) -> None:
        self.root, self.dataset = root, f"data/{dataset.name}"
        shutil.copytree(access, root / "configs/access")
        shutil.copytree(dataset, root / self.dataset)
        stage = {"cmd": f"aisec data {dataset.name}", "outs": [self.dataset]}
        (root / "dvc.yaml").write_text(json.dumps({"stages": {"data": stage}}))
        for command in (
            "git init -q",
            "git config user.name Steward",
            "git config user.email steward@localhost",
            "dvc init -q",
            "aisec ledger init",
        ):
            self.run(*command.split())

    def run(self, *words: str) -> str:
        """Run a command there, in the role of a steward.

        Args:
            words: the command and its arguments.

        Returns:
            What it prints to stdout.

        Raises:
            RuntimeError: it fails; the message holds what it printed.
        """
        own = {key: value for key, value in os.environ.items() if not key.startswith(("AISEC_", "DVC_", "GIT_"))}
        own |= {"AISEC_ROLE": "steward", "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(words, cwd=self.root, env=own, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def accept(self, why: str) -> None:
        """Accept the version of the dataset that lies there: DVC stores it, and the ledger records it with `why`."""
        self.run("dvc", "commit", "-q", "-f", "data")
        self.run("aisec", "ledger", "append", "--what", "accept", "--object", self.dataset, "--why", why)

    def entries(self) -> list[dict[str, Any]]:
        """The entries of the ledger, the first one first."""
        return [json.loads(line) for line in (self.root / "ledger/entries.jsonl").read_text().splitlines()]
