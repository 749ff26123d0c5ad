"""Access: which role may do what to which object, and why."""

import difflib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import casbin

ROLE = "AISEC_ROLE"  # the environment variable with the role that runs a command
ACTIONS = ("read", "write", "seal", "open", "append", "verify", "rollback", "release", "query")
OBJECT = re.compile(r"(?!.*(^|/)\.{1,2}(/|$))[\w.+-]+(/[\w.+-]+)*", re.ASCII)  # no way up out of data/: no `..`
PATTERN = re.compile(rf"{OBJECT.pattern}(/\*)?", re.ASCII)
MOST_SHOWN = 5


@dataclass(frozen=True)
class AccessRule:
    """A line of the policy: a role may do an action to every object that the pattern covers.

    Args:
        role, action: one word each.
        pattern: the name of an object, or `folder/*` for all below it.
        why: the reason, for readers.
    """

    role: str
    action: str
    pattern: str
    why: str

    def __str__(self) -> str:
        """As the policy file has it."""
        return f"p, {self.role}, {self.action}, {self.pattern}, {self.why}"

    def misses(self, role: str, action: str, obj: str) -> list[str]:
        """What keeps this rule from granting a request; nothing if it does."""
        missed = [f"it is for {self.role}"] if self.role != role else []
        missed += [f"it allows {self.action}"] if self.action != action else []
        covers = obj.startswith(self.pattern[:-1]) if self.pattern.endswith("/*") else obj == self.pattern
        return missed + ([] if covers else [f"it covers {self.pattern}"])


@dataclass(frozen=True)
class AccessRefusal:
    """A request that the policy did not grant.

    Args:
        role: that asked, or the name that is no role.
        action, object: what it asked for, such as `write` and `data/digits`.
    """

    role: str
    action: str
    object: str


@dataclass(frozen=True)
class Access:
    """The policy in a folder, decided by pycasbin.

    This is no authentication. The role is what the environment (`AISEC_ROLE`) or an option says, and it is not checked:
    a user who can run Python here can take any role. The operating system protects files, the vault their content; the
    policy states who is meant to do what, keeps honest people from mistakes, and leaves a record of refusals.

    Args:
        folder: holds `model.conf` and `policy.csv`; read once, at the first question.
        record: called with each refusal of `enforce` before the error is raised, for the ledger. If it fails, its error
            is raised instead: the request is refused all the same.

    Raises:
        FileNotFoundError: no policy there.
        ValueError: at the first question, a policy that cannot be read; then, a role that no rule has, an unknown
            action, an object that is no plain name below the project's root.
    """

    folder: Path
    record: Callable[[AccessRefusal], object] | None = None

    @cached_property
    def _enforcer(self) -> casbin.Enforcer:
        model, policy = self.folder / "model.conf", self.folder / "policy.csv"
        for file in (model, policy):
            if not file.exists():
                raise FileNotFoundError(f"no access policy: {file} is missing")
        try:
            enforcer = casbin.Enforcer(str(model), str(policy))
        except (IndexError, KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"{self.folder}: pycasbin cannot read the policy ({error!r})") from error
        lines = [line for line in policy.read_text().splitlines() if line.strip() and not line.startswith("#")]
        for line, fields in zip(lines, enforcer.get_policy(), strict=False):
            _check_line(policy, line, fields)
        if len(lines) != len(enforcer.get_policy()):  # it drops what it does not understand
            raise ValueError(f"{policy}: {len(lines)} lines, of which pycasbin takes {len(enforcer.get_policy())}")
        return enforcer

    @cached_property
    def rules(self) -> tuple[AccessRule, ...]:
        """The policy, in the order of its file."""
        return tuple(AccessRule(*fields) for fields in self._enforcer.get_policy())

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the policy, in the order of its file."""
        return tuple(dict.fromkeys(rule.role for rule in self.rules))

    def role(self, option: str | None = None) -> str:
        """Who asks: the option if there is one, else `AISEC_ROLE`; ValueError where neither is a role."""
        role = option or os.environ.get(ROLE, "")
        if not role:
            raise ValueError(f"who are you? set {ROLE} or give --role, one of {', '.join(self.roles)}")
        _check_name("role", role, self.roles)
        return role

    def allowed(self, role: str, action: str, obj: str) -> bool:
        """Whether the role may do that to the object (`data/NAME`, `models/NAME`, `ledger`, `budget`)."""
        return self._granted(role, action, obj) is not None

    def enforce(self, role: str, action: str, obj: str) -> None:
        """Return if the role may; else record the refusal and raise a PermissionError of one line."""
        if self.allowed(role, action, obj):
            return
        if self.record is not None:
            self.record(AccessRefusal(role, action, obj))
        who = ", ".join(other for other in self.roles if self.allowed(other, action, obj)) or "nobody"
        raise PermissionError(
            f"{role} may not {action} {obj} ({who} may): `aisec access explain {role} {action} {obj}` says why"
        )

    def explain(self, role: str, action: str, obj: str) -> str:
        """Which rule grants the request; or which rules come nearest, and why each does not; some lines of text."""
        granted = self._granted(role, action, obj)
        if granted is not None:
            return f"{role} may {action} {obj}, {granted.why}\n  {granted}"
        missed = [(rule, rule.misses(role, action, obj)) for rule in self.rules]
        least = min(len(misses) for _, misses in missed)
        near = [f"  {rule}\n    but {', '.join(misses)}" for rule, misses in missed if len(misses) == least < 3]
        more = [f"  and {len(near) - MOST_SHOWN} more as near"] if len(near) > MOST_SHOWN else []
        heading = "the nearest rules:" if near else "and no rule comes near"
        return "\n".join([f"{role} may not {action} {obj}: no rule grants it, {heading}", *near[:MOST_SHOWN], *more])

    def _granted(self, role: str, action: str, obj: str) -> AccessRule | None:
        """The rule by which pycasbin grants a request."""
        _check_name("role", role, self.roles)
        _check_name("action", action, ACTIONS)
        if not OBJECT.fullmatch(obj):
            raise ValueError(f"no object {obj!r}: name it from the project's root, as data/NAME, models/NAME or ledger")
        granted, fields = self._enforcer.enforce_ex(role, action, obj)
        return AccessRule(*fields) if granted else None


def _check_line(policy: Path, line: str, fields: list[str]) -> None:
    """Refuse, with a ValueError, a rule that would quietly grant nothing, or more than it says."""
    if len(fields) != 4 or not all(fields):
        raise ValueError(f"{policy}: {line!r} should be `p, role, action, object, why`")
    if fields[1] not in ACTIONS:
        raise ValueError(f"{policy}: {line!r}: no action {fields[1]!r}, there are {', '.join(ACTIONS)}")
    if not PATTERN.fullmatch(fields[2]):
        raise ValueError(f"{policy}: {line!r}: an object is a name, or ends in `/*`, got {fields[2]!r}")


def _check_name(kind: str, name: str, known: Iterable[str]) -> None:
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"no {kind} {name!r}: {hint}there are {', '.join(known)}")
