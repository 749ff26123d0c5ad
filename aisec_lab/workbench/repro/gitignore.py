"""`.gitignore`, to which DVC adds the outputs of a stage as it records it: in the order of the plan here too."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aisec_lab.workbench.repro.lock import Journal

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage


class Ignored:
    """The `.gitignore` files that a run may add to.

    Args:
        repo: DVC's.
        steps: the stages in the order of the plan.
        journal: what is known of the files from earlier runs.
    """

    def __init__(self, repo: "Repo", steps: Sequence["Stage"], journal: Journal) -> None:
        self.repo, self.journal = repo, journal
        self.places: dict[Path, dict[str, int]] = {}  # file to its possible lines, each with its place in the plan
        for place, path in enumerate(path for stage in steps for path in _ignorable(stage)):
            self.places.setdefault(_file(path), {})[_line(path)] = place

    @contextmanager
    def in_order(self, stage: "Stage") -> Iterator[None]:
        """Whatever DVC adds in here for a stage is put where it would be, had the plan been followed one by one."""
        young = {}
        for file in {_file(path) for path in _ignorable(stage)}:
            lines = file.read_text().splitlines() if file.exists() else []
            young[file] = self.journal.young(file, lines, list(self.places[file]), at_once=True)
        known = len(self.repo.scm_context.ignored_paths)
        yield
        for path in map(Path, self.repo.scm_context.ignored_paths[known:]):
            file = _file(path)
            young[file].add(_line(path))
            self._sort(file, young[file])

    def _sort(self, file: Path, young: set[str]) -> None:
        lines = file.read_text().splitlines()
        ordered = iter(sorted((line for line in lines if line in young), key=self.places[file].__getitem__))
        beside = self.journal.path.with_name("gitignore.part")
        beside.write_text("".join(f"{next(ordered) if line in young else line}\n" for line in lines))
        beside.replace(file)


def _ignorable(stage: "Stage") -> list[Path]:
    return [Path(out.fs_path) for out in stage.outs if out.use_scm_ignore]


def _file(path: Path) -> Path:
    return path.parent / ".gitignore"


def _line(path: Path) -> str:
    return f"{os.sep}{path.name}"
