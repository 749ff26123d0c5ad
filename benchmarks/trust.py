"""What guards the data, put to the test: `python -m benchmarks.trust tamper` writes its part of trust.json here."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import click

from aisec_lab.core.files import write_json
from benchmarks.ledger_tampering import NAMED, UNNAMED, intact, written

OUT = Path(__file__).with_suffix(".json")
ENTRIES, SEED = 40, 0


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--copies", default=1000, show_default=True, help="tampered, and as many intact")
def tamper(copies: int) -> None:
    """Copies of a ledger: are all tampered ones found, is the first bad entry named, is any intact one accused?"""
    random = Random(SEED)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        original = written(folder, ENTRIES)
        kinds = NAMED + UNNAMED
        made, found, named = Counter[str](), Counter[str](), Counter[str]()
        for number in range(copies):
            kind = kinds[number % len(kinds)]
            copy = kind(original, random)
            verdict = copy.verdict(folder / "ledger", original.public)
            made[kind.__name__] += 1
            found[kind.__name__] += not verdict.intact
            named[kind.__name__] += kind in NAMED and verdict.entry == original.first_difference(copy.entries)
        accused = 0
        notes = 0
        for _ in range(copies):
            verdict = intact(original, random).verdict(folder / "ledger", original.public)
            accused += not verdict.intact
            notes += verdict.note is not None
    result = {
        "entries": ENTRIES,
        "tampered": {"copies": copies, "found": found.total(), "named": named.total()},
        "nameable": sum(made[kind.__name__] for kind in NAMED),
        "intact": {"copies": copies, "accused": accused, "after_a_kill": notes},
        "kinds": {
            kind.__name__: {
                "copies": made[kind.__name__],
                "found": found[kind.__name__],
                "named": named[kind.__name__] if kind in NAMED else None,
            }
            for kind in kinds
        },
    }
    keep("tamper", result)
    click.echo(json.dumps(result, indent=2))


def keep(part: str, result: dict[str, Any]) -> None:
    """Write one part of the results, and leave the others as they are."""
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    write_json(OUT, known | {part: result})


if __name__ == "__main__":
    main()
