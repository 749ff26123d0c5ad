"""`aisec access`: the policy, and the checks by which the other commands apply it."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from aisec_lab.workbench.configuration import project_root
from aisec_lab.workbench.project_ledger import record_refusal

GUARDED = ("data", "models")  # folders of the project whose contents are objects of the policy
Command = Callable[..., object]


def role_option(command: Command) -> Command:
    """Let a command take `--role`."""
    return click.option(
        "--role", metavar="ROLE", help="The role that acts  [default: AISEC_ROLE]. It is not authenticated."
    )(command)


def optional_role_option(command: Command) -> Command:
    """Let a command of the pipeline take `--role`."""
    return click.option(
        "--role",
        metavar="ROLE",
        help="The role that acts  [default: AISEC_ROLE], not authenticated. Without a role the policy is not applied.",
    )(command)


def permit(role: str | None, action: str, obj: str) -> None:
    """Return if the role may do the action to the object; else a PermissionError names the roles that may.

    Args:
        role: of the option `--role`; None for that of the variable `AISEC_ROLE`.
        action, obj: an action and an object of the policy (`Access`).
    """
    from aisec_lab.trust.access import Access

    access = Access(project_root() / "configs" / "access", record=record_refusal)
    access.enforce(access.role(role), action, obj)


def permit_if_named(role: str | None, action: str, obj: str) -> None:
    """Check with `permit` if a role is named; a stage or script that names none is not checked."""
    from aisec_lab.trust.access import ROLE

    if role or os.environ.get(ROLE):
        permit(role, action, obj)


def permit_path(role: str | None, action: str, path: Path) -> None:
    """Check with `permit` a file or folder in data/ or models/ of the project; any other path is not checked."""
    if obj := guarded(path):
        permit(role, action, obj)


def guarded(path: Path) -> str | None:
    """The policy's name of a file or folder in data/ or models/ of the project; None for any other path."""
    root, place = project_root().resolve(), path.resolve()
    if any(place.is_relative_to(root / folder) for folder in GUARDED):
        return place.relative_to(root).as_posix()
    return None


@click.group()
def access() -> None:
    """Who may do what (configs/access): a policy that is stated and recorded, no authentication."""


@access.command()
@click.argument("role")
@click.argument("action")
@click.argument("obj", metavar="OBJECT")
def explain(role: str, action: str, obj: str) -> None:
    """Say which rule lets ROLE do ACTION to OBJECT, or which rules come nearest and why they do not apply."""
    from aisec_lab.trust.access import Access

    click.echo(Access(project_root() / "configs" / "access").explain(role, action, obj))


@access.command(name="list")
def list_rules() -> None:
    """Print every rule."""
    from aisec_lab.trust.access import Access

    for rule in Access(project_root() / "configs" / "access").rules:
        click.echo(f"{rule.role:12}{rule.action:10}{rule.pattern:12}{rule.why}")
