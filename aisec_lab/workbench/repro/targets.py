"""What a target names, and the stages that reproducing it may run, in DVC's order."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aisec_lab.workbench.stages import ROOT_STUDY, key_of

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage
    from networkx import DiGraph

PROJECT_FILE = "dvc.yaml"


def find(stages: Sequence["Stage"], targets: Sequence[str], root: Path, here: Path) -> list["Stage"]:
    """The stages that targets name.

    Args:
        stages: all of the project.
        targets: as `dvc repro` takes them; a study, such as `robustness`; or a stage or a matrix of stages by its key,
            such as `robustness.train@trades-0`. None: the `dvc.yaml` of `here`, else of the project.
        root: the project's root.
        here: the folder as seen from which DVC's targets are meant.

    Raises:
        ValueError: a target that names nothing; the near names are listed.
    """
    found: dict[Stage, None] = {}
    own = here if (here / PROJECT_FILE).exists() else root
    for target in targets or [str(own / PROJECT_FILE)]:
        named = _by_dvc(stages, target, here) or _by_study(stages, target, root)
        if not named:
            raise ValueError(f"no stage, study or dvc.yaml {target!r}{_hint(stages, target)}")
        found |= dict.fromkeys(named)
    return list(found)


def plan(repo: "Repo", targets: Sequence[str], here: Path) -> tuple[list["Stage"], "DiGraph"]:
    """The stages that reproducing the targets may run, inputs before those that need them, and their graph.

    Args:
        repo: DVC's, locked.
        targets, here: as `find` takes them.

    Raises:
        ValueError: a target that names nothing.
    """
    import networkx as nx
    from dvc.repo.reproduce import get_active_graph, plan_repro

    graph = get_active_graph(repo.index.graph)
    wanted = set(plan_repro(graph, find(repo.index.stages, targets, Path(repo.root_dir), here)))
    # DVC looks at a small part of the graph in the order of a set, which is another in each process: we at the whole
    graph.remove_nodes_from([stage for stage in graph if stage not in wanted])
    return list(nx.dfs_postorder_nodes(graph)), graph


def _by_dvc(stages: Sequence["Stage"], target: str, here: Path) -> list["Stage"]:
    from dvc.utils import parse_target

    file, name = parse_target(target)
    path = os.path.abspath(here / (file or PROJECT_FILE))
    inside = [stage for stage in stages if os.path.abspath(stage.path) == path]
    if not name:
        return inside
    exact = [stage for stage in inside if getattr(stage, "name", None) == name]
    return exact or [stage for stage in inside if getattr(stage, "name", "").startswith(f"{name}@")]


def _by_study(stages: Sequence["Stage"], target: str, root: Path) -> list["Stage"]:
    study, _, name = target.partition(".")
    folder = root if study == ROOT_STUDY else root / "notebooks" / study
    return _by_dvc(stages, f"{PROJECT_FILE}:{name}" if name else PROJECT_FILE, folder)


def _hint(stages: Sequence["Stage"], target: str) -> str:
    keys = [key_of(stage.addressing) for stage in stages]
    studies = {key.partition(".")[0] for key in keys}
    addresses = [stage.addressing for stage in stages]
    names = {*keys, *studies, *addresses} | {name.partition("@")[0] for name in (*keys, *addresses)}
    near = difflib.get_close_matches(target, sorted(names), 3)
    return f": did you mean {' or '.join(near)}?" if near else f": the studies are {sorted(studies)}"
