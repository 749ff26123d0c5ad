"""API keys and second factors."""

import json
import threading
import urllib.parse
from pathlib import Path

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aisec_lab.workbench.service.credentials import Credential, CredentialFile, Keyring
from aisec_lab.workbench.service.database import Database
from aisec_lab.workbench.service.totp import DRIFT, FAILURES, PAUSE, STEP, SecondFactor

NOW = 1_700_000_000.0
SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # of RFC 6238, appendix B


@pytest.fixture
def file(tmp_path: Path) -> CredentialFile:
    return CredentialFile(tmp_path / "state" / "credentials.json")


def test_a_key_is_shown_once_and_stored_as_a_hash(file: CredentialFile) -> None:
    token, address = file.add("ada", "operator", person=True)
    stored = file.path.read_text()
    assert token.rsplit("_", 1)[1] not in stored
    assert file.path.stat().st_mode & 0o777 == 0o600
    found = Keyring(file).find(token)
    assert found is not None
    assert (found.name, found.role) == ("ada", "operator")
    assert address is not None
    assert urllib.parse.parse_qs(urllib.parse.urlsplit(address).query)["secret"] == [found.totp]
    assert str(found.totp) not in repr(found)
    assert found.sha256 not in repr(found)


def test_a_program_has_no_second_factor(file: CredentialFile) -> None:
    token, address = file.add("program", "client")
    credential = Keyring(file).find(token)
    assert address is None
    assert credential is not None
    assert credential.totp is None


@given(place=st.integers(0, 200), letter=st.characters(codec="ascii", categories=["L", "N"]))
def test_every_character_of_a_key_counts(place: int, letter: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = CredentialFile(tmp_path_factory.mktemp("key") / "credentials.json")
    token, _ = file.add("client", "client")
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    assert (Keyring(file).find(changed) is not None) is (changed == token)


@pytest.mark.parametrize("token", ["", "aisec", "aisec__", "aisec_" + "0" * 16 + "_" + "A" * 43, "\0", "ä" * 60])
def test_what_is_no_key_is_nobodys(token: str, file: CredentialFile) -> None:
    assert Keyring(file).find(token) is None
    file.add("client", "client")
    assert Keyring(file).find(token) is None


def test_two_halves_of_two_keys_are_none(file: CredentialFile) -> None:
    first, _ = file.add("one", "client")
    second, _ = file.add("two", "client")
    mixed = "_".join([*first.split("_", 2)[:2], second.split("_", 2)[2]])
    assert Keyring(file).find(mixed) is None


def test_a_revoked_key_is_refused_at_once_by_who_has_read_the_file_before(file: CredentialFile) -> None:
    token, _ = file.add("client", "client")
    keyring = Keyring(file)
    assert keyring.find(token)
    file.revoke("client")
    assert keyring.find(token) is None
    again, _ = file.add("client", "client")
    assert keyring.find(again)
    assert keyring.find(token) is None


def test_bad_names_and_files_are_refused(file: CredentialFile) -> None:
    for name in ("", "Ada", "a b", "a\nb", "x" * 64):
        with pytest.raises(ValueError, match="a name is"):
            file.add(name, "client")
    file.add("ada", "client")
    with pytest.raises(ValueError, match="ada has a key"):
        file.add("ada", "operator")
    with pytest.raises(ValueError, match="bob has no valid key; ada has"):
        file.revoke("bob")
    file.path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        file.read()
    file.path.chmod(0o600)
    file.path.write_text(json.dumps([{"id": "1"}]))
    with pytest.raises(ValueError, match="damaged"):
        Keyring(file).find("aisec_" + "0" * 16 + "_" + "A" * 43)


@pytest.fixture
def factor(tmp_path: Path) -> SecondFactor:
    database = Database(tmp_path / "service.db")
    database.create()
    return SecondFactor(database)


PERSON = Credential("0" * 16, "ada", "operator", "", SECRET)


def test_the_codes_are_those_of_the_rfc(factor: SecondFactor) -> None:
    """RFC 6238, appendix B, the last six of its eight digits."""
    for seconds, code in ((59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")):
        assert factor.check(PERSON, code, now=seconds) is None


def test_a_code_works_once_and_no_older_one_after_it(factor: SecondFactor) -> None:
    code = pyotp.TOTP(SECRET).at
    assert factor.check(PERSON, code(int(NOW)), now=NOW) is None
    assert factor.check(PERSON, code(int(NOW)), now=NOW + 1) == "gave a code that was used before"
    assert factor.check(PERSON, code(int(NOW) - STEP), now=NOW) == "gave a code that was used before"
    assert factor.check(PERSON, code(int(NOW) + STEP), now=NOW) is None


def test_clocks_may_differ_by_a_step(factor: SecondFactor) -> None:
    code = pyotp.TOTP(SECRET).at
    for away, valid in ((-DRIFT - 1, False), (-DRIFT, True), (0, True), (DRIFT, True), (DRIFT + 1, False)):
        assert (factor.check(PERSON, code(int(NOW) + away * STEP), now=NOW) is None) is valid, away


def test_of_many_who_use_a_code_at_once_one_comes_in(factor: SecondFactor) -> None:
    """As workers do, each with a connection of its own."""
    code, answers = pyotp.TOTP(SECRET).at(int(NOW)), []
    threads = [threading.Thread(target=lambda: answers.append(factor.check(PERSON, code, now=NOW))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert answers.count(None) == 1


def test_guessing_ends(factor: SecondFactor) -> None:
    """Even the right code has to wait then, and works afterwards."""
    right = pyotp.TOTP(SECRET).at
    wrong = "000000" if right(int(NOW)) != "000000" else "000001"
    for _ in range(FAILURES):
        assert factor.check(PERSON, wrong, now=NOW) == "gave a wrong code"
    assert "has to wait" in str(factor.check(PERSON, right(int(NOW)), now=NOW))
    later = NOW + PAUSE + 1
    assert factor.check(PERSON, right(int(later)), now=later) is None


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "\0", "١٢٣٤٥٦", "-00001"])
def test_what_is_no_code_is_wrong(code: str, factor: SecondFactor) -> None:
    assert factor.check(PERSON, code, now=NOW) == "gave a wrong code"


def test_without_a_secret_there_is_no_code(factor: SecondFactor) -> None:
    assert factor.check(Credential("1" * 16, "program", "client", ""), "000000") == "has no second factor"
