"""Only the model that the ledger vouches for is loaded, and the way back leads to a good one."""

import json
from pathlib import Path

import pytest
import torch

from aisec_lab.core.files import write_json
from aisec_lab.models import CNN, Fit
from aisec_lab.trust import Ledger, LedgerEntry
from aisec_lab.workbench.project_ledger import FOLDER
from aisec_lab.workbench.service.guarding import build_guard
from aisec_lab.workbench.service.served import load_served, parse_architecture
from aisec_lab.workbench.service.settings import GuardSettings
from aisec_lab.workbench.service.versions import Versions
from benchmarks.served_project import MODEL, ServedProject


def entry(index: int, action: str, before: str | None, after: str | None) -> LedgerEntry:
    return LedgerEntry(
        index=index, root="", time="", who="test", action=action, object=MODEL, why="a test",
        before=before, after=after, restore=None, commit=None, config=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("history", "current", "last_good"),
    [
        ([], None, None),
        ([("train", None, "a")], 0, None),
        ([("quarantine", None, "a")], None, None),
        ([("train", None, "a"), ("refuse", "a", "a")], 0, None),
        ([("train", None, "a"), ("accept", "a", "b")], 1, 0),
        ([("train", None, "a"), ("accept", "a", "b"), ("rollback", "b", "a")], 2, None),
        ([("train", None, "a"), ("accept", "a", "b"), ("accept", "b", "c")], 2, 1),
        ([("train", None, "a"), ("accept", "a", "b"), ("accept", "b", "c"), ("rollback", "c", "b")], 3, 0),
        ([("train", None, "a"), ("quarantine", "a", "x"), ("accept", "x", "b")], 2, 0),
        ([("train", None, "a"), ("edit", "a", "b")], None, None),
        ([("train", None, "a"), ("delete", "a", None)], None, None),
    ],
    ids=lambda case: " ".join(f"{action}:{after}" for action, _, after in case) if isinstance(case, list) else None,
)
def test_which_version_is_current_and_which_was_good(
    history: list[tuple[str, str | None, str | None]], current: int | None, last_good: int | None
) -> None:
    """What was rolled back from is never good again by itself; what nobody accepted never was."""
    versions = Versions(MODEL, tuple(entry(place, *one) for place, one in enumerate(history)))
    for name, expected in (("current", current), ("last_good", last_good)):
        if expected is None:
            with pytest.raises(ValueError, match=MODEL):
                getattr(versions, name)
        else:
            assert getattr(versions, name).index == expected


def test_a_vouched_model_is_loaded(project: ServedProject) -> None:
    served = load_served(MODEL, project.root)
    assert served.shape == (1, 8, 8)
    assert served.classes == tuple("0123456789")
    assert not served.model.training
    assert served.digest == project.entries()[-1]["after"]


def test_another_model_in_its_place_is_not(project: ServedProject) -> None:
    """Not one that is sound in itself; not one with a changed byte; not one with a file more."""
    project.train(1)
    with pytest.raises(ValueError, match="the ledger vouches for"):
        load_served(MODEL, project.root)
    project.accept()
    load_served(MODEL, project.root)
    (project.root / MODEL / "more").touch()
    with pytest.raises(ValueError, match="the ledger vouches for"):
        load_served(MODEL, project.root)


def test_a_model_that_nobody_signed_is_not(project: ServedProject) -> None:
    (project.root / MODEL).rename(project.root / "models/other")
    with pytest.raises(ValueError, match="no entry of the ledger vouches for models/other"):
        load_served("models/other", project.root)


def test_with_a_forged_ledger_nothing_is(project: ServedProject) -> None:
    project.train(1)
    file = project.root / FOLDER / "entries.jsonl"
    from aisec_lab.trust import content_sha256

    old, new = project.entries()[-1]["after"], content_sha256(project.root / MODEL)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ValueError, match="the ledger does not hold"):
        load_served(MODEL, project.root)


def test_the_readers_own_key_shows_a_ledger_that_was_replaced(project: ServedProject, tmp_path: Path) -> None:
    """Whoever can write the project can make a ledger with another key; not with the reader's."""
    own = tmp_path / "own.pem"
    own.write_bytes(project.public_key.read_bytes())
    load_served(MODEL, project.root, own)
    Ledger.create(tmp_path / "new", tmp_path / "key.pem")
    for path in (tmp_path / "new").iterdir():
        (project.root / FOLDER / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="the ledger does not hold"):
        load_served(MODEL, project.root, own)


def test_a_card_names_a_class_and_nothing_else() -> None:
    assert parse_architecture("CNN(width=4, hidden=16)") == CNN(width=4, hidden=16)
    for text in (
        "", "CNN", "CNN(4)", "CNN(width=2*2, hidden=16)", "CNN(width=4,hidden=16)", "os.system(command='true')",
        "__import__(name='os')", "CNN(width=__import__('os'), hidden=1)", repr(Fit()),
        "(" * 1000,
    ):  # fmt: skip
        with pytest.raises(ValueError, match="names no architecture"):
            parse_architecture(text)


def test_a_card_that_lies_is_found(project: ServedProject) -> None:
    """The ledger may vouch for it: a card of other weights, or of an architecture they do not fit."""
    card = project.root / MODEL / "card.json"
    content = json.loads(card.read_text())
    for changed in ({"architecture": "CNN(width=8, hidden=16)"}, {"weights_sha256": "0" * 64}):
        write_json(card, content | changed)
        project.accept()
        with pytest.raises(ValueError, match=r"does not fit|sha256 on its card"):
            load_served(MODEL, project.root)


def test_the_guard_lets_its_rate_of_clean_rows_not_pass(project: ServedProject) -> None:
    """On the rows that set the threshold about that many; two workers have the same thresholds."""
    served = load_served(MODEL, project.root)
    rates = GuardSettings(fpr=0.1, budget=1e9)
    (chain, _), (again, _) = (build_guard(rates, served, project.root) for _ in range(2))
    assert chain is not None
    assert again is not None
    x = project.inputs
    rejected = chain.check(x, client="client").rejected
    assert 0.05 < rejected.double().mean() < 0.1 + 1e-9
    assert torch.equal(rejected, again.check(x, client="other").rejected)
    assert build_guard(None, served, project.root)[0] is None


def test_a_rate_needs_rows(project: ServedProject) -> None:
    with pytest.raises(ValueError, match="needs at least"):
        build_guard(GuardSettings(fpr=1e-6), load_served(MODEL, project.root), project.root)
