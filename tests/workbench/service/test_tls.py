"""TLS 1.3 and mutual TLS, by handshakes in memory."""

import datetime
import ssl
from pathlib import Path
from typing import NamedTuple

import pytest

from aisec_lab.workbench.service.certificates import CLIENT, SERVER, Authority
from aisec_lab.workbench.service.settings import TLSSettings
from aisec_lab.workbench.service.tls import TLSContext


class Folder(NamedTuple):
    """Certificates of an authority, and of another one."""

    path: Path

    def client(self, name: str | None) -> ssl.SSLContext:
        """A client that trusts the authority and shows this certificate."""
        context = ssl.create_default_context(cafile=str(self.path / "ca.pem"))
        if name:
            context.load_cert_chain(self.path / f"{name}.pem", self.path / f"{name}.key")
        return context

    def server(self, *, mutual: bool = False, ca: str = "ca.pem") -> ssl.SSLContext:
        """The server's context."""
        return TLSContext(
            TLSSettings(self.path / "server.pem", self.path / "server.key", mutual, self.path / ca if mutual else None)
        )()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("tls")
    authority, other = Authority.make(), Authority.make("another authority")
    authority.write(path / "ca.pem")
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=91)
    future = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    authority.issue("localhost", SERVER, path / "server.pem", path / "server.key", hosts=("localhost", "127.0.0.1"))
    authority.issue("good", CLIENT, path / "good.pem", path / "good.key")
    authority.issue("expired", CLIENT, path / "expired.pem", path / "expired.key", begin=past)
    authority.issue("early", CLIENT, path / "early.pem", path / "early.key", begin=future)
    other.issue("foreign", CLIENT, path / "foreign.pem", path / "foreign.key")
    return Folder(path)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """The version that both speak once each has read a byte of the other; raises what either side refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
    ]
    done: set[int] = set()
    for _ in range(10):
        for place, end in enumerate(ends):
            if place not in done:
                try:
                    end.do_handshake()
                    done.add(place)
                except ssl.SSLWantReadError:
                    pass
        if len(done) == 2:
            break
    for end, other in (ends, ends[::-1]):  # in TLS 1.3 a client's certificate is judged after its own handshake
        end.write(b"x")
        assert other.read(1) == b"x"
    return ends[0].version()


def test_it_speaks_1_3(folder: Folder) -> None:
    assert handshake(folder.server(), folder.client(None)) == "TLSv1.3"


def test_it_refuses_1_2(folder: Folder) -> None:
    """What Uvicorn's own context accepts."""
    client = folder.client(None)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        handshake(folder.server(), client)
    usual = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    usual.load_cert_chain(folder.path / "server.pem", folder.path / "server.key")
    assert handshake(usual, client) == "TLSv1.2"


def test_a_client_of_the_authority_comes_in(folder: Folder) -> None:
    assert handshake(folder.server(mutual=True), folder.client("good")) == "TLSv1.3"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        ("expired", "certificate has expired"),
        ("early", "certificate is not yet valid"),
        ("foreign", "unable to get local issuer"),
        ("server", "unsuitable certificate purpose"),  # signed by the authority, for another use
    ],
)
def test_another_client_does_not(name: str | None, why: str, folder: Folder) -> None:
    with pytest.raises(ssl.SSLError, match=why):
        handshake(folder.server(mutual=True), folder.client(name))
    handshake(folder.server(), folder.client(name))  # without mutual TLS nobody asks


def test_without_an_authority_nothing_starts(folder: Folder) -> None:
    """Neither without a name of one, nor with a file that is none: such a service would check nobody."""
    with pytest.raises(ValueError, match="names no CA"):
        TLSSettings(client_certificates=True)
    with pytest.raises(FileNotFoundError, match=r"no .*nowhere\.pem"):
        folder.server(mutual=True, ca="nowhere.pem")
    with pytest.raises(ValueError, match="holds no CA"):
        folder.server(mutual=True, ca="server.key")
    with pytest.raises(ValueError, match="no certificate of an authority"):
        folder.server(mutual=True, ca="good.pem")


def test_a_key_that_others_may_read_is_refused(folder: Folder, tmp_path: Path) -> None:
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_bytes((folder.path / name).read_bytes())
    (tmp_path / "server.key").chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        Folder(tmp_path).server()


def test_nothing_is_overwritten(folder: Folder) -> None:
    with pytest.raises(FileExistsError):
        Authority.make().issue("again", SERVER, folder.path / "server.pem", folder.path / "new.key")
    assert not (folder.path / "new.key").exists()
    assert (folder.path / "server.key").stat().st_mode & 0o777 == 0o600
