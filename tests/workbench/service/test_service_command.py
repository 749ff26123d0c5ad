"""`aisec serve` and `aisec service` at the door: what is wrong is one line and exit code 2, and nothing was started."""

import fcntl
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from aisec_lab.workbench.command import main
from aisec_lab.workbench.service.credentials import CREDENTIALS, Keyring
from aisec_lab.workbench.service.settings import ServiceSettings, read_settings
from benchmarks.served_project import MODEL, STATE, ServedProject
from tests.clone import ROOT


def aisec(*words: str, code: int = 0) -> str:
    """What the command prints; one line where it refuses."""
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == code, done.output
    assert not code or len(done.output.strip().splitlines()) == 1, done.output
    return done.output


def test_the_committed_settings_are_the_defaults() -> None:
    """So that the file shows all there is to set, and nothing else."""
    assert read_settings(ROOT / "configs/service.yaml") == ServiceSettings()


def remove(name: str) -> Callable[[ServedProject], None]:
    def change(project: ServedProject) -> None:
        (project.root / name).unlink()

    return change


def configure(**changed: Any) -> Callable[[ServedProject], None]:
    return lambda project: project.configure(**changed)


def revoke_all(project: ServedProject) -> None:
    for name in project.keys:
        project.credentials.revoke(name)


BAD: dict[str, tuple[Callable[[ServedProject], object], str]] = {
    "no key of anybody": (remove(f"{STATE}/{CREDENTIALS}"), "nobody has a valid key"),
    "only revoked keys": (revoke_all, "nobody has a valid key"),
    "no CA for mutual TLS": (configure(tls={"client_certificates": True}), "tls.client_ca names no CA"),
    "a CA that is not there": (
        configure(tls={"client_certificates": True, "client_ca": "nowhere.pem"}),
        "no nowhere.pem",
    ),
    "no certificate": (remove(f"{STATE}/server.pem"), "aisec service certificate"),
    "another key than the certificate's": (
        lambda project: shutil.copy(project.root / STATE / "client.key", project.root / STATE / "server.key"),
        "no certificate and its key",
    ),
    "no key for the quarantine": (remove(f"{STATE}/quarantine.pub"), "aisec vault keygen"),
    "no ledger key": (remove(".aisec/keys/ledger.pem"), "no signing key"),
    "a model that nobody signed": (lambda project: project.train(7), "the ledger vouches for"),
    "no model": (lambda project: shutil.rmtree(project.root / MODEL), "no model at models/cnn"),
    "no ledger": (lambda project: shutil.rmtree(project.root / "ledger"), "no "),
    "a threshold out of range": (configure(guard={"fpr": 1.5}), "fpr is in (0, 1), got 1.5"),
    "a threshold that its data cannot set": (configure(guard={"fpr": 1e-5}), "needs at least"),
    "a range of no detector": (configure(guard={"ranges": {"energy": [0, 1]}}), "energy is no detector"),
    "an empty range": (configure(guard={"ranges": {"mahalanobis": [2, 1]}}), "its range is empty: [2.0, 1.0]"),
    "a budget of nothing": (configure(guard={"budget": 0}), "budget is a positive number"),
    "a port that is none": (configure(port=70_000), "port is in 0..65535"),
    "a host that is not here": (configure(host="192.0.2.1"), "nothing can listen on 192.0.2.1:0"),
    "no worker": (configure(workers=0), "workers is in 1..64"),
    "a limit of nothing": (configure(limits={"per_credential": {"requests": 0, "seconds": 1}}), "at least 1 request"),
    "another choice for a lost store": (configure(limits={"when_lost": "panic"}), "one of refuse, admit"),
    "a store that is none": (configure(limits={"store": "http://x"}), "limits.store is embedded or a URL"),
    "a misspelt setting": (configure(wokers=2), "wokers"),
    "a misspelt setting inside": (configure(tls={"cert": "x"}), "tls.cert"),
    "a word for a number": (configure(port="many"), "port: Input should be a valid integer"),
    "an answer that is not published": (configure(publishes="weights"), "one of probabilities, label"),
    "no settings": (remove("configs/service.yaml"), "no settings of the service"),
    "settings that are no mapping": (lambda project: project.settings.write_text("- 1"), "should be a dictionary"),
    "settings that are no YAML": (lambda project: project.settings.write_text("{"), "is no YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_configuration_is_one_line(case: str, project: ServedProject) -> None:
    change, said = BAD[case]
    change(project)
    assert said in aisec("serve", MODEL, code=2)


@contextmanager
def taken_port(project: ServedProject) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        project.configure(port=other.getsockname()[1])
        yield f"nothing can listen on 127.0.0.1:{other.getsockname()[1]}: Address already in use"


@contextmanager
def taken_state(project: ServedProject) -> Iterator[str]:
    with (project.root / STATE / "service.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield "another service runs with the state in"


@pytest.mark.parametrize("taken", [taken_port, taken_state])
def test_what_another_one_uses_is_refused(taken: Any, project: ServedProject) -> None:
    with taken(project) as said:
        assert said in aisec("serve", MODEL, code=2)


@pytest.mark.parametrize("model", ["cnn", "/etc", "models/../data", "models/", "data/digits", "models/.."])
def test_a_model_is_named_from_the_root(model: str, project: ServedProject) -> None:
    assert "models/standard-0" in aisec("serve", model, code=2)


def test_keys_are_made_listed_and_revoked(project: ServedProject) -> None:
    token, address = aisec("service", "key", "ada", "--role", "operator", "--person").splitlines()
    assert address.startswith("otpauth://totp/")
    keyring = Keyring(project.credentials)
    assert keyring.find(token)
    assert aisec("service", "keys").splitlines()[-1].split() == ["ada", "operator", "valid", "second", "factor"]
    aisec("service", "revoke", "ada")
    assert keyring.find(token) is None
    assert "no role 'kaiser'" in aisec("service", "key", "bob", "--role", "kaiser", code=2)
    assert "nobody" not in aisec("service", "revoke", "ada", code=2)


def test_certificates_are_made_where_the_settings_say(project: ServedProject, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    project.configure(tls={"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")})
    said = aisec("service", "certificate", "--client", "ada")
    assert f"clients trust {folder / 'ca.pem'}" in said
    assert {path.name for path in folder.iterdir()} == {"ca.pem", "server.pem", "server.key", "ada.pem", "ada.key"}
    assert "is there already" in aisec("service", "certificate", code=2)
    assert "a name is" in aisec("service", "certificate", "--client", "../ada", code=2)


def test_settings_may_lie_elsewhere(project: ServedProject, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"workers": 0}))
    assert "workers is in 1..64" in aisec("serve", MODEL, "--settings", str(other), code=2)
