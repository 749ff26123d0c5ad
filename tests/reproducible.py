"""Force the whole study a second time and compare every output with the first, byte for byte (`make reproducible`)."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dvc.repo import Repo

from aisec_lab.core.files import sha256_of


def digests(root: Path) -> dict[str, str]:
    """The sha256 of each `dvc.lock` and of every file that a stage gives: tables, models, notebooks, pages, metrics.

    Args:
        root: the project, with its study run.

    Returns:
        From paths below `root` to hexadecimal digits.
    """
    with Repo(str(root)) as repo:
        outputs = {Path(out.fs_path) for out in repo.index.outs}
    locks = {root / "dvc.lock", *root.glob("notebooks/*/dvc.lock")}
    files = [path for place in outputs | locks for path in (place, *place.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): sha256_of(path) for path in sorted(files)}


def differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Names that are not in both, or not with the same content."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study again where it has been run, and exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--jobs", type=int, help="stages that `aisec repro` runs at once the second time")
    how.add_argument("--dvc", action="store_true", help="run it the second time with `dvc repro`")
    how.add_argument("--cluster", metavar="ADDRESS", help="run it the second time on a Ray cluster")
    chosen = parser.parse_args(arguments)
    again = ["dvc" if chosen.dvc else "aisec", "repro", "--force"]
    if chosen.jobs:
        again += ["--jobs", str(chosen.jobs)]
    if chosen.cluster:
        again += ["--cluster", chosen.cluster]

    first = digests(Path.cwd())
    subprocess.run(again, check=True)
    lost = differing(first, digests(Path.cwd()))
    for name in lost:
        print(f"differs: {name}")
    print(f"{len(first) - len(lost)} of {len(first)} files are the same to the last byte")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
