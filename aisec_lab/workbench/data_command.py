"""`aisec data` and `aisec model`: preparing a dataset, and the way back to an earlier version."""

import os
from pathlib import Path

import click

from aisec_lab.workbench.access_command import guarded, optional_role_option, permit, permit_if_named, role_option
from aisec_lab.workbench.configuration import project_root
from aisec_lab.workbench.project_ledger import FOLDER, SIGNING_KEY

to_option = click.option(
    "--to", "index", type=int, required=True, metavar="ENTRY", help="Its number in `aisec ledger log`."
)
why_option = click.option("--why", help="[default: back to entry ENTRY]")


class ByName(click.Group):
    """A group whose first word may be a DATASET: that is `prepare`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `prepare` before what begins with no command."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["prepare", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ByName, subcommand_metavar="DATASET... | COMMAND [ARGS]...")
def data() -> None:
    """Prepare each DATASET, a NAME (in data/NAME/) or FOLDER/NAME, or go back to an earlier version."""


@data.command()
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@optional_role_option
def prepare(datasets: tuple[str, ...], role: str | None) -> None:
    """Prepare each DATASET, a NAME (in data/NAME/) or FOLDER/NAME: arrays, a card with source, licence and sha256.

    The same as `aisec data DATASET...`. A role that is named must be one that may write there. Without a role
    the policy is not applied.
    """
    os.chdir(project_root())
    places = [Path(dataset) if "/" in dataset else Path("data", dataset) for dataset in datasets]
    for place in places:
        if obj := guarded(place):
            permit_if_named(role, "write", obj)
    from aisec_lab.data.preparation import check_name
    from aisec_lab.data.preparation import prepare as prepare_dataset

    for place in places:  # all of them before the first is written
        check_name(place.name)
    for place in places:
        click.echo(prepare_dataset(place.name, place.parent))


@data.command("rollback")
@click.argument("name")
@to_option
@why_option
@role_option
def data_rollback(name: str, index: int, why: str | None, role: str | None) -> None:
    """Bring back the dataset data/NAME as ledger entry ENTRY recorded it, byte for byte, and record that.

    `dvc repro` then takes it for what its stage makes. The role must be one that may roll it back; a refusal is
    recorded.
    """
    _roll_back(f"data/{name}", index, why, role)


@click.group()
def model() -> None:
    """Go back to an earlier version of a model."""


@model.command("rollback")
@click.argument("name")
@to_option
@why_option
@role_option
def model_rollback(name: str, index: int, why: str | None, role: str | None) -> None:
    """Bring back the checkpoint models/NAME as ledger entry ENTRY recorded it, byte for byte, and record that.

    Where its stage's data, code or settings changed since it was run last, the next `dvc repro` trains it again. The
    role must be one that may roll it back; a refusal is recorded.
    """
    _roll_back(f"models/{name}", index, why, role)


def _roll_back(name: str, index: int, why: str | None, role: str | None) -> None:
    from aisec_lab.trust import Ledger, read_signing_key
    from aisec_lab.workbench.rollback import roll_back

    os.chdir(project_root())
    permit(role, "rollback", name)
    record = Ledger(FOLDER)
    record.read()  # no ledger: say that before the key is asked for
    entry = roll_back(name, index, record=record, key=read_signing_key(SIGNING_KEY), why=why)
    if entry is None:
        click.echo(f"{name} is at entry {index} already: nothing changed, nothing recorded")
    else:
        click.echo(f"entry {entry.index}: {name} is back at entry {index}, sha256 {entry.after}")
        click.echo(f"commit dvc.lock and {FOLDER}/")
