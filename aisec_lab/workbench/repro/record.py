"""The steps of `dvc repro` for one stage, taken apart where the command runs: what comes before it and what after.

This is `Stage.reproduce`, `Stage.run` and `run_stage` of DVC 3.67.1, in their order. What they call is private to DVC;
`tests/workbench/test_repro.py` names all of it.
"""

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvc.stage import Stage


class Decision(Enum):
    """What is to be done with a stage."""

    UNCHANGED = "unchanged"  # nothing
    RESTORED = "restored"  # its outputs are there, and recorded in the stage: its entry in dvc.lock is to be written
    RUN = "run"  # its former outputs are gone: its command is to be run, then `record`


def prepare(stage: "Stage", upstream: Sequence["Stage"], *, force: bool) -> Decision:
    """Decide what is to be done with a stage whose inputs are all there, and do what comes before its command.

    Args:
        stage: DVC's.
        upstream: the stages that its inputs come from.
        force: run it even if it is up to date.

    Raises:
        DvcException: an input is missing, or outputs cannot be removed or restored.
    """
    from dvc.stage.cache import RunCacheNotFoundError

    if not runs(stage):  # a file that is tracked as it is, or a frozen stage: DVC does all of it
        done = stage.reproduce(force=force, upstream=list(upstream))
        return Decision.RESTORED if done else Decision.UNCHANGED
    if not force and not stage.changed(False, list(upstream)):
        return Decision.UNCHANGED
    stage.remove_outs(ignore_remove=False, force=False)
    if force:
        return Decision.RUN
    try:
        stage.repo.stage_cache.restore(stage)
    except RunCacheNotFoundError:
        stage.save_deps()
        return Decision.RUN
    record(stage)
    return Decision.RESTORED


def runs(stage: "Stage") -> bool:
    """Whether a stage is one whose command may have to be run."""
    return bool(stage.cmd) and not stage.frozen


def record(stage: "Stage") -> None:
    """Save the state of its inputs and outputs in the stage, put its outputs into the cache, and remember the run.

    Raises:
        DvcException: an output is not there.
    """
    outside = any(not out.use_cache for out in stage.outs if not (out.is_metric or out.is_plot))
    stage.save(allow_missing=False, run_cache=not outside)
    stage.commit(allow_missing=False)
