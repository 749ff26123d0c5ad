"""`aisec ingest`: the rows of a delivery become an accepted version and a quarantine."""

import os
import sys
from pathlib import Path
from shlex import quote

import click

from aisec_lab.workbench.access_command import permit_path, role_option
from aisec_lab.workbench.configuration import project_root

UNCOMPARED = """\
WARNING: a first delivery, compared with nothing: all its rows are accepted. Later deliveries are compared with them.
         Write down what each column may hold, and ingest again with --dictionary (README: What comes in)."""
PATH = click.Path(path_type=Path, resolve_path=True)


@click.command()
@click.argument("source", type=PATH)
@click.argument("name")
@click.option(
    "--against", type=PATH, help="The version to compare with  [default: data/NAME of the project, if it is there]"
)
@click.option("--no-reference", is_flag=True, help="Compare with no accepted version, even if there is one.")
@click.option("--out", type=PATH, help="[default: scratch/ingest/NAME of the project]")
@click.option("--label", default="label", show_default=True, help="The column with the class, in a first table.")
@click.option(
    "--dictionary",
    type=PATH,
    help="Rules for the columns of a first table (.yaml or .csv); they stay with the dataset.",
)
@click.option(
    "--most-quarantined", default=0.05, show_default=True, help="Share of rows; above it nothing is accepted."
)
@click.option("--allow-drift", is_flag=True, help="Accept rows whose distribution has changed.")
@role_option
def ingest(
    source: Path,
    name: str,
    against: Path | None,
    no_reference: bool,
    out: Path | None,
    label: str,
    dictionary: Path | None,
    most_quarantined: float,
    allow_drift: bool,
    role: str | None,
) -> None:
    """Compare the rows of the file SOURCE with the last accepted version of the dataset NAME.

    SOURCE ends in .npz, .parquet, .csv or .tsv, the last two also in .csv.gz and .tsv.gz.
    The command writes to OUT: NAME/ (the accepted rows), quarantine.* (the others, with reasons), docs/index.html and
    verdict.json. The exit code is 1 if nothing is accepted: OUT stays as it was, and OUT.stopped says why.
    """
    from aisec_lab.data.validation import Ingestion, RefusedError, read_dictionary, stopped_at

    root = project_root()
    os.chdir(root)
    if no_reference and against:
        raise ValueError("--no-reference compares with no accepted version, --against names one: give one of them")
    accepted = root / "data" / name
    if not no_reference and against is None and (accepted / "card.json").exists():
        against = accepted
    out = out or root / "scratch" / "ingest" / name
    permit_path(role, "write", out / name)
    settings = Ingestion(most_quarantined=most_quarantined, allow_drift=allow_drift)
    try:
        rules = read_dictionary(dictionary) if dictionary else ()
        verdict = settings(source, name, out, against=against, label=label, dictionary=rules)
    except RefusedError as error:
        click.echo(f"aisec: {source.name} refused, nothing written: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    if verdict.stopped:
        click.echo(f"aisec: {verdict}: see {stopped_at(out) / 'docs' / 'index.html'}", err=True)
        sys.exit(1)
    click.echo(verdict)
    if not (against or dictionary):
        click.secho(UNCOMPARED, bold=True, err=True)
    for note in (*verdict.notes, *(f"not checked: {each}" for each in verdict.unchecked)):
        click.echo(f"note: {note}")
    place, page = out / name, out / "docs" / "index.html"
    if not place.is_relative_to(root):
        click.echo(f"see {page}; a ledger records only what lies in the project")
        return
    click.echo(f"see {page}; to record it:")
    why = f"{verdict.accepted} of {verdict.rows} incoming rows, {verdict.quarantined} quarantined"
    click.echo(f'aisec ledger append --what accept --object {quote(str(place.relative_to(root)))} --why "{why}"')
