"""`dvc.lock`, written after every stage: whole, quickly, and with the bytes that `dvc repro` would leave.

DVC reads, changes and writes the whole file for each stage, a second for each thousand lines. Here it is read once, and
only the entry that is new goes through DVC's dumper. An entry that is there stays at its place; a new one goes where
DVC would have put it, had the stages run one after another in the order of the plan, not in that of their ends.
"""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml, parse_yaml, parse_yaml_for_update

HEAD = "schema: '2.0'\nstages:\n"
ENTRY = re.compile(r"^  (?=\S)", re.MULTILINE)  # where the entry of a stage begins
ODD = re.compile(r"[&*]id\d{3}\b|^\s*#|\s#", re.MULTILINE)  # an anchor or a comment, which belong to the whole file


class Lock:
    """One `dvc.lock`.

    Args:
        path: of the file, which may not exist yet.
        order: names of the stages of its `dvc.yaml` in the order of the plan.
        journal: what is known of it from earlier runs.
    """

    def __init__(self, path: Path, order: Sequence[str], journal: "Journal") -> None:
        self.path, self.journal = path, journal
        self.place = {name: place for place, name in enumerate(order)}
        text = path.read_text() if path.exists() else HEAD
        self.values: dict[str, Any] = parse_yaml(text, path).get("stages") or {}
        self.whole: Any = None  # as DVC's own parser has it; where it is given, the two below are not used
        self.texts: dict[str, str] = {}
        if not (journal.wrote(path, text) and self._split(text)):
            self.whole = parse_yaml_for_update(text, path)
            if self._split(dumps_yaml(self.whole)):  # as DVC would leave it, had somebody edited it by hand
                self.whole = None
        self.young = journal.young(path, list(self.values), order)

    def record(self, name: str, entry: dict[str, Any]) -> bool:
        """Put what DVC says of a stage into the file; whether that is new."""
        changed = self.values.get(name, {}) != entry
        text = dumps_yaml({"stages": {name: entry}}).removeprefix("stages:\n")
        if self.whole is None and ODD.search(text):
            self.whole = parse_yaml_for_update(HEAD + "".join(self.texts.values()), self.path)
        if name not in self.values:
            names = list(self.values)
            later = [at for at, other in enumerate(names) if other in self.young and self._before(name, other)]
            at = later[0] if later else len(names)
            self.young.add(name)
            self.values = dict([*[*self.values.items()][:at], (name, entry), *[*self.values.items()][at:]])
            self.texts = {each: self.texts.get(each, text) for each in self.values}
            if self.whole is not None:
                self.whole["stages"] = self.whole.get("stages") or {}
                self.whole["stages"].insert(at, name, entry)
        self.values[name], self.texts[name] = entry, text
        if self.whole is not None:
            self.whole["stages"][name] = entry
        self._write()
        return changed

    def _before(self, name: str, other: str) -> bool:
        return other in self.place and self.place[name] < self.place[other]

    def _split(self, text: str) -> bool:
        """Cut the text into one piece for each stage; False where that cannot be done."""
        head, *texts = ENTRY.split(text)
        self.texts = {name: f"  {entry}" for name, entry in zip(self.values, texts, strict=False)}
        return head in (HEAD, "") and len(texts) == len(self.values) and not ODD.search(text)

    def _write(self) -> None:
        text = HEAD + "".join(self.texts.values()) if self.whole is None else dumps_yaml(self.whole)
        self.journal.note(self.path, text)
        beside = self.journal.path.with_name(
            f"{self.path.parent.name}.lock"
        )  # in a folder where a kill leaves no litter
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)


class Journal:
    """What runs leave for later ones: the digest of each lock file, and what stood in it before an unfinished run.

    An unfinished run may have recorded a stage whose forerunner in the plan was still running. The run that finishes it
    puts the forerunner before, as one run would have.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        known = json.loads(path.read_text()) if path.exists() else {}
        self.digests: dict[str, str] = known.get("digests", {})
        self.before: dict[str, list[str]] = known.get("before", {})

    def wrote(self, path: Path, text: str) -> bool:
        """Whether the text is what a run has written there, so that DVC's dumper would not change it."""
        return self.digests.get(str(path)) == _digest(text)

    def note(self, path: Path, text: str) -> None:
        """Remember what is about to be written there."""
        self.digests[str(path)] = _digest(text)
        self._write()

    def young(self, path: Path, present: Sequence[str], order: Sequence[str], *, at_once: bool = False) -> set[str]:
        """The entries that an unfinished run of the same plan has added; what stood before is remembered.

        Args:
            path: of the file.
            present: its entries.
            order: the entries that the plan may add.
            at_once: remember it now, and not with the next `note`.
        """
        known = str(path) in self.before
        before = self.before.get(str(path), list(present))
        young = set(present) - set(before)
        if not (set(before) <= set(present) and young <= set(order)):
            before, young = list(present), set()
        self.before[str(path)] = list(before)
        if at_once and not known:
            self._write()
        return young

    def finish(self) -> None:
        """The run is over: nothing is left of it that a later one would have to complete."""
        if self.before:
            self.before = {}
            self._write()

    def _write(self) -> None:
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps({"digests": self.digests, "before": self.before}))
        beside.replace(self.path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
