"""The command `aisec`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from aisec_lab.workbench.access_command import access
from aisec_lab.workbench.budget_command import budget
from aisec_lab.workbench.code_command import code, reaches, why
from aisec_lab.workbench.configuration import configure, project_root
from aisec_lab.workbench.data_command import data, model
from aisec_lab.workbench.ingest_command import ingest
from aisec_lab.workbench.ledger_command import ledger
from aisec_lab.workbench.node_command import node
from aisec_lab.workbench.repro_command import repro
from aisec_lab.workbench.service_command import serve, service
from aisec_lab.workbench.stage import enter_stage, exit_with_parent
from aisec_lab.workbench.vault_command import vault


class FriendlyErrors(click.Group):
    """Turns an error in the input into one line and exit code 2; other errors are not caught."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (ValueError, FileNotFoundError, FileExistsError, PermissionError) as error:
            click.echo(f"aisec: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)


@click.group(cls=FriendlyErrors, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """aisec_lab: study attacks on machine learning, and what each defense gains and costs."""
    exit_with_parent()


main.add_command(access)
main.add_command(budget)
main.add_command(code)
main.add_command(ingest)
main.add_command(data)
main.add_command(ledger)
main.add_command(model)
main.add_command(node)
main.add_command(reaches)
main.add_command(repro)
main.add_command(serve)
main.add_command(service)
main.add_command(vault)
main.add_command(why)


@main.command()
@click.argument("overrides", nargs=-1)
@click.option("--check", is_flag=True, help="Only check that params.yaml is what configs/ composes to.")
def compose(overrides: tuple[str, ...], check: bool) -> None:
    """Compose configs/ with Hydra OVERRIDES into params.yaml, which every stage reads."""
    from aisec_lab.workbench.composition import check_params, write_params

    if check and overrides:
        raise ValueError(f"--check compares the defaults and takes no overrides, got {list(overrides)}")
    if check:
        check_params()
    else:
        write_params(overrides)


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("-p", "--parameter", "assignments", multiple=True, metavar="KEY=VALUE", help="A declared parameter.")
def run(notebook: Path, out: Path, assignments: tuple[str, ...]) -> None:
    """Execute NOTEBOOK and leave it, its page and its results under OUT."""
    from aisec_lab.workbench.execute import NotebookError, run_notebook

    for assignment in assignments:
        if "=" not in assignment:
            raise ValueError(f"-p {assignment}: write KEY=VALUE")
    try:
        parameters = OmegaConf.to_container(OmegaConf.from_dotlist(list(assignments)))
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"-p: no YAML value in one of {list(assignments)} ({error})") from error
    assert isinstance(parameters, dict)
    try:
        run_notebook(notebook, out, {str(name): value for name, value in parameters.items()})
    except NotebookError as error:
        click.echo(f"{error}\naisec: `dvc checkout` and `git checkout` restore the former result", err=True)
        sys.exit(1)


@main.command()
@click.argument("study")
def collect(study: str) -> None:
    """Gather the rows of STUDY's notebooks into results/tables/STUDY; a missing or undeclared result is an error."""
    from aisec_lab.workbench.collect import collect as gather
    from aisec_lab.workbench.stages import COMMAND_READS

    os.chdir(project_root())
    enter_stage(COMMAND_READS.get(f"aisec collect {study}", ()))
    gather(study)


@main.command()
def table() -> None:
    """Put the tables of all studies into results/table.parquet, and their claims into results/metrics.json."""
    from aisec_lab.workbench.collect import merge
    from aisec_lab.workbench.stages import COMMAND_READS

    enter_stage(COMMAND_READS["aisec table"])
    merge(configure(reads=COMMAND_READS["aisec table"]))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("reports"))
def report(folder: Path) -> None:
    """Gather the pages of every notebook under FOLDER, with an index."""
    from aisec_lab.workbench.report import write_report
    from aisec_lab.workbench.stages import COMMAND_READS

    enter_stage(COMMAND_READS["aisec report"])
    write_report(configure(reads=COMMAND_READS["aisec report"]), folder)


@main.command()
def verify() -> None:
    """Compare what this machine computed with the committed results/metrics.json."""
    from aisec_lab.evaluation import compare_claims

    here = project_root() / "results" / "metrics.json"
    if not here.exists():
        raise FileNotFoundError("no results/metrics.json: run `make repro` first")
    committed = subprocess.run(
        ["git", "show", "HEAD:./results/metrics.json"], cwd=project_root(), capture_output=True, text=True, check=False
    )
    if committed.returncode:
        raise ValueError(f"no committed results/metrics.json to compare with ({committed.stderr.strip()})")
    found, claimed = json.loads(here.read_text()), json.loads(committed.stdout)
    if found["data"] != claimed["data"]:
        raise ValueError(
            f"computed on {found['data']}, claimed for {claimed['data']}: choose the data of the claims "
            "(`git checkout params.yaml`, `aisec repro`), or commit the new results"
        )
    identical = found["machine"] == claimed["machine"]
    click.echo(
        "the machine of the claims: values must be equal" if identical else "another machine: values within intervals"
    )
    verdicts = compare_claims(found["claims"], claimed["claims"], identical=identical)
    for verdict in verdicts:
        click.echo(verdict)
    failed = [verdict for verdict in verdicts if not verdict.reproduced]
    click.echo(f"{len(verdicts) - len(failed)} of {len(verdicts)} claims reproduced")
    sys.exit(1 if failed else 0)


@main.command()
def datasets() -> None:
    """List the datasets of the catalog."""
    from aisec_lab.data import CATALOG

    for name, entry in CATALOG.items():
        click.echo(f"{name:16} {entry.title}: {entry.licence}")


if __name__ == "__main__":
    main(prog_name="aisec")
