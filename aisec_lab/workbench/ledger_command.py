"""The command `aisec ledger`: what was done to data and models, and whether that record is whole."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aisec_lab.workbench.access_command import guarded, optional_role_option, permit_if_named
from aisec_lab.workbench.configuration import project_root
from aisec_lab.workbench.project_ledger import FOLDER, SIGNING_KEY, VERSIONS

if TYPE_CHECKING:
    from aisec_lab.trust import Ledger

FILE = click.Path(path_type=Path, resolve_path=True, dir_okay=False)
of_key = click.option("--key", type=FILE, help="Your copy of the public key  [default: the one beside the ledger]")
of_head = click.option("--head", "kept", type=FILE, help="A head.json that you kept elsewhere.")


@click.group()
@click.option("--folder", type=click.Path(path_type=Path, resolve_path=True), help="[default: ledger/ of the project]")
@click.pass_context
def ledger(context: click.Context, folder: Path | None) -> None:
    """The signed, append-only record of what was done to datasets and models.

    If --role or AISEC_ROLE names a role, the policy (configs/access) must allow it the action: append for init and
    append, read for log and prove, verify for verify. A refusal is recorded. The policy does not apply to a copy of the
    ledger elsewhere.
    """
    context.obj = folder


@ledger.command()
@optional_role_option
@click.pass_context
def init(context: click.Context, role: str | None) -> None:
    """Begin a ledger, and make its key pair; the private key stays in .aisec/, outside git."""
    from aisec_lab.trust import HEAD, Ledger

    _permit(context, role, "append")
    folder, key_file = _folder(context), _signing_key()
    Ledger.create(folder, key_file)
    click.echo(f"{folder} begins: commit it. Back up {key_file}: without it nothing can be appended.")
    click.echo(f"Keep copies of {folder / HEAD} where nobody can change them: only they show a ledger cut short.")


@ledger.command()
@click.option("--who", help="[default: git's user.name and user.email, else the account]")
@click.option("--what", required=True, metavar="ACTION", help="One word: accept, quarantine, train, …")
@click.option("--object", "name", required=True, metavar="PATH", help="From the project's root, such as data/digits.")
@click.option("--why", required=True)
@optional_role_option
@click.pass_context
def append(context: click.Context, who: str | None, what: str, name: str, why: str, role: str | None) -> None:
    """Record what was done to a file or folder, with its sha256 now and the one recorded before.

    To record a version that a rollback may go back to (accept, train), a role must also be one that may write it.
    """
    from aisec_lab.trust import LedgerChange, content_sha256, read_signing_key
    from aisec_lab.workbench import provenance

    _permit(context, role, "append")
    record, key_file = _ledger(context), _signing_key()
    place = Path(name)
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise ValueError(f"--object {name}: name it by its path from the project's root, such as data/digits")
    name = place.as_posix()
    if what in VERSIONS and (obj := guarded(place)):
        permit_if_named(role, "write", obj)
    if not place.exists() and record.last(name) is None:
        raise FileNotFoundError(f"no file or folder {name}, and the ledger knows of none")
    key = read_signing_key(key_file)
    after = content_sha256(place) if place.exists() else None
    restore = provenance.restore(name) if after else None
    change = LedgerChange(
        who=who or provenance.git_author(),
        action=what,
        object=name,
        why=why,
        after=after,
        restore=restore,
        commit=provenance.commit(),
        config=provenance.configuration(),
    )
    entry = record.append(change, key)
    click.echo(f"entry {entry.index}: {what} {name}, sha256 {_short(entry.before)} -> {_short(after)}")
    if after and not restore:
        click.echo(f"note: nothing keeps these bytes ({name} is neither in DVC's cache nor committed)")


@ledger.command()
@click.option("--object", "name", metavar="PATH", help="Only entries about this one.")
@of_key
@optional_role_option
@click.pass_context
def log(context: click.Context, name: str | None, key: Path | None, role: str | None) -> None:
    """Show the entries, as far as they hold."""
    from aisec_lab.trust import LedgerEntry, read_verifying_key, verify

    _permit(context, role, "read")
    record = _ledger(context)
    verdict = verify(record, read_verifying_key(key or _public_key(record)))
    sound = record.read().lines[: verdict.size if verdict.entry is None else verdict.entry]
    for entry in map(LedgerEntry.parse, sound):
        if name in (None, entry.object):
            change = f"{_short(entry.before)} -> {_short(entry.after)}"
            click.echo(
                f"{entry.index:4} {entry.time} {entry.who}: {entry.action} {entry.object} ({change}): {entry.why}"
            )
    _refuse(verdict.fault and str(verdict))


@ledger.command()
@of_head
@of_key
@optional_role_option
@click.pass_context
def verify(context: click.Context, kept: Path | None, key: Path | None, role: str | None) -> None:
    """Find any edit, deletion, insertion, reordering or truncation; exit code 1 and the first bad entry if there is."""
    from aisec_lab.trust import read_head, read_verifying_key
    from aisec_lab.trust import verify as verdict_on

    _permit(context, role, "verify")
    record = _ledger(context)
    public_key = read_verifying_key(key or _public_key(record))
    verdict = verdict_on(record, public_key, head=read_head(kept) if kept else None)
    _refuse(verdict.fault and str(verdict))
    click.echo(verdict)
    if not kept:
        click.echo("note: only a head kept elsewhere shows whether it was cut short and its own head put back (--head)")


@ledger.command()
@click.argument("index", type=int, required=False)
@click.option("--since", type=FILE, help="Prove instead that all that this head was signed over is still there.")
@optional_role_option
@click.pass_context
def prove(context: click.Context, index: int | None, since: Path | None, role: str | None) -> None:
    """Write as JSON the proof that entry INDEX is in the ledger, or that it still begins as it once was."""
    from aisec_lab.trust import read_head

    if (index is None) == (since is None):
        raise ValueError("give an INDEX, or --since with a head that was kept")
    _permit(context, role, "read")
    record = _ledger(context)
    proof = record.prove_consistency(read_head(since)) if since else record.prove_inclusion(index or 0)
    click.echo(json.dumps(proof, indent=2, sort_keys=True, ensure_ascii=False))


@ledger.command("check-proof")
@click.argument("file", type=FILE)
@of_head
@of_key
@click.pass_context
def check_proof(context: click.Context, file: Path, kept: Path | None, key: Path | None) -> None:
    """Check a proof without the ledger: its hashes, the signatures of its heads, and --head if you hold one."""
    from aisec_lab.trust import find_proof_error, read_head, read_verifying_key

    if not file.exists():
        raise FileNotFoundError(f"no proof at {file}")
    try:
        proof = json.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} is no proof: {error}") from error
    public_key = read_verifying_key(key or _public_key(_ledger(context)))
    _refuse(find_proof_error(proof, public_key, head=read_head(kept) if kept else None))
    click.echo(
        f"entry {proof['index']} is in the ledger of {proof['head']['size']}: {proof['entry']}"
        if proof["kind"] == "inclusion"
        else f"the ledger of {proof['head']['size']} begins with all {proof['old']['size']} entries of the older head"
    )


def _permit(context: click.Context, role: str | None, action: str) -> None:
    """Ask the policy about the project's ledger, however its folder was named."""
    if context.obj is not None:
        try:
            own = (project_root() / FOLDER).resolve()
        except FileNotFoundError:  # an auditor's copy, far from any project
            return
        if context.obj != own:
            return
    permit_if_named(role, action, "ledger")


def _folder(context: click.Context) -> Path:
    """The ledger's folder; the working directory is then the project's root, unless the folder was named."""
    if context.obj is not None:
        return Path(context.obj)
    os.chdir(project_root())
    return FOLDER


def _signing_key() -> Path:
    os.chdir(project_root())
    return SIGNING_KEY


def _ledger(context: click.Context) -> "Ledger":
    from aisec_lab.trust import Ledger

    return Ledger(_folder(context))


def _public_key(record: "Ledger") -> Path:
    from aisec_lab.trust import PUBLIC_KEY

    record.read()  # no ledger: say that first
    return record.folder / PUBLIC_KEY


def _refuse(fault: str | None) -> None:
    if fault:
        click.echo(f"aisec: {fault}", err=True)
        sys.exit(1)


def _short(sha256: str | None) -> str:
    return sha256[:12] if sha256 else "nothing"
