"""What this machine remembers between commands, under `.dvc/tmp/aisec/`: never an output, and no result needs it."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aisec_lab.core.files import written_beside
from aisec_lab.workbench import imports
from aisec_lab.workbench.imports import Facts, Use

MOST = 20_000  # meanings that are kept; beyond that the oldest go


class Memory:
    """What the hashes of `code.json` stood for, and what each source file said when it was last parsed.

    Args:
        root: of the project.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / ".dvc" / "tmp" / "aisec"

    def keep(self, meanings: Mapping[str, Any]) -> None:
        """Remember what hashes stand for; only what is new is written, each whole or not at all."""
        folder = self.folder / "meanings"
        folder.mkdir(parents=True, exist_ok=True)
        there = {file.stem for file in folder.glob("*.json")}
        for name in meanings.keys() - there:
            with written_beside(folder / f"{name}.json") as beside:
                beside.write_text(json.dumps(meanings[name], sort_keys=True))
        if len(there) + len(meanings.keys() - there) > MOST:
            files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
            for file in files[:-MOST]:
                file.unlink(missing_ok=True)

    def recall(self, name: str) -> tuple[bool, Any]:
        """Whether it is remembered what a hash stood for, and that."""
        file = self.folder / "meanings" / f"{name}.json"
        return (True, _read(file)) if file.exists() else (False, None)

    def parsed(self) -> dict[str, Facts]:
        """What `keep_parsed` was last given; nothing if files are read in another way since."""
        file = self.folder / "parsed.json"
        kept = _read(file) if file.exists() else {}
        return {key: _facts(*facts) for key, facts in kept["files"].items()} if kept.get("by") == _reader() else {}

    def keep_parsed(self, parsed: Mapping[str, Facts]) -> None:
        """Remember `Sources.parsed`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {key: [*facts[:2], sorted(facts.defines), *facts[3:]] for key, facts in parsed.items()}
        with written_beside(self.folder / "parsed.json") as beside:
            beside.write_text(json.dumps({"by": _reader(), "files": files}))


def _facts(code: str, uses: list[Any], defines: list[str], bound: dict[str, list[str]], *rest: Any) -> Facts:
    names = {name: tuple(fulls) for name, fulls in bound.items()}
    stars, lazy, reads_data = rest
    return Facts(code, tuple(Use(*use) for use in uses), frozenset(defines), names, tuple(stars), lazy, reads_data)


def _reader() -> str:
    """A hash of how files are read: syntax trees differ by version of Python, facts by the code that finds them."""
    assert imports.__file__
    return hashlib.sha256(repr(sys.version_info).encode() + Path(imports.__file__).read_bytes()).hexdigest()


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({error}): delete it, it is only a memory") from error
