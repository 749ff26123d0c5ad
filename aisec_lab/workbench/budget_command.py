"""The command `aisec budget`: the privacy budget of each dataset, and how much of it is spent."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aisec_lab.workbench.configuration import project_root

if TYPE_CHECKING:
    from aisec_lab.trust.budget import BudgetBook

BOOK = Path("budget.json")
dataset_argument = click.argument("dataset", metavar="PATH")


@click.group()
def budget() -> None:
    """The privacy budget book, budget.json: a limit for each dataset, and every run and release that spends of it.

    Neighbours differ by one row that is in only one of them; a charge is made before the run or release.
    """


@budget.command("open")
@dataset_argument
@click.option("--epsilon", type=float, required=True, help="Limit, for all charges together.")
@click.option("--delta", type=float, required=True, help="Limit; below 1 / rows.")
@click.option("--rows", type=click.IntRange(1), required=True, help="How many people's rows the dataset has.")
def open_account(dataset: str, epsilon: float, delta: float, rows: int) -> None:
    """Begin the budget of the dataset at PATH, from the project's root, as its bytes are now."""
    from aisec_lab.trust.budget import Account

    name, sha256 = _named(dataset)
    _book().open(name, Account(sha256, rows, epsilon, delta))
    click.echo(f"{name}: epsilon {epsilon:g} at delta {delta:g}; commit {BOOK}")


@budget.command()
@dataset_argument
@click.option("--name", required=True, help="Of the run or release; a new one each time.")
@click.option("--q", type=float, help="A training: the probability that a row is in a step's batch …")
@click.option("--sigma", type=float, help="… its noise multiplier …")
@click.option("--steps", type=int, help="… and its steps.")
@click.option("--epsilon", type=float, help="Or a release, by what it states …")
@click.option("--delta", type=float, help="… and its delta  [default: 0]")
def charge(
    dataset: str,
    name: str,
    q: float | None,
    sigma: float | None,
    steps: int | None,
    epsilon: float | None,
    delta: float | None,
) -> None:
    """Write down what a run or release is about to spend of PATH's budget; what would pass the limit is refused."""
    from aisec_lab.privacy.accounting import Mechanism, PrivacyStatement, SampledGaussian
    from aisec_lab.trust.budget import Charge

    mechanism: Mechanism
    if q is not None and sigma is not None and steps is not None and epsilon is None and delta is None:
        mechanism = SampledGaussian(q, sigma, steps)
    elif epsilon is not None and q is None and sigma is None and steps is None:
        mechanism = PrivacyStatement(epsilon, delta or 0.0)
    else:
        raise ValueError("give --q, --sigma and --steps of a training, or --epsilon and --delta of a release")
    account = _book().charge(*_named(dataset), Charge(name, (mechanism,)))
    click.echo(f"{name}: {account.spent:.4g} of epsilon {account.epsilon:g} at delta {account.delta:g} is spent")


@budget.command()
@click.argument("dataset", metavar="[PATH]", required=False)
def show(dataset: str | None) -> None:
    """Show the accounts, or that of PATH: each charge by itself, and all together."""
    from aisec_lab.privacy.accounting import epsilons

    accounts = _book().accounts()
    if dataset is not None and (name := Path(dataset).as_posix()) not in accounts:
        raise ValueError(f"{name} has no budget, only {sorted(accounts)}")
    for name, account in sorted(accounts.items()):
        if dataset is None or name == Path(dataset).as_posix():
            stated = ", ".join(
                f"{each} {value:.4g}" for each, value in epsilons(account.mechanisms, account.delta).items()
            )
            limit = f"limit {account.epsilon:g} at delta {account.delta:g}"
            click.echo(f"{name}: epsilon {account.spent:.4g} spent ({stated}), {limit}{' EXCEEDED' * account.exceeded}")
            for each in account.charges:
                click.echo(f"  {each.name}: {each.alone:.4g} alone")


def _book() -> "BudgetBook":
    from aisec_lab.trust.budget import BudgetBook

    return BudgetBook(project_root() / BOOK)


def _named(dataset: str) -> tuple[str, str]:
    """The dataset's name in the book, and what it is now; the working directory is then the project's root."""
    from aisec_lab.trust.contents import content_sha256

    os.chdir(project_root())
    place = Path(dataset)
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise ValueError(f"{dataset}: name it by its path from the project's root, such as data/digits")
    return place.as_posix(), content_sha256(place)
