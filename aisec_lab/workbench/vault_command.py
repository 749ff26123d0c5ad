"""`aisec vault`: keys, sealing, opening."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aisec_lab.workbench.access_command import permit_path, role_option

if TYPE_CHECKING:
    from aisec_lab.trust.vault_passphrase import Passphrase

PASSPHRASE = "AISEC_PASSPHRASE"
PATH = click.Path(path_type=Path)


@click.group()
def vault() -> None:
    """Encrypt datasets and checkpoints at rest, with a passphrase that is typed or read from AISEC_PASSPHRASE."""


@vault.command()
@click.argument("name", type=PATH)
def keygen(name: Path) -> None:
    """Make a key pair: NAME.pub seals; NAME.key opens, and is itself locked by a passphrase."""
    from aisec_lab.trust.vault_rsa import generate_keys

    for file in generate_keys(name, passphrase(f"new passphrase for {name}.key", confirm=True)):
        click.echo(file)


@vault.command()
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@click.option("--to", "public", type=PATH, metavar="NAME.pub", help="Seal for the holder of NAME.key.")
@role_option
def seal(source: Path, target: Path, public: Path | None, role: str | None) -> None:
    """Encrypt the file or folder SOURCE into the file TARGET, by a passphrase or for a key; SOURCE stays."""
    from aisec_lab.trust.vault import seal as write
    from aisec_lab.trust.vault_rsa import PublicKey

    permit_path(role, "seal", source)
    key = PublicKey.read(public) if public else passphrase(f"new passphrase for {target}", confirm=True)
    write(source, target, key)
    click.echo(target)


@vault.command(name="open")
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@click.option("--key", "private", type=PATH, metavar="NAME.key", help="What it was sealed for.")
@role_option
def open_command(source: Path, target: Path, private: Path | None, role: str | None) -> None:
    """Decrypt the sealed file SOURCE into TARGET: all of it, or an error and nothing."""
    from aisec_lab.trust.vault import open_sealed
    from aisec_lab.trust.vault_rsa import PrivateKey

    for path in (source, target):
        permit_path(role, "open", path)
    words = passphrase(f"passphrase of {private or source}")
    open_sealed(source, target, PrivateKey.read(private, words) if private else words)
    click.echo(target)


def passphrase(prompt: str, *, confirm: bool = False) -> "Passphrase":
    """The passphrase in AISEC_PASSPHRASE, else of a prompt; never an argument, which every `ps` would show."""
    from aisec_lab.trust.vault_passphrase import Passphrase

    text = os.environ.get(PASSPHRASE) or click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return Passphrase(text)
