"""`aisec ledger`, as a person types it."""

import json
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from dvc.repo import Repo

from aisec_lab.trust import LedgerEntry, content_sha256
from aisec_lab.workbench.command import main
from tests.clone import ROOT

Aisec = Callable[..., str]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with git, DVC and a dataset, in which we stand."""
    root = tmp_path / "project"
    (root / "data/digits").mkdir(parents=True)
    (root / "data/digits/train.npz").write_bytes(b"honest")
    shutil.copy(ROOT / ".gitignore", root)
    (root / "dvc.yaml").write_text("stages: {data: {cmd: 'true', outs: [data/digits]}}")
    (root / "params.yaml").write_text("seed: 0\n")
    for command in ("init -q", "config user.name Ada", "config user.email ada@localhost", "add .", "commit -qm begin"):
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def aisec(project: Path) -> Aisec:
    """Run `aisec ledger …` there, see how it exits; what it says."""

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["ledger", *arguments], catch_exceptions=False)
        assert done.exit_code == code, done.output
        assert not code or len(done.output.strip().splitlines()) == 1, done.output
        return done.output

    run("init")
    return run


def accept(aisec: Aisec, why: str, name: str = "data/digits", code: int = 0) -> str:
    return aisec("append", "--what", "accept", "--object", name, "--why", why, code=code)


def entry(project: Path, index: int) -> LedgerEntry:
    return LedgerEntry.parse((project / "ledger/entries.jsonl").read_bytes().split(b"\n")[index])


def test_a_change_is_recorded_with_what_it_was_done_with(aisec: Aisec, project: Path) -> None:
    """Who, by git; hashes before and after; commit and configuration."""
    assert accept(aisec, "delivered").startswith("entry 0: accept data/digits, sha256 nothing -> ")
    first = content_sha256("data/digits")
    (project / "data/digits/train.npz").write_bytes(b"poison")
    accept(aisec, "repaired", name="data/digits/")
    shutil.rmtree(project / "data/digits")
    accept(aisec, "withdrawn")
    entries = [entry(project, index) for index in range(3)]
    assert entries[0].who == "Ada <ada@localhost>"
    assert (
        entries[0].commit
        == subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    )
    assert len(entries[0].config or "") == 12
    assert [one.object for one in entries] == ["data/digits"] * 3
    assert entries[0].after == entries[1].before == first
    assert entries[1].after == entries[2].before != first
    assert entries[2].after is None
    log = aisec("log", "--object", "data/digits").splitlines()
    assert len(log) == 3
    assert "Ada <ada@localhost>: accept data/digits" in log[1]
    assert log[1].endswith(": repaired")
    assert aisec("log", "--object", "data/other") == ""


def test_an_entry_names_where_its_bytes_come_back_from(aisec: Aisec, project: Path) -> None:
    """DVC's cache, by md5 and whether or not dvc.lock names it; else a commit; else nowhere, which is said."""
    assert "nothing keeps these bytes" in accept(aisec, "only on disk")
    repo = Repo.init(str(project))
    repo.commit("data", force=True)
    accept(aisec, "in the cache")
    (project / "data/digits/train.npz").write_bytes(b"poison")
    assert "nothing keeps these bytes" in accept(aisec, "changed behind DVC's back")
    assert "nothing keeps" not in accept(aisec, "committed", name="params.yaml")
    (project / "params.yaml").write_text("seed: 1\n")
    assert "nothing keeps these bytes" in accept(aisec, "not committed", name="params.yaml")
    restores = [entry(project, index).restore for index in range(5)]
    kept = repo.find_outs_by_path("data/digits")[0].hash_info.value
    assert restores == [None, f"dvc:{kept}", None, f"git:{entry(project, 3).commit}", None]
    assert entry(project, 3).config != entry(project, 4).config


def test_tampering_is_one_line_and_exit_code_1(aisec: Aisec, project: Path, tmp_path: Path) -> None:
    """The first bad entry by name; the log stops there; nothing more is signed."""
    for why in ("one", "two", "three"):
        accept(aisec, why)
    assert aisec("verify").startswith("intact, 3 entries\n")
    shutil.copy("ledger/head.json", tmp_path / "kept.json")
    shutil.copytree("ledger", tmp_path / "copy")
    assert aisec("verify", "--head", str(tmp_path / "kept.json")) == "intact, 3 entries\n"
    entries = project / "ledger/entries.jsonl"
    entries.write_bytes(entries.read_bytes().replace(b"two", b"owt"))
    assert aisec("verify", code=1).startswith("aisec: entry 1 was edited")
    done = CliRunner().invoke(main, ["ledger", "log"])
    assert (done.exit_code, done.output.count("\n")) == (1, 2)
    assert "nothing was signed" in accept(aisec, "four", code=2)
    assert aisec("--folder", str(tmp_path / "copy"), "verify").startswith("intact, 3")


def test_only_a_kept_head_shows_a_ledger_cut_off_together_with_its_own(
    aisec: Aisec, project: Path, tmp_path: Path
) -> None:
    """A folder put back as it was."""
    accept(aisec, "one")
    shutil.copytree("ledger", tmp_path / "former")
    accept(aisec, "two")
    shutil.copy("ledger/head.json", tmp_path / "kept.json")
    shutil.rmtree("ledger")
    shutil.copytree(tmp_path / "former", "ledger")
    assert "only a head kept elsewhere shows" in aisec("verify")
    assert aisec("verify", "--head", str(tmp_path / "kept.json"), code=1).startswith("aisec: entry 1 is missing")


def test_a_proof_is_checked_far_from_the_ledger(
    aisec: Aisec, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the proof, the public key and a head in a folder of the auditor's; a changed one is exit code 1."""
    accept(aisec, "one")
    shutil.copy("ledger/head.json", tmp_path / "old.json")
    accept(aisec, "two")
    for name in ("head.json", "public_key.pem"):
        shutil.copy(f"ledger/{name}", tmp_path)
    (tmp_path / "inclusion.json").write_text(aisec("prove", "0"))
    (tmp_path / "consistency.json").write_text(aisec("prove", "--since", str(tmp_path / "old.json")))
    (tmp_path / "changed.json").write_text(aisec("prove", "0").replace("one", "eno"))
    shutil.rmtree(project / "ledger")
    monkeypatch.chdir(tmp_path)
    key = ("--key", "public_key.pem")
    output = aisec("check-proof", "inclusion.json", *key, "--head", "head.json")
    assert output.startswith('entry 0 is in the ledger of 2: {"action":"accept"')
    output = aisec("check-proof", "consistency.json", *key, "--head", "old.json")
    assert output == "the ledger of 2 begins with all 1 entries of the older head\n"
    assert "do not lead to its head" in aisec("check-proof", "changed.json", *key, code=1)
    assert "another head" in aisec("check-proof", "inclusion.json", *key, "--head", "old.json", code=1)
    assert "no proof" in aisec("check-proof", "public_key.pem", *key, code=2)
    (tmp_path / "empty.json").write_text(json.dumps({}))
    assert "not a proof" in aisec("check-proof", "empty.json", *key, code=2)


def test_the_private_key_stays_out_of_git(aisec: Aisec, project: Path) -> None:
    """Its public half and the entries go in, byte for byte."""
    accept(aisec, "one")
    subprocess.run(["git", "add", "-A"], check=True)
    staged = subprocess.run(["git", "diff", "--cached", "--name-only"], capture_output=True, text=True, check=True)
    assert staged.stdout.split() == [
        "ledger/.gitattributes", "ledger/entries.jsonl", "ledger/head.json", "ledger/public_key.pem",
    ]  # fmt: skip
    assert stat.S_IMODE((project / ".aisec/keys/ledger.pem").stat().st_mode) == 0o600
    subprocess.run(["git", "config", "core.autocrlf", "true"], check=True)
    subprocess.run(["git", "commit", "-qm", "ledger"], check=True)
    shutil.rmtree("ledger")
    subprocess.run(["git", "checkout", "-q", "ledger"], check=True)
    assert aisec("verify").startswith("intact, 1 entry")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("init", "there is a ledger at ledger"),
        ("append --what accept --why x --object data/digitz", "no file or folder data/digitz"),
        ("append --what accept --why x --object ../data", "by its path from the project's root"),
        ("append --what accept --why x --object /etc/passwd", "by its path from the project's root"),
        ("append --what accept --why x --object .", "by its path from the project's root"),
        ("append --what Accept --why x --object data/digits", "one lower-case word"),
        ("append --what accept --why x --object data/digits --who \x07", "who must be one printable line"),
        ("prove", "give an INDEX"),
        ("prove 0 --since ledger/head.json", "give an INDEX"),
        ("prove 0", "no entry 0 among 0"),
        ("prove -- -1", "no entry -1"),
        ("verify --head none.json", "no head at"),
        ("verify --key none.pem", "no public key at"),
        ("verify --head ledger/public_key.pem", "no head of a ledger"),
        ("check-proof none.json", "no proof at"),
        ("--folder none verify", "no ledger at"),
    ],
)
def test_what_a_person_got_wrong_is_one_line_and_exit_code_2(arguments: str, says: str, aisec: Aisec) -> None:
    """And nothing is recorded."""
    assert says in aisec(*arguments.split(" "), code=2)
    assert aisec("verify").startswith("intact, 0 entries")
    assert says.startswith("there is") or Path("ledger/entries.jsonl").read_bytes() == b""


def test_without_the_key_nothing_is_appended(aisec: Aisec, project: Path) -> None:
    """Or with one that others may read."""
    key = project / ".aisec/keys/ledger.pem"
    key.chmod(0o644)
    assert "may be read by others" in accept(aisec, "one", code=2)
    key.unlink()
    assert "no signing key at .aisec/keys/ledger.pem" in accept(aisec, "one", code=2)
    assert aisec("verify").startswith("intact, 0 entries")
