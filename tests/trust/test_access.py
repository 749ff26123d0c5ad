"""The default policy says what its readers believe it says; pycasbin and the explanations agree."""

import itertools
from pathlib import Path
from typing import NamedTuple

import pytest

from aisec_lab.trust.access import ACTIONS, Access, AccessRefusal
from tests.clone import ROOT

POLICY = ROOT / "configs" / "access"
OBJECTS = ("data/digits", "data/digits/train.npz", "models/standard-0", "ledger", "budget", "results/table", "data")
MODEL = (POLICY / "model.conf").read_text()


class Case(NamedTuple):
    """A question, and the answer that a person would expect."""

    role: str
    action: str
    object: str
    allowed: bool


CASES = [
    Case("steward", "write", "data/digits", True),
    Case("steward", "rollback", "data/digits", True),
    Case("steward", "open", "data/digits.sealed", True),
    Case("steward", "write", "models/standard-0", False),
    Case("researcher", "read", "data/digits/train.npz", True),
    Case("researcher", "write", "data/digits", False),
    Case("researcher", "open", "data/digits.sealed", False),
    Case("researcher", "write", "models/standard-0", True),
    Case("researcher", "release", "models/standard-0", False),
    Case("researcher", "write", "budget", False),
    Case("auditor", "verify", "ledger", True),
    Case("auditor", "append", "ledger", False),
    Case("auditor", "read", "data/digits", False),
    Case("service", "read", "models/standard-0", True),
    Case("service", "read", "data/digits", False),
    Case("service", "append", "ledger", True),
    Case("client", "query", "models/standard-0", True),
    Case("client", "read", "models/standard-0", False),
    Case("client", "read", "quarantine", False),
    Case("operator", "release", "quarantine", True),
    Case("operator", "release", "models/standard-0", False),
    Case("operator", "rollback", "models/standard-0", True),
    Case("operator", "rollback", "data/digits", False),
    Case("monitor", "read", "service", True),
    Case("monitor", "read", "quarantine", False),
    Case("steward", "read", "data", False),
    Case("steward", "read", "database", False),
    Case("steward", "read", "other/data/digits", False),
]


@pytest.fixture(scope="module")
def access() -> Access:
    return Access(POLICY)


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case[:3])))
def test_the_default_policy(case: Case, access: Access) -> None:
    """What each role is for; a pattern covers what lies below its folder, and nothing that only looks like it."""
    assert access.allowed(*case[:3]) is case.allowed


def test_nobody_rewrites_the_ledger_and_only_the_steward_releases(access: Access) -> None:
    """Over all roles and actions: what no line may ever grant."""
    granted = {q for q in itertools.product(access.roles, ACTIONS, OBJECTS) if access.allowed(*q)}
    assert {action for _, action, obj in granted if obj == "ledger"} == {"read", "append", "verify"}
    assert {role for role, action, _ in granted if action == "release"} == {"steward"}
    assert {action for role, action, _ in granted if role == "auditor"} == {"read", "verify"}
    trains = {role for role, action, obj in granted if action == "write" and obj.startswith("models/")}
    assert not trains & {role for role, action, obj in granted if action == "release" and obj.startswith("models/")}


def test_the_explanation_says_what_pycasbin_decides(access: Access) -> None:
    """For every question: the rule that grants it misses nothing, every rule that is shown misses what it says."""
    for role, action, obj in itertools.product(access.roles, ACTIONS, OBJECTS):
        text = access.explain(role, action, obj)
        fitting = [rule for rule in access.rules if not rule.misses(role, action, obj)]
        assert bool(fitting) is access.allowed(role, action, obj)
        assert text.startswith(f"{role} may {action} {obj}, " if fitting else f"{role} may not {action} {obj}: ")
        assert not fitting or f"\n  {fitting[0]}" in text


def test_the_nearest_rules_come_with_what_they_miss(access: Access) -> None:
    """Role, action and object, each a near miss of its own."""
    assert access.explain("researcher", "write", "data/digits").splitlines() == [
        "researcher may not write data/digits: no rule grants it, the nearest rules:",
        "  p, steward, write, data/*, to accept a new version or quarantine its rows",
        "    but it is for steward",
        "  p, researcher, read, data/*, to train and to evaluate",
        "    but it allows read",
        "  p, researcher, write, models/*, to train",
        "    but it covers models/*",
    ]


def test_a_refusal_is_recorded_before_it_is_raised() -> None:
    """Once each, and nothing for what is granted; the error is one line that says who may."""
    seen: list[AccessRefusal] = []
    access = Access(POLICY, seen.append)
    access.enforce("steward", "write", "data/digits")
    assert seen == []
    with pytest.raises(
        PermissionError, match=r"^researcher may not write data/digits \(steward may\): `aisec access ex"
    ):
        access.enforce("researcher", "write", "data/digits")
    with pytest.raises(PermissionError, match=r"\(nobody may\)"):
        access.enforce("auditor", "write", "ledger")
    assert seen == [AccessRefusal("researcher", "write", "data/digits"), AccessRefusal("auditor", "write", "ledger")]


def test_a_refusal_that_cannot_be_recorded_is_still_one() -> None:
    """The ledger's error comes through in its place."""

    def full(refusal: AccessRefusal) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        Access(POLICY, full).enforce("researcher", "write", "data/digits")


@pytest.mark.parametrize("obj", [
    "data/../ledger", "data/..", "../data/x", "./data/x", "data//x", "/data/x", "data/x/", "", "data/*", "data/x\n",
])  # fmt: skip
def test_an_object_is_a_plain_name(obj: str, access: Access) -> None:
    """`data/../ledger` begins with `data/` and is the ledger."""
    with pytest.raises(ValueError, match="name it from the project's root"):
        access.allowed("steward", "read", obj)


@pytest.mark.parametrize(("question", "message"), [
    (("researchr", "read", "ledger"), "no role 'researchr': did you mean 'researcher'?"),
    (("researcher", "reed", "ledger"), "no action 'reed': did you mean 'read'?"),
    (("", "read", "ledger"), "no role '': there are steward"),
])  # fmt: skip
def test_a_misspelt_name_is_no_refusal_but_an_error(question: tuple[str, str, str], message: str) -> None:
    """Nothing is recorded against anybody."""
    seen: list[AccessRefusal] = []
    with pytest.raises(ValueError, match=message):
        Access(POLICY, seen.append).enforce(*question)
    assert seen == []


def test_the_role_is_an_option_or_the_environments(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option first; nobody is anybody by default."""
    monkeypatch.delenv("AISEC_ROLE", raising=False)
    with pytest.raises(ValueError, match="who are you"):
        access.role()
    monkeypatch.setenv("AISEC_ROLE", "auditor")
    assert access.role() == "auditor"
    assert access.role("steward") == "steward"
    monkeypatch.setenv("AISEC_ROLE", "auditr")
    with pytest.raises(ValueError, match="did you mean 'auditor'"):
        access.role()


BROKEN = {
    "p, steward, reed, data/*, why": "no action 'reed'",
    "p, steward, read, data/*": "should be `p, role, action, object, why`",
    "p, steward, read, data/*, why, and why": "should be `p, role, action, object, why`",
    "p, steward, read, data/*, ": "should be `p, role, action, object, why`",
    "p, steward, read, *, why": "an object is a name",
    "p, steward, read, data/*.npz, why": "an object is a name",
    "p, steward, read, data/../ledger, why": "an object is a name",
    "q, steward, read, data/*, why": "2 lines, of which pycasbin takes 1",
    "steward, read, data/*, why": "2 lines, of which pycasbin takes 1",
    "p, steward, read, data/*, why)": "pycasbin cannot read the policy",
}


@pytest.mark.parametrize(("line", "message"), BROKEN.items(), ids=BROKEN.keys())
def test_a_rule_that_pycasbin_would_misread_is_refused(line: str, message: str, tmp_path: Path) -> None:
    """It would grant nothing, or more than it says, without a word."""
    (tmp_path / "model.conf").write_text(MODEL)
    (tmp_path / "policy.csv").write_text(f"# a policy\np, steward, read, ledger, why\n{line}\n")
    with pytest.raises(ValueError, match=message):
        Access(tmp_path).allowed("steward", "read", "ledger")


def test_no_policy_is_an_error_and_an_empty_one_grants_nothing(tmp_path: Path) -> None:
    """Neither lets anybody in."""
    with pytest.raises(FileNotFoundError, match=r"model\.conf is missing"):
        Access(tmp_path).allowed("steward", "read", "ledger")
    (tmp_path / "model.conf").write_text(MODEL)
    (tmp_path / "policy.csv").write_text("# nothing\n")
    with pytest.raises(ValueError, match="no role 'steward'"):
        Access(tmp_path).allowed("steward", "read", "ledger")
    (tmp_path / "model.conf").write_text("[request_definition]\nnothing\n")
    with pytest.raises(ValueError, match="pycasbin cannot read the policy"):
        Access(tmp_path).allowed("steward", "read", "ledger")
