"""`aisec serve` and `aisec service`: the scoring service, its certificates and its keys."""

import os
import re
from pathlib import Path

import click

from aisec_lab.workbench.access_command import permit, role_option
from aisec_lab.workbench.configuration import project_root

SETTINGS = Path("configs/service.yaml")
MODEL = re.compile(r"models/[\w.+-]+", re.ASCII)
settings_option = click.option(
    "--settings", type=click.Path(path_type=Path, resolve_path=True), help=f"[default: {SETTINGS} of the project]"
)


@click.command()
@click.argument("model")
@settings_option
@click.option("--rollback", "why", metavar="WHY", help="First go back to the model's last good version.")
@role_option
def serve(model: str, settings: Path | None, why: str | None, role: str | None) -> None:
    """Serve MODEL, such as models/standard-0, over TLS 1.3 to those who have a key, until Ctrl-C.

    A rollback needs a role that may do it. While the service runs, a person asks it to roll back (POST /rollback).
    """
    from aisec_lab.workbench.service.serving import serve as run
    from aisec_lab.workbench.service.settings import read_settings

    os.chdir(project_root())
    name = Path(model).as_posix()
    if not MODEL.fullmatch(name) or name.endswith("/.."):
        raise ValueError(
            f"a model is served by its path from the project's root, such as models/standard-0, got {model}"
        )
    chosen = read_settings(settings or SETTINGS)
    if why:
        permit(role, "rollback", name)
        _roll_back(name, why, chosen.ledger_key)
    run(name, chosen, Path.cwd())


@click.group()
@settings_option
@click.pass_context
def service(context: click.Context, settings: Path | None) -> None:
    """Prepare the scoring service: certificates for trying it, keys of clients and people."""
    from aisec_lab.workbench.service.settings import read_settings

    os.chdir(project_root())
    context.obj = read_settings(settings or SETTINGS)


@service.command()
@click.option("--host", "hosts", multiple=True, help="Name or address of the server  [default: localhost, 127.0.0.1]")
@click.option("--client", "clients", multiple=True, metavar="NAME", help="Also a certificate for this client.")
@click.pass_context
def certificate(context: click.Context, hosts: tuple[str, ...], clients: tuple[str, ...]) -> None:
    """Make an authority for trying, and certificates that it signs; its own key is kept nowhere.

    They lie beside the server's certificate of the settings. All of them are made at once: for another client, remove
    them and make all anew.
    """
    from aisec_lab.workbench.service.certificates import CLIENT, SERVER, Authority

    tls = context.obj.tls
    folder = Path(tls.certificate).parent
    for client in clients:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", client):
            raise ValueError(f"a name is lower-case letters, digits, `.`, `_` and `-`, got {client!r}")
    authority = Authority.make()
    authority.write(folder / "ca.pem")
    authority.issue("aisec", SERVER, tls.certificate, tls.key, hosts=hosts or ("localhost", "127.0.0.1"))
    for client in clients:
        authority.issue(client, CLIENT, folder / f"{client}.pem", folder / f"{client}.key")
    click.echo(f"{tls.certificate}, valid for 90 days: clients trust {folder / 'ca.pem'}")
    click.echo(f"for mutual TLS set tls.client_certificates: true and tls.client_ca: {folder / 'ca.pem'}")


@service.command()
@click.argument("name")
@click.option("--role", required=True, help="Of the policy in configs/access.")
@click.option("--person", is_flag=True, help="With a second factor, for who releases or rolls back.")
@click.pass_context
def key(context: click.Context, name: str, role: str, person: bool) -> None:
    """Make a key for NAME and print it, this one time."""
    from aisec_lab.trust.access import Access

    Access(Path("configs/access")).role(role)
    token, address = _credentials(context).add(name, role, person=person)
    click.echo(token)
    if address:
        click.echo(address)


@service.command()
@click.argument("name")
@click.pass_context
def revoke(context: click.Context, name: str) -> None:
    """Refuse the key of NAME from now on, in every worker."""
    _credentials(context).revoke(name)
    click.echo(f"the key of {name} is refused")


@service.command()
@click.pass_context
def keys(context: click.Context) -> None:
    """List who has a key."""
    for one in _credentials(context).read().values():
        factor = "second factor" if one.totp else ""
        click.echo(f"{one.name:20} {one.role:12} {'revoked' if one.revoked else 'valid':8} {factor}".rstrip())


def _credentials(context: click.Context):  # type: ignore[no-untyped-def]
    from aisec_lab.workbench.service.credentials import CREDENTIALS, CredentialFile

    return CredentialFile(context.obj.state / CREDENTIALS)


def _roll_back(name: str, why: str, ledger_key: Path | None) -> None:
    """Before the start: no worker runs that would have to load anew."""
    from aisec_lab.trust import Ledger, read_signing_key
    from aisec_lab.workbench.project_ledger import FOLDER, SIGNING_KEY
    from aisec_lab.workbench.rollback import roll_back
    from aisec_lab.workbench.service.versions import read_versions

    goal = read_versions(name, FOLDER, ledger_key).last_good
    roll_back(name, goal.index, record=Ledger(FOLDER), key=read_signing_key(SIGNING_KEY), why=why)
    click.echo(f"{name} is back at entry {goal.index}, sha256 {goal.after}")
