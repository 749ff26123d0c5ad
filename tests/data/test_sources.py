"""Where files come from: a mirror, a cache, a server on the loopback interface."""

import hashlib
import re
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from aisec_lab.data import File
from aisec_lab.data.sources import MIRROR, fetch

BODY = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves BODY in the ways that a network has; `asked` counts the requests."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_GET(self) -> None:
        """Answer as the path says."""
        self.asked.append(self.path)
        self.close_connection = True
        if self.path == "/dropped":
            return
        self.send_response(404 if self.path == "/absent" else 200)
        if self.path == "/cut-chunks":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", "0" if self.path == "/absent" else str(len(BODY)))
        self.end_headers()
        answers = {
            "/whole": BODY,
            "/wrong": BODY[::-1],
            "/cut": BODY[: len(BODY) // 2],
            "/cut-chunks": b"%x\r\n" % len(BODY) + BODY[:100],
        }
        self.wfile.write(answers.get(self.path, b""))

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


class Server:
    """A server in a thread, and the files that it would serve."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{port}"

    def file(self, path: str, sha256: str = SHA256) -> File:
        """The file that lies at `path` there."""
        return File("set/body.bin", sha256, f"{self.address}/{path}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Without a mirror, and past any proxy."""
    monkeypatch.delenv(MIRROR, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"asked": asked})) as http:
        thread = Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        served = Server(http.server_port)
        served.asked = asked
        yield served
        http.shutdown()
        thread.join()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mirror."""
    folder = tmp_path / "mirror"
    (folder / "set").mkdir(parents=True)
    monkeypatch.setenv(MIRROR, str(folder))
    return folder


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_download_is_kept_and_shows_its_progress(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bytes are those of the server; the second time nobody is asked."""
    file = server.file("whole")
    for _ in range(2):
        chosen, (place,) = fetch(((file,),), tmp_path / "cache")
        assert chosen == (file,)
        assert place.read_bytes() == BODY
    assert server.asked == ["/whole"]
    assert re.search(r"body\.bin: 100%", capsys.readouterr().err)
    assert files_below(tmp_path) == [tmp_path / "cache/set/body.bin"]


@pytest.mark.parametrize("path", ["wrong", "cut"])
def test_a_download_with_another_checksum_is_not_kept(server: Server, tmp_path: Path, path: str) -> None:
    """Other bytes, or too few: the address, what was expected, what was found."""
    sent = {"wrong": BODY[::-1], "cut": BODY[: len(BODY) // 2]}[path]
    found = hashlib.sha256(sent).hexdigest()
    with pytest.raises(
        ValueError, match=f"{server.address}/{path}: expected sha256 {SHA256}, found {found}: .*not kept"
    ):
        fetch(((server.file(path),),), tmp_path / "cache")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [("absent", "Not Found"), ("dropped", "closed connection"), ("cut-chunks", "IncompleteRead")],
)
def test_a_server_that_fails_is_named_with_the_way_around(
    server: Server, tmp_path: Path, path: str, reason: str
) -> None:
    """A page that is not there, no answer, an answer that breaks off; nothing is kept."""
    message = rf"cannot download {server.address}/{path} \(.*{reason}.*\): put set/body.bin .*{SHA256}.* in {MIRROR}"
    with pytest.raises(FileNotFoundError, match=message):
        fetch(((server.file(path),),), tmp_path / "cache")
    assert files_below(tmp_path) == []


def test_a_refused_connection_is_named_with_the_way_around(server: Server, tmp_path: Path) -> None:
    """A port that is taken and not listened at."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        file = File("set/body.bin", SHA256, f"http://127.0.0.1:{deaf.getsockname()[1]}/whole")
        with pytest.raises(FileNotFoundError, match=rf"cannot download {file.url} \(.*refused\): put set/body.bin"):
            fetch(((file,),), tmp_path / "cache")
    assert files_below(tmp_path) == []


def test_a_damaged_download_is_not_used(server: Server, tmp_path: Path) -> None:
    """It says which file to remove."""
    _, (place,) = fetch(((server.file("whole"),),), tmp_path / "cache")
    place.write_bytes(BODY[1:])
    with pytest.raises(ValueError, match=f"{place}: expected sha256 {SHA256}, found .*remove or replace it"):
        fetch(((server.file("whole"),),), tmp_path / "cache")


def test_the_mirror_comes_before_the_network(server: Server, mirror: Path, tmp_path: Path) -> None:
    """Where it lies there; where only a part of a set lies there, the whole set comes from the network."""
    other = File("set/other.bin", SHA256, f"{server.address}/whole")
    (mirror / "set/body.bin").write_bytes(BODY)
    assert fetch(((server.file("whole"),),), tmp_path / "cache")[1] == [mirror / "set/body.bin"]
    assert server.asked == []
    _, places = fetch(((server.file("whole"), other),), tmp_path / "cache")
    assert places == [tmp_path / "cache/set/body.bin", tmp_path / "cache/set/other.bin"]


def test_any_set_that_the_mirror_has_comes_before_a_download_of_another(
    server: Server, mirror: Path, tmp_path: Path
) -> None:
    """The order of preference is among those that lie there; then among those with an address."""
    local, remote = File("set/local.bin", SHA256), server.file("whole")
    alternatives = ((remote,), (local,))
    assert fetch(alternatives, tmp_path / "cache")[0] == (remote,)
    (mirror / "set/local.bin").write_bytes(BODY)
    assert fetch(alternatives, tmp_path / "cache") == ((local,), [mirror / "set/local.bin"])


def test_a_damaged_mirror_is_an_error_not_a_download(server: Server, mirror: Path, tmp_path: Path) -> None:
    """Else nobody would ever repair it."""
    (mirror / "set/body.bin").write_bytes(b"")
    found = hashlib.sha256(b"").hexdigest()
    message = f"{mirror}/set/body.bin: expected sha256 {SHA256}, found {found}: "
    with pytest.raises(ValueError, match=message):
        fetch(((server.file("whole"),),), tmp_path / "cache")
    assert server.asked == []


def test_a_file_without_an_address_has_to_be_put_into_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names file, checksum and variable."""
    monkeypatch.delenv(MIRROR, raising=False)
    with pytest.raises(FileNotFoundError, match=f"no public address serves a/b.bin .sha256 {SHA256}.: .* in {MIRROR}"):
        fetch(((File("a/b.bin", SHA256),),), tmp_path / "cache")
    assert files_below(tmp_path) == []


def test_a_set_inside_a_package_needs_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither mirror nor network."""
    monkeypatch.delenv(MIRROR, raising=False)
    assert fetch(((),), tmp_path / "cache") == ((), [])
