"""`aisec code`, `aisec why` and `aisec reaches`: what a stage depends on, why it is stale, and what a file changes."""

import os
from pathlib import Path

import click

from aisec_lab.workbench.configuration import project_root


@click.command()
def code() -> None:
    """Write code.json, a hash of the code and of each parameter of every stage, and reach.json, which code that is."""
    from aisec_lab.workbench.keys import current_keys, write_keys
    from aisec_lab.workbench.stages import declared

    root = project_root()
    os.chdir(root)
    write_keys(root, current_keys(root, declared()))


@click.command()
@click.argument("stage")
def why(stage: str) -> None:
    """Say whether STAGE is stale, and why: which code, parameter, input or output changed since it was last run.

    STAGE is named as DVC does (notebooks/robustness/dvc.yaml:train@standard-0), by its study
    (robustness.train@standard-0), or alone where no other study has a stage of that name (train@standard-0).
    """
    from aisec_lab.workbench.why import explain

    os.chdir(project_root())
    click.echo(explain(stage))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def reaches(file: Path) -> None:
    """List the stages that FILE reaches: a module, a notebook, a configuration file, or an input such as data."""
    from aisec_lab.workbench.reaches import stages_reached

    path = Path(os.path.relpath(file.absolute(), root := project_root()))
    os.chdir(root)
    click.echo(stages_reached(path))
