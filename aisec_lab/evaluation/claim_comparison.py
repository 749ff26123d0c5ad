"""Compare what this machine measured with the committed claims."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

Claims = Mapping[str, Mapping[str, float]]


def machine() -> str:
    """A fingerprint of what the bits of a result depend on, beside its configuration: processor, torch and Python.

    Returns:
        Twelve hexadecimal digits of a SHA-256; they reveal nothing else about the machine.
    """
    processor = platform.machine() + platform.processor()
    try:
        with open("/proc/cpuinfo") as cpuinfo:  # Linux: vendor, family, model, stepping, flags
            wanted = ("vendor_id", "cpu family", "model", "stepping", "flags")
            processor += "".join(sorted({line for line in cpuinfo if line.startswith(wanted)}))
    except FileNotFoundError:
        pass
    parts = (processor, torch.backends.cpu.get_cpu_capability(), torch.__version__, platform.python_version())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def claims(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The claims of a table: every measurement that has an interval, by a name that says what was measured.

    Args:
        table: the table, or a part of it.

    Returns:
        `value`, `low` and `high` of each, by a name such as "robustness, digits, cnn, trades, seed 0: robust_accuracy
        under worst_case at Linf 0.15".

    Raises:
        ValueError: two measurements with the same name.
    """
    found = {}
    for row in table[table.low.notna()].itertuples():
        attack = "" if row.attack == "none" else f" under {row.attack}"
        level = "" if pd.isna(row.level) else f" at {row.knob} {row.level:g}"
        where = f"{row.study}, {row.data}, {row.model}, {row.defense}, seed {row.seed}"
        name = f"{where}: {row.metric}{attack}{level}"
        if name in found:
            raise ValueError(f"two measurements are called {name!r}: measure each once")
        found[name] = {
            "value": float(row.value),
            "low": float(row.low),
            "high": float(row.high),
        }
    return found


@dataclass(frozen=True)
class ClaimResult:
    """The outcome of one claim.

    Args:
        claim: its name.
        claimed: the committed value.
        low: lower end of its interval.
        high: upper end of its interval.
        found: the value of this machine; None if it was not computed.
        reproduced: whether the value agrees with the claim.
    """

    claim: str
    claimed: float
    low: float
    high: float
    found: float | None
    reproduced: bool

    def __str__(self) -> str:
        found = "not computed" if self.found is None else f"{self.found:.4f}"
        mark = "reproduced    " if self.reproduced else "NOT reproduced"
        return f"{mark}  {self.claim}: claimed {self.claimed:.4f} [{self.low:.4f}, {self.high:.4f}], found {found}"


def compare_claims(found: Claims, claimed: Claims, *, identical: bool) -> list[ClaimResult]:
    """Compare measurements with committed claims.

    Args:
        found: measurements of this machine, as `claims` returns them.
        claimed: committed measurements.
        identical: require equal values, as on the same machine; else a value inside the claimed interval is enough.

    Returns:
        A result for each claim, in the order of `claimed`.
    """
    results = []
    for name, claim in claimed.items():
        value: float | None = found[name]["value"] if name in found else None
        inside = value is not None and claim["low"] <= value <= claim["high"]
        reproduced = value == claim["value"] if identical else inside
        results.append(ClaimResult(name, claim["value"], claim["low"], claim["high"], value, reproduced))
    return results


def metrics(table: pd.DataFrame, data: Mapping[str, Any], machine_name: str) -> dict[str, Any]:
    """The JSON that is committed: data, machine and claims.

    Args:
        table: the table.
        data: card of the dataset, with `name` and `sha256`.
        machine_name: what `machine` returns.

    Returns:
        A dict with `data`, `machine` and `claims`, ready for JSON.
    """
    return {
        "data": {"name": data["name"], "sha256": data["sha256"]},
        "machine": machine_name,
        "claims": claims(table),
    }
