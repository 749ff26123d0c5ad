"""Restore an earlier version of a dataset or model: its bytes and its part of `dvc.lock`; the ledger records it."""

import json
from dataclasses import asdict
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aisec_lab.core.files import write_json
from aisec_lab.trust import RECORDED, Ledger, LedgerChange, LedgerEntry, content_sha256, verify
from aisec_lab.workbench import provenance
from aisec_lab.workbench.outputs import is_complete, keep, restore, write_lock
from aisec_lab.workbench.project_ledger import VERSIONS

DVC = "dvc:"
INTENTS = Path(".aisec/rollback")  # not in git: what a rollback is about to record


def roll_back(
    name: str, index: int, *, record: Ledger, key: Ed25519PrivateKey, why: str | None = None
) -> LedgerEntry | None:
    """Replace the bytes of an object by those of an earlier version, and record that.

    The version is built beside its place, compared with the sha256 of its entry, and put there in one step; then
    `dvc.lock` is changed, then the ledger. A failure or kill leaves the former bytes or those of the version, never
    some of both; where it came after that step, the same call finishes what is missing. What lay there stays in DVC's
    cache. Meanwhile DVC's own locks hold: no stage reads or writes the object.

    For a dataset `dvc.lock` takes over the stage as it is now, or `dvc repro` would soon make the dataset anew. For a
    model it takes over the model alone: one that no longer follows from its stage is stale, and trained again by it.

    Args:
        name: of the object, from the project's root, in which we stand: an output of a stage.
        index: the entry that recorded the version.
        record, key: the ledger and its private key.
        why: for the new entry.

    Returns:
        The new entry, or None where bytes, `dvc.lock` and ledger are at that version already.

    Raises:
        FileNotFoundError: no ledger, or DVC's cache lacks some of the bytes.
        ValueError: no such entry, or one about another object or of no accepted version; a ledger that does not hold;
            an object that is no output of a stage, or in use; bytes that are not those of the entry.
    """
    version = _version(name, index, record, key)
    md5 = str(version.restore).removeprefix(DVC)
    place, intent = Path(name), INTENTS / f"{name.replace('/', '.')}.json"
    whole_stage = place.parts[0] == "data"
    with is_complete(name) as out:
        former = record.last(name)  # now that no other rollback can add to it
        there = content_sha256(place) if place.exists() else None
        begun = _begun(intent, version.after) if there == version.after else None
        if begun and former and (former.action, former.before, former.after) == ("rollback", begun.before, begun.after):
            intent.unlink()  # killed after the ledger was written
            begun = None
        locked = out.hash_info.value == md5 or not (whole_stage or out.hash_info)
        if whole_stage:
            locked = locked and not out.stage.changed_deps()
            out.stage.save_deps()  # raises where one is missing
        if there == version.after and former and former.after == there and locked and not begun:
            return None
        why = why or f"back to entry {index}"
        if there not in (None, version.after):
            replaced = keep(out)
            if not (former and former.after == there):
                why += f" (what it replaced, {DVC}{replaced}, is in no entry)"
        change = begun or LedgerChange(
            who=provenance.git_author(),
            action="rollback",
            object=name,
            why=why,
            before=RECORDED if there == version.after else there,
            after=version.after,
            restore=version.restore,
            commit=provenance.commit(),
            config=provenance.configuration(),
        )
        if there != version.after:
            intent.parent.mkdir(parents=True, exist_ok=True)
            write_json(intent, asdict(change))
            with restore(out, md5) as beside:
                if (found := content_sha256(beside)) != version.after:
                    raise ValueError(f"DVC keeps {found} as {version.restore}, entry {index} says {version.after}")
        write_lock(out, whole_stage=whole_stage)
        entry = record.append(change, key)
        intent.unlink(missing_ok=True)
        return entry


def _begun(intent: Path, after: str | None) -> LedgerChange | None:
    """What an earlier call, killed once the bytes lay there, was about to record; None where there was none."""
    if not intent.exists():
        return None
    change = LedgerChange(**json.loads(intent.read_text()))
    return change if change.after == after else None


def _version(name: str, index: int, record: Ledger, key: Ed25519PrivateKey) -> LedgerEntry:
    """The entry of an accepted version of the object, from a ledger that holds."""
    verdict = verify(record, key.public_key())
    if not verdict.intact:
        raise ValueError(f"the ledger does not hold, nothing was changed: {verdict}")
    lines, see = record.read().lines, f"see `aisec ledger log --object {name}`"
    if not 0 <= index < len(lines):
        raise ValueError(f"no entry {index} in the ledger, which has {len(lines)}: {see}")
    entry = LedgerEntry.parse(lines[index])
    if entry.object != name:
        raise ValueError(f"entry {index} is about {entry.object}, not {name}: {see}")
    if entry.action not in VERSIONS or entry.after is None:
        left = "" if entry.after else ", and left nothing"
        raise ValueError(f"entry {index} is no accepted version of {name}: it says {entry.action}{left}; {see}")
    if not (entry.restore or "").startswith(DVC):
        where = f"but {entry.restore}" if entry.restore else "nor does anything else"
        raise ValueError(f"DVC keeps nothing of entry {index}, {where}: commit to DVC before recording a version")
    return entry
