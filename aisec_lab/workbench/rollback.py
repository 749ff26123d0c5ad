"""Back to an earlier version of a dataset or model: its bytes, `dvc.lock` and the ledger in step."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aisec_lab.trust import RECORDED, Change, Entry, Ledger, content_sha256, verify
from aisec_lab.workbench import provenance
from aisec_lab.workbench.ledger_command import VERSIONS
from aisec_lab.workbench.outputs import bring, held, keep, write_lock

DVC = "dvc:"


def roll_back(name: str, index: int, *, record: Ledger, key: Ed25519PrivateKey, why: str | None = None) -> Entry | None:
    """Put the bytes of an earlier version in place of those that lie there, and record it.

    The version is built beside its place, compared with the sha256 of its entry, and put there in one step; then
    `dvc.lock` is told, then the ledger. A failure or kill leaves the bytes of before or those of the version, never
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
    place, former = Path(name), record.last(name)
    with held(name) as out:
        before = content_sha256(place) if place.exists() else None
        if before == version.after and former and former.after == version.after and out.hash_info.value == md5:
            return None
        why = why or f"back to entry {index}"
        if before != version.after:
            if before:
                replaced = keep(out)
                if not (former and former.after == before):
                    why += f" (what it replaced, {DVC}{replaced}, is in no entry)"
            with bring(out, md5) as beside:
                if (found := content_sha256(beside)) != version.after:
                    raise ValueError(f"DVC keeps {found} as {version.restore}, entry {index} says {version.after}")
        write_lock(out, whole_stage=place.parts[0] == "data")
        change = Change(
            who=provenance.person(),
            action="rollback",
            object=name,
            why=why,
            before=RECORDED if before == version.after else before,  # the former: an earlier call was killed
            after=version.after,
            restore=version.restore,
            commit=provenance.commit(),
            config=provenance.configuration(),
        )
        return record.append(change, key)


def _version(name: str, index: int, record: Ledger, key: Ed25519PrivateKey) -> Entry:
    """The entry of an accepted version of the object, from a ledger that holds."""
    verdict = verify(record, key.public_key())
    if not verdict.intact:
        raise ValueError(f"the ledger does not hold, nothing was changed: {verdict}")
    lines, see = record.read().lines, f"see `aisec ledger log --object {name}`"
    if not 0 <= index < len(lines):
        raise ValueError(f"no entry {index} in the ledger, which has {len(lines)}: {see}")
    entry = Entry.parse(lines[index])
    if entry.object != name:
        raise ValueError(f"entry {index} is about {entry.object}, not {name}: {see}")
    if entry.action not in VERSIONS or entry.after is None:
        left = "" if entry.after else ", and left nothing"
        raise ValueError(f"entry {index} is no accepted version of {name}: it says {entry.action}{left}; {see}")
    if not (entry.restore or "").startswith(DVC):
        where = f"but {entry.restore}" if entry.restore else "nor does anything else"
        raise ValueError(f"DVC keeps nothing of entry {index}, {where}: commit to DVC before recording a version")
    return entry
