"""The budget book: the privacy budget of each dataset, and what runs and releases have spent of it."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aisec_lab.core.files import write_json
from aisec_lab.privacy.accounting import Mechanism, PrivacyStatement, SampledGaussian, check_target, epsilon
from aisec_lab.trust.records import SHA256

SCHEMA = 1
KINDS: dict[str, type[Mechanism]] = {"sampled_gaussian": SampledGaussian, "statement": PrivacyStatement}
ROUNDING = 1e-9  # for rounding: ten charges of 0.1 may be spent of a limit of 1


@dataclass(frozen=True)
class Charge:
    """What one run or release spends.

    Args:
        name: of the run or release; one printable line.
        mechanisms: the private mechanisms that it runs on the rows.
        alone: its own epsilon at the limit's delta. The book computes it, only for people to read.
    """

    name: str
    mechanisms: tuple[Mechanism, ...]
    alone: float | None = None

    def __post_init__(self) -> None:
        if not (self.name.strip() and self.name.isprintable()):
            raise ValueError(f"a charge's name must be one printable line, got {self.name!r}")
        if not self.mechanisms:
            raise ValueError(f"{self.name}: a charge needs a mechanism; what touches no rows is not charged")


@dataclass(frozen=True)
class Account:
    """A dataset's budget.

    Args:
        sha256: of the dataset, from `content_sha256`.
        rows: number of rows of the dataset.
        epsilon, delta: the limit, for all charges together; `delta` below 1 / rows.
        charges: in the order in which they were made.
    """

    sha256: str
    rows: int
    epsilon: float
    delta: float
    charges: tuple[Charge, ...] = ()

    def __post_init__(self) -> None:
        check_target(self.epsilon, self.delta, self.rows)
        if not SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 must be its 64 hexadecimal digits, got {self.sha256!r}")

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """The mechanisms of all charges."""
        return tuple(mechanism for charge in self.charges for mechanism in charge.mechanisms)

    @property
    def spent(self) -> float:
        """Epsilon of all charges together at the limit's delta; `inf` if that delta is too small for them."""
        return epsilon(self.mechanisms, self.delta)

    @property
    def exceeded(self) -> bool:
        """Whether more is spent than the limit, which can happen if two branches of the book are merged."""
        return self.spent > self.epsilon * (1 + ROUNDING)


@dataclass(frozen=True)
class BudgetBook:
    """A file of JSON with an account for each dataset, for git to hold: sorted, and without time or host.

    What is spent is exact for charges whose parameters were fixed before the first result was seen. If a later charge
    was chosen by the output of an earlier one, only basic composition and that of Rényi divergences of one order are
    proven to keep a limit (Feldman & Zrnic, 2021, arXiv:2008.11193).

    One writer at a time replaces the whole file. It locks a file beside it with `flock`, but not while an epsilon is
    computed. When `charge` returns, the book is on the disk. So charge first and release then: a kill between the two
    wastes budget but breaks no guarantee. A user who may write the file can change it; git and the ledger show
    who did.
    """

    path: Path

    def accounts(self) -> dict[str, Account]:
        """All accounts, by the datasets' names; none if there is no book yet.

        Raises:
            ValueError: a file that is no budget book, or one of a later schema.
        """
        if not self.path.exists():
            return {}
        try:
            book = json.loads(self.path.read_bytes())
            schema = book["schema"]
            if schema == SCHEMA:
                return {name: _read(account) for name, account in book["datasets"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path} is no budget book ({error!r}): bring it back with git") from error
        raise ValueError(f"{self.path} has schema {schema}, not {SCHEMA}: read it with the version that wrote it")

    def open(self, dataset: str, account: Account) -> None:
        """Open an account for a dataset.

        Raises:
            ValueError: the dataset has an account, or the same bytes have one under another name.
        """
        with self._locked() as accounts:
            if dataset in accounts:
                raise ValueError(f"{dataset} has a budget: a limit that moves is none, so it stays")
            for name, other in accounts.items():
                if other.sha256 == account.sha256:
                    raise ValueError(f"{dataset} is {name} byte for byte, which has a budget: charge that one")
            self._write(accounts | {dataset: account})

    def charge(self, dataset: str, sha256: str, charge: Charge) -> Account:
        """Write down what a run or release is about to spend.

        Args:
            dataset, sha256: name and content of the dataset.
            charge: a new one, even if it repeats an earlier one: a release with fresh noise reveals more.

        Returns:
            The account after it.

        Raises:
            ValueError: no such account, a dataset with other bytes, a name that was charged before, or a charge over
                the limit. Nothing is written then.
        """
        before = _chargeable(self.accounts(), dataset, sha256, charge)
        while True:
            after = _charged(before, dataset, charge)  # may take minutes: outside the lock
            with self._locked() as accounts:
                now = _chargeable(accounts, dataset, sha256, charge)
                if now == before:
                    self._write(accounts | {dataset: after})
                    return after
            before = now  # another writer was faster: add up again

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Account]]:
        """The accounts, locked against other writers; the lock ends with the process, however that ends."""
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:  # never removed: two could hold it
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.accounts()

    def _write(self, accounts: Mapping[str, Account]) -> None:
        datasets = {name: _written(account) for name, account in accounts.items()}
        write_json(self.path, {"schema": SCHEMA, "datasets": datasets})
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a power cut could restore the older book after the release
        finally:
            os.close(folder)


def _chargeable(accounts: Mapping[str, Account], dataset: str, sha256: str, charge: Charge) -> Account:
    """The account for a charge; ValueError if there is none, its bytes differ, or the charge was made before."""
    if dataset not in accounts:
        raise ValueError(f"{dataset} has no budget, only {sorted(accounts)}: open one (`aisec budget open`)")
    account = accounts[dataset]
    if account.sha256 != sha256:
        raise ValueError(
            f"{dataset} has sha256 {sha256[:12]}, its budget was opened for {account.sha256[:12]}: "
            "bring those bytes back, or open a budget under another name"
        )
    if charge.name in {each.name for each in account.charges}:
        mend = "fresh noise needs a name of its own, the same result again no charge"
        raise ValueError(f"{charge.name} was charged to {dataset}: {mend}")
    return account


def _charged(before: Account, dataset: str, charge: Charge) -> Account:
    """The account after a charge; ValueError if more than its limit would be spent."""
    charge = replace(charge, alone=epsilon(charge.mechanisms, before.delta))
    after = replace(before, charges=(*before.charges, charge))
    if after.exceeded:
        limit = f"its limit {before.epsilon:g} at delta {before.delta:g}"
        raise ValueError(
            f"{charge.name} would bring {dataset} from epsilon {before.spent:.4g} to {after.spent:.4g}, past "
            f"{limit}: nothing was written; add noise or take fewer steps"
        )
    return after


def _written(account: Account) -> dict[str, Any]:
    charges = [
        {**vars(charge), "mechanisms": [{"kind": _kind(each), **vars(each)} for each in charge.mechanisms]}
        for charge in account.charges
    ]
    return {**vars(account), "charges": charges}


def _read(account: Mapping[str, Any]) -> Account:
    charges = (
        Charge(**{**charge, "mechanisms": tuple(_mechanism(**each) for each in charge["mechanisms"])})
        for charge in account["charges"]
    )
    return Account(**{**account, "charges": tuple(charges)})


def _mechanism(kind: str, **facts: Any) -> Mechanism:
    return KINDS[kind](**facts)


def _kind(mechanism: Mechanism) -> str:
    return next(name for name, kind in KINDS.items() if isinstance(mechanism, kind))
