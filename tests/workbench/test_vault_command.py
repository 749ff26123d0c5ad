"""`aisec vault` and `aisec access`, as a person types them."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from aisec_lab.trust import vault_passphrase
from aisec_lab.workbench.command import main
from tests.clone import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a policy, a dataset and a model; a steward asks, with a passphrase in the environment."""
    (tmp_path / "dvc.yaml").touch()
    shutil.copytree(ROOT / "configs/access", tmp_path / "configs/access")
    for name in ("data/digits", "models/cnn"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "content").write_text(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AISEC_ROLE", "steward")
    monkeypatch.setenv("AISEC_PASSPHRASE", "correct horse")
    monkeypatch.setattr(
        vault_passphrase, "Scrypt", lambda salt, length, n, r, p: Scrypt(salt, length, 2, r, p)
    )  # quick
    return tmp_path


def aisec(*words: str, code: int = 0, typed: str = "") -> str:
    """What the command prints, on both streams."""
    done: Result = CliRunner().invoke(main, words, input=typed)
    assert done.exit_code == code, done.output
    return done.output


def test_a_dataset_goes_in_and_comes_back(project: Path) -> None:
    """By a passphrase from the environment; the source stays."""
    assert aisec("vault", "seal", "data/digits", "digits.sealed") == "digits.sealed\n"
    assert (project / "data/digits/content").exists()
    assert b"data/digits" not in (project / "digits.sealed").read_bytes()
    shutil.rmtree("data/digits")
    assert aisec("vault", "open", "digits.sealed", "data/digits") == "data/digits\n"
    assert (project / "data/digits/content").read_text() == "data/digits"


def test_a_refusal_stands_in_the_ledger(project: Path) -> None:
    """Where there is one; without one the command is refused all the same."""
    refused = "vault", "seal", "data/digits", "digits.sealed", "--role", "auditor"
    assert "auditor may not seal data/digits" in aisec(*refused, code=2)
    aisec("ledger", "init")
    aisec(*refused, code=2)
    log = aisec("ledger", "log").splitlines()
    assert len(log) == 1
    assert "refuse data/digits (nothing -> nothing): auditor may not seal it" in log[0]
    assert not (project / "digits.sealed").exists()


def test_a_key_pair_needs_the_passphrase_only_to_open(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealing asks nothing."""
    assert aisec("vault", "keygen", "lab") == "lab.pub\nlab.key\n"
    monkeypatch.delenv("AISEC_PASSPHRASE")
    aisec("vault", "seal", "data/digits/content", "content.sealed", "--to", "lab.pub")
    aisec("vault", "open", "content.sealed", "content", "--key", "lab.key", typed="correct horse\n")
    assert (project / "content").read_text() == "data/digits"
    output = aisec("vault", "open", "content.sealed", "again", "--key", "lab.key", code=2, typed="wrong horse\n")
    assert "aisec: lab.key, which should be a private key of the vault: wrong passphrase" in output
    output = aisec("vault", "open", "content.sealed", "again", code=2, typed="correct horse\n")
    assert "sealed for an RSA key, not by a passphrase" in output
    assert not (project / "again").exists()


def test_a_new_passphrase_is_typed_twice_and_never_shown(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a prompt, when the environment has none."""
    monkeypatch.delenv("AISEC_PASSPHRASE")
    typed = "battery staple\nbattery stable\nbattery staple\nbattery staple\n"
    output = aisec("vault", "seal", "data/digits", "digits.sealed", typed=typed)
    assert "do not match" in output
    assert "staple" not in output
    aisec("vault", "open", "digits.sealed", "back", typed="battery staple\n")
    output = aisec("vault", "seal", "data/digits", "again", code=2, typed="short\nshort\n")
    assert "aisec: a passphrase needs at least 8 characters, got 5" in output
    assert not (project / "again").exists()


def test_a_damaged_file_is_one_line_and_exit_code_2(project: Path) -> None:
    """And nothing at the target."""
    aisec("vault", "seal", "data/digits", "digits.sealed")
    data = bytearray((project / "digits.sealed").read_bytes())
    data[-1] ^= 1
    (project / "digits.sealed").write_bytes(data)
    output = aisec("vault", "open", "digits.sealed", "back", code=2)
    assert output.startswith("aisec: digits.sealed: chunk 0 does not verify")
    assert len(output.splitlines()) == 1
    assert not (project / "back").exists()
    output = aisec("vault", "seal", "data/digits", "digits.sealed", code=2)
    assert output.startswith("aisec: digits.sealed is there already")


def test_the_policy_guards_data_and_models(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the option or the environment, wherever one stands and however the path is spelt; other files are free."""
    refused = (
        "aisec: researcher may not seal data/digits (steward may): `aisec access explain researcher seal data/digits`"
    )
    for path in ("data/digits", "configs/../data/digits", str(project / "data/digits")):
        assert aisec("vault", "seal", path, "out", "--role", "researcher", code=2).startswith(refused)
    aisec("vault", "seal", "models/cnn", "models/cnn.sealed", "--role", "researcher")
    assert "may not open models/cnn.sealed" in aisec("vault", "open", "models/cnn.sealed", "out", code=2)
    assert "may not seal data (" in aisec("vault", "seal", "data", "out", code=2)
    monkeypatch.delenv("AISEC_ROLE")
    assert aisec("vault", "seal", "data/digits", "out", code=2).startswith("aisec: who are you? set AISEC_ROLE")
    aisec("vault", "seal", "dvc.yaml", "out")
    monkeypatch.chdir(project / "data")
    assert aisec("vault", "seal", "digits", "../more", "--role", "researcher", code=2).startswith(refused)


def test_access_is_explained_and_listed(project: Path) -> None:
    """The granting rule; the nearest ones; all of them; a misspelt role."""
    assert "may write data/digits, to accept" in aisec("access", "explain", "steward", "write", "data/digits")
    assert "but it is for steward" in aisec("access", "explain", "researcher", "write", "data/digits")
    rules = [line for line in (project / "configs/access/policy.csv").read_text().splitlines() if line[:2] == "p,"]
    assert len(aisec("access", "list").splitlines()) == len(rules)
    assert aisec("access", "explain", "stewart", "write", "data/digits", code=2).startswith("aisec: no role 'stewart'")
