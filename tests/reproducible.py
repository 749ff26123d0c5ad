"""Force the whole study a second time and compare every output with the first, byte for byte (`make reproducible`)."""

import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo

from aisec_lab.files import sha256_of


def digests(root: Path) -> dict[str, str]:
    """The sha256 of `dvc.lock` and of every file that a stage gives: tables, models, notebooks, pages, metrics.

    Args:
        root: the project, with its study run.

    Returns:
        From paths below `root` to hexadecimal digits.
    """
    with Repo(str(root)) as repo:
        outputs = [Path(out.fs_path) for out in repo.index.outs]
    found = {"dvc.lock": sha256_of(root / "dvc.lock")}
    for output in outputs:
        files = [path for path in (output, *output.rglob("*")) if path.is_file()]
        found |= {str(path.relative_to(root)): sha256_of(path) for path in files}
    return found


def differing(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Names that are not in both, or not with the same content."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def main() -> None:
    """Run the study again where it has been run, and exit with 1 if anything differs."""
    first = digests(Path.cwd())
    subprocess.run(["dvc", "repro", "--force"], check=True)
    lost = differing(first, digests(Path.cwd()))
    for name in lost:
        print(f"differs: {name}")
    print(f"{len(first) - len(lost)} of {len(first)} files are the same to the last byte")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
