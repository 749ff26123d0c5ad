"""`aisec data rollback` and `aisec model rollback`, in a small project with git, DVC, a policy and a ledger."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from dvc.repo import Repo
from dvc.rwlock import rwlock

from aisec_lab.trust import LedgerEntry, content_sha256
from aisec_lab.workbench import outputs
from aisec_lab.workbench.command import main
from tests.clone import ROOT

STAGES = """
stages:
  data:
    cmd: mkdir -p data/digits && cp reader.py data/digits/train.npz && cp reader.py data/digits/card.json
    deps: [reader.py]
    outs: [data/digits]
  train:
    matrix:
      seed: [0]
    cmd: mkdir -p models/cnn-${item.seed} && cp data/digits/train.npz models/cnn-${item.seed}/weights && date +%N > log
    deps: [data/digits]
    outs:
    - models/cnn-${item.seed}
    - log
"""
HONEST, POISONED = 0, 2  # entries about data/digits; the model that was trained on each is recorded next


def aisec(*words: str, code: int = 0) -> str:
    """What the command prints; one line where it refuses."""
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    assert not code or len(done.output.strip().splitlines()) == 1, done.output
    return done.output


def entries() -> list[LedgerEntry]:
    return [LedgerEntry.parse(line) for line in Path("ledger/entries.jsonl").read_bytes().splitlines()]


def accept(name: str, what: str = "accept") -> None:
    aisec("ledger", "append", "--what", what, "--object", name, "--why", "delivered")


def lock_of(stage: str) -> dict[str, Any]:
    return yaml.safe_load(Path("dvc.lock").read_text())["stages"][stage]


def reproduced(*targets: str) -> list[str]:
    """The stages that `dvc repro` ran, or took from its cache of runs."""
    return [stage.addressing for stage in Repo(".").reproduce(list(targets) or None)]


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and a model on it, both recorded; then a poisoned version, accepted, and the model trained again."""
    root = tmp_path_factory.mktemp("incident")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("AISEC_ROLE", raising=False)
        shutil.copytree(ROOT / "configs/access", "configs/access")
        Path(".gitignore").write_text((ROOT / ".gitignore").read_text() + "/log\n")
        Path("dvc.yaml").write_text(STAGES)
        Path("params.yaml").write_text("seed: 0\n")
        Path("reader.py").write_text("honest")
        for command in ("init -q", "config user.name Ada", "config user.email ada@localhost"):
            subprocess.run(["git", *command.split()], check=True)
        repo = Repo.init()
        aisec("ledger", "init")
        assert reproduced() == ["data", "train@0"]
        accept("data/digits")
        accept("models/cnn-0", "train")
        (root / "data/digits/train.npz").write_text("poison")
        (root / "data/digits/card.json").unlink()
        (root / "data/digits/more.npz").write_text("poison too")
        repo.commit("data", force=True)
        accept("data/digits")
        assert reproduced() == ["train@0"]
        accept("models/cnn-0")
        for command in ("add -A", "commit -qm incident"):
            subprocess.run(["git", *command.split()], check=True)
    return root


@pytest.fixture
def project(incident: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which a steward stands."""
    shutil.copytree(incident, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("AISEC_ROLE", "steward")
    return tmp_path / "project"


@pytest.mark.parametrize("in_one_step", [True, False])
def test_the_data_go_back_and_stay_back(in_one_step: bool, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very bytes; recorded; nothing makes them anew, though the stage's code changed; the model is stale."""
    if not in_one_step:
        monkeypatch.setattr(outputs.ctypes, "CDLL", lambda name: None)
    honest, poisoned = entries()[HONEST], entries()[POISONED]
    Path("reader.py").write_text("other code")
    runs = sorted(Path(".dvc/cache/runs").rglob("*"))

    output = aisec("data", "rollback", "digits", "--to", "0", "--why", "a monitor rang")
    assert output.startswith(f"entry 4: data/digits is back at entry 0, sha256 {honest.after}\n")
    assert {path.name: path.read_text() for path in Path("data/digits").iterdir()} == {
        "train.npz": "honest", "card.json": "honest",
    }  # fmt: skip
    assert content_sha256("data/digits") == honest.after
    assert [path.name for path in Path("data").iterdir()] == ["digits"], "nothing is left beside it"

    entry = entries()[4]
    assert (entry.action, entry.object, entry.who) == ("rollback", "data/digits", "Ada <ada@localhost>")
    assert (entry.before, entry.after, entry.restore) == (poisoned.after, honest.after, honest.restore)
    assert entry.why == "a monitor rang"
    assert entry.commit
    assert entry.config
    assert aisec("ledger", "verify").startswith("intact, 5 entries")

    assert Repo(".").status("data") == {}
    assert reproduced("data") == []
    assert sorted(Path(".dvc/cache/runs").rglob("*")) == runs, "no run made these bytes with this code"
    assert reproduced() == ["train@0"]
    assert Path("models/cnn-0/weights").read_text() == "honest"
    assert content_sha256("models/cnn-0") == entries()[1].after

    aisec("data", "rollback", "digits", "--to", "2")
    assert content_sha256("data/digits") == poisoned.after, "the way back from a rollback"
    aisec("data", "rollback", "digits", "--to", "4")
    assert content_sha256("data/digits") == honest.after, "a rollback leaves a version too"


def test_a_model_goes_back_alone(project: Path) -> None:
    """Its stage's other output, its dependencies and command stay in dvc.lock what they were."""
    trained, log = entries()[1], Path("log").read_text()
    former = lock_of("train@0")
    aisec("model", "rollback", "cnn-0", "--to", "1", "--role", "researcher")
    assert Path("models/cnn-0/weights").read_text() == "honest"
    assert (entries()[4].object, entries()[4].after) == ("models/cnn-0", trained.after)
    assert entries()[4].why == "back to entry 1"
    now = lock_of("train@0")
    assert {one["path"]: one["md5"] for one in now["outs"]} == {
        one["path"]: one["md5"] for one in former["outs"]
    } | {"models/cnn-0": str(trained.restore).removeprefix("dvc:")}  # fmt: skip
    assert (now["cmd"], now["deps"]) == (former["cmd"], former["deps"])
    assert Path("log").read_text() == log
    assert reproduced() == []
    assert aisec("ledger", "verify").startswith("intact, 5 entries")


def test_a_model_of_a_changed_stage_stays_stale(project: Path) -> None:
    """A rollback vouches for the data's stage, but not for a model's."""
    Path("dvc.yaml").write_text(STAGES.replace("/weights", "/weights && true"))
    aisec("model", "rollback", "cnn-0", "--to", "1", "--role", "researcher")
    assert lock_of("train@0")["cmd"].count("&& true") == 0
    assert reproduced() == ["train@0"]
    assert Path("models/cnn-0/weights").read_text() == "poison"


def test_without_a_lock_the_data_go_back_all_the_same(project: Path) -> None:
    """And are all that the new one names; without bytes too."""
    Path("dvc.lock").unlink()
    shutil.rmtree("data")
    aisec("data", "rollback", "digits", "--to", "0")
    assert list(yaml.safe_load(Path("dvc.lock").read_text())["stages"]) == ["data"]
    assert entries()[4].before is None
    assert reproduced("data") == []


def test_what_is_there_already_is_not_recorded(project: Path) -> None:
    """Nothing changes either."""
    before = Path("ledger/entries.jsonl").read_bytes(), Path("dvc.lock").read_bytes()
    assert "data/digits is at entry 2 already" in aisec("data", "rollback", "digits", "--to", "2")
    assert (Path("ledger/entries.jsonl").read_bytes(), Path("dvc.lock").read_bytes()) == before


def test_bytes_that_nobody_recorded_are_kept_and_named(project: Path) -> None:
    """They may be the evidence."""
    Path("data/digits/train.npz").write_text("slipped in")
    found = content_sha256("data/digits")
    aisec("data", "rollback", "digits", "--to", "0")
    assert entries()[4].before == found
    (md5,) = (word.strip(",") for word in entries()[4].why.split() if word.startswith("dvc:"))
    listing = Path(".dvc/cache/files/md5", md5[4:6], md5[6:]).read_text()
    kept = {path.read_text() for path in Path(".dvc/cache/files/md5").rglob("*") if path.is_file()}
    assert '"relpath": "more.npz"' in listing
    assert "slipped in" in kept


KILL = """
import os, signal, sys
from aisec_lab.workbench import outputs, rollback
def killed(before, real):
    def run(*arguments, **options):
        if not before:
            real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    return run
room, name, before = sys.argv[1:4]
setattr(globals()[room], name, killed(before == "before", getattr(globals()[room], name)))
from aisec_lab.workbench.command import main
main(["data", "rollback", "digits", "--to", "0"])
"""


@pytest.mark.parametrize(
    ("where", "there"),
    [
        (("outputs", "swap", "before"), POISONED),
        (("outputs", "swap", "after"), HONEST),
        (("rollback", "write_lock", "after"), HONEST),
    ],
    ids=lambda value: " ".join(reversed(value[1:])) if isinstance(value, tuple) else "",
)
def test_a_kill_leaves_one_version_and_the_same_call_finishes(
    where: tuple[str, ...], there: int, project: Path
) -> None:
    """Before and after each step; in the end everything is in step and recorded once."""
    command = [sys.executable, "-c", KILL, *where]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode == -9
    assert content_sha256("data/digits") == entries()[there].after
    assert len(entries()) == 4
    assert aisec("ledger", "verify").startswith("intact, 4 entries")
    assert aisec("data", "rollback", "digits", "--to", "0").startswith("entry 4: data/digits is back")
    assert content_sha256("data/digits") == entries()[HONEST].after
    assert (entries()[4].before, entries()[4].after) == (entries()[POISONED].after, entries()[HONEST].after)
    assert Repo(".").status("data") == {}
    assert "already" in aisec("data", "rollback", "digits", "--to", "0")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("data rollback digits --to 1", "entry 1 is about models/cnn-0, not data/digits"),
        ("data rollback digits --to 5", "entry 5 is no accepted version of data/digits: it says quarantine"),
        ("data rollback digits --to 6", "DVC keeps nothing of entry 6, nor does anything else"),
        ("data rollback digits --to 7", "no entry 7 in the ledger, which has 7"),
        ("data rollback digits --to -1", "no entry -1"),
        ("data rollback other --to 4", "DVC keeps nothing of entry 4"),
        ("data rollback digitz --to 0", "entry 0 is about data/digits, not data/digitz"),
        ("data rollback ../ledger --to 0", "no object 'data/../ledger'"),
        ("data rollback digits --to 0 --role nobody", "no role 'nobody'"),
    ],
)
def test_what_a_person_got_wrong_is_one_line_and_exit_code_2(arguments: str, says: str, project: Path) -> None:
    """And nothing changes."""
    Path("data/other").mkdir()
    Path("data/other/train.npz").write_text("honest")
    accept("data/other")  # 4
    accept("data/digits", "quarantine")  # 5
    poisoned = content_sha256("data/digits")
    Path("data/digits/train.npz").write_text("in no cache")
    accept("data/digits")  # 6
    Path("data/digits/train.npz").write_text("poison")
    record = Path("ledger/entries.jsonl").read_bytes()
    assert says in aisec(*arguments.split(), code=2)
    assert content_sha256("data/digits") == poisoned
    assert Path("ledger/entries.jsonl").read_bytes() == record


def test_what_no_stage_makes_any_more_stays(project: Path) -> None:
    """Another dataset is configured: `dvc.lock` has no place for this one."""
    poisoned = content_sha256("data/digits")
    Path("dvc.yaml").write_text(STAGES.replace("data/digits", "data/other"))
    assert "data/digits is no output of DVC" in aisec("data", "rollback", "digits", "--to", "0", code=2)
    assert content_sha256("data/digits") == poisoned


def test_a_refused_role_is_recorded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data by the steward, models by the researcher, nobody without a role."""
    poisoned = content_sha256("data/digits")
    refused = aisec("data", "rollback", "digits", "--to", "0", "--role", "researcher", code=2)
    assert refused.startswith("aisec: researcher may not rollback data/digits (steward may)")
    assert "(researcher, operator may)" in aisec("model", "rollback", "cnn-0", "--to", "1", code=2)
    assert [(one.action, one.object) for one in entries()[4:]] == [
        ("refuse", "data/digits"),
        ("refuse", "models/cnn-0"),
    ]
    monkeypatch.delenv("AISEC_ROLE")
    assert "who are you?" in aisec("data", "rollback", "digits", "--to", "0", code=2)
    monkeypatch.setenv("AISEC_ROLE", "steward")
    assert "no accepted version of data/digits: it says refuse" in aisec(
        "data", "rollback", "digits", "--to", "4", code=2
    )
    assert content_sha256("data/digits") == poisoned


def test_bytes_that_are_gone_or_changed_in_the_cache_do_not_come_back(project: Path) -> None:
    """What lies there stays; the mend, or both hashes."""
    poisoned, record = content_sha256("data/digits"), Path("ledger/entries.jsonl").read_bytes()
    (cached,) = (
        path for path in Path(".dvc/cache/files").rglob("*") if path.is_file() and path.read_text() == "honest"
    )
    cached.chmod(0o644)
    cached.write_text("tsenoh")
    cached.chmod(0o444)  # which DVC takes as a sign that nobody touched it
    output = aisec("data", "rollback", "digits", "--to", "0", code=2)
    assert output.startswith("aisec: DVC keeps ")
    assert f"entry 0 says {entries()[HONEST].after}" in output
    cached.unlink()
    output = aisec("data", "rollback", "digits", "--to", "0", code=2)
    assert "`dvc fetch --all-commits data/digits` brings it" in output
    assert content_sha256("data/digits") == poisoned
    assert [path.name for path in Path("data").iterdir()] == ["digits"]
    assert Path("ledger/entries.jsonl").read_bytes() == record


def test_a_ledger_that_does_not_hold_brings_nothing_back(project: Path) -> None:
    """An edited entry could name any bytes."""
    poisoned, file = content_sha256("data/digits"), Path("ledger/entries.jsonl")
    file.write_bytes(file.read_bytes().replace(b"delivered", b"dereviled", 1))
    output = aisec("data", "rollback", "digits", "--to", "2", code=2)
    assert "the ledger does not hold, nothing was changed: entry 0 was edited" in output
    shutil.rmtree("ledger")
    assert "no ledger at ledger" in aisec("data", "rollback", "digits", "--to", "0", code=2)
    assert content_sha256("data/digits") == poisoned


def test_data_in_use_are_left_alone(project: Path) -> None:
    """While a stage reads them."""
    repo = Repo(".")
    with rwlock(repo.tmp_dir, repo.fs, "dvc repro train", [str(project / "data/digits")], [], False):
        assert "dvc repro train" in aisec("data", "rollback", "digits", "--to", "0", code=2)
    assert content_sha256("data/digits") == entries()[POISONED].after


def test_a_kill_over_bytes_that_nobody_recorded_is_recorded_too(project: Path) -> None:
    """The same call says what lay there, once, whatever the ledger heard in between."""
    Path("data/digits/train.npz").write_text("slipped in")
    found = content_sha256("data/digits")
    command = [sys.executable, "-c", KILL, "outputs", "swap", "after"]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode == -9
    accept("data/digits", "alarm")
    assert aisec("data", "rollback", "digits", "--to", "0").startswith("entry 5: data/digits is back")
    assert (entries()[5].before, entries()[5].after) == (found, entries()[HONEST].after)
    assert "is in no entry" in entries()[5].why
    assert "nothing changed, nothing recorded" in aisec("data", "rollback", "digits", "--to", "0")


@pytest.mark.parametrize("wrong", ["why", "dependency"])
def test_what_is_refused_is_refused_before_anything_moves(wrong: str, project: Path) -> None:
    """A reason that no entry can hold, and a stage whose dependency is gone."""
    if wrong == "dependency":
        Path("reader.py").unlink()
    before = content_sha256("data/digits"), Path("dvc.lock").read_bytes()
    aisec("data", "rollback", "digits", "--to", "0", "--why", "two\nlines" if wrong == "why" else "a", code=2)
    assert (content_sha256("data/digits"), Path("dvc.lock").read_bytes()) == before
    assert len(entries()) == 4
