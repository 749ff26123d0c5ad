"""Every result is declared by a stage, and every declared result is collected or read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from aisec_lab.workbench.stages import RESULTS, SUMMARIES, TABLES, Declared, studies
from aisec_lab.workbench.study_table import ROWS

UNFINISHED = ".failed.ipynb"  # how the name ends that a notebook has until it is done


def check_studies(stages: Sequence[Declared]) -> None:
    """Refuse, with a ValueError, a notebook whose study has no stage `collect`: nobody would collect its results."""
    collected = studies(stages)
    for stage in stages:
        if stage.runs_notebook and stage.study not in collected:
            raise ValueError(
                f"nobody collects {stage.folder}, which {stage.address} makes: stage `collect` in dvc.yaml names the "
                f"studies {collected}, add {stage.study!r} there"
            )


def check_results(cells: Sequence[Declared], stages: Sequence[Declared], study: str) -> None:
    """Refuse, with a ValueError, results that are declared and missing, or that are there and not declared.

    Args:
        cells: the stages of the study whose results are collected.
        stages: of the whole project.
        study: its name. The folders of other studies are not looked at: their notebooks may be running.
    """
    if missing := sorted(str(cell.folder) for cell in cells if not cell.page.exists()):
        raise ValueError(f"results missing: {', '.join(missing)}; run `aisec repro`")
    outs = {Path(out) for stage in stages for out in stage.outs}
    others = {folder / name for folder in (RESULTS, SUMMARIES, TABLES) for name in studies(stages) if name != study}
    if stray := sorted({str(_topmost(file, outs)) for file in _files(RESULTS) if not _covers(outs | others, file)}):
        raise ValueError(f"results that no stage declares: {', '.join(stray)}; rm -r {' '.join(stray)}")


def check_readers(cells: Sequence[Declared], stages: Sequence[Declared], needed: Mapping[str, str]) -> None:
    """Refuse, with a ValueError, a stage that leaves nothing for the table and nothing that another notebook reads.

    Args:
        cells: the stages of the study.
        stages: of the whole project.
        needed: from the name of a notebook to the file that the study's table takes from it, if not `rows.parquet`.
    """
    read = {Path(dep) for stage in stages if stage.runs_notebook for dep in stage.deps}
    # Of a matrix one cell is enough: a model that no attack uses is still part of a grid of models.
    used = {cell.name.partition("@")[0] for cell in cells if any(_covers(read, Path(out)) for out in cell.outs)}
    for cell in cells:
        name = needed.get(cell.notebook.stem, ROWS)
        if cell.name.partition("@")[0] not in used and not (cell.folder / name).exists():
            raise ValueError(f"{cell.folder} holds no {name} and no stage reads it: save rows, or drop {cell.key}")


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder, without hidden ones and those that a notebook has not finished."""
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and not path.name.endswith(UNFINISHED):
            yield path


def _covers(places: Iterable[Path], path: Path) -> bool:
    """Whether one of the places is the path or a folder above it."""
    return not {path, *path.parents}.isdisjoint(places)


def _topmost(file: Path, outs: Iterable[Path]) -> Path:
    """The file, or the highest folder above it in which nothing is declared."""
    shared = {parent for out in outs for parent in out.parents}
    return next((folder for folder in reversed(file.parents) if folder not in shared), file)
