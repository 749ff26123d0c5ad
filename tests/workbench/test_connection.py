"""The way into a cluster, as far as it needs none: what is an address, and who is not talked to."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from aisec_lab.workbench.repro.connection import Address, check, ip_of, parse
from aisec_lab.workbench.repro.members import difference


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:7000", Address("10.0.0.1", 7000, client=False)),
        ("10.0.0.1", Address("10.0.0.1", 6379, client=False)),
        ("ray://10.0.0.1", Address("10.0.0.1", 10001, client=True)),
        ("ray://localhost:7000", Address("127.0.0.1", 7000, client=True)),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address) -> None:
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize("text", ["", "auto", "http://10.0.0.1:6379", "10.0.0.1:", "10.0.0.1:port", "10.0.0.1:123456"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT|no machine"):
        parse(text)


def test_ray_would_listen_everywhere_for_another_loopback_address() -> None:
    with pytest.raises(ValueError, match=r"take 127\.0\.0\.1"):
        ip_of("127.0.0.2")


def serve(answer: Callable[[Any], None]) -> tuple[grpc.Server, int]:
    """A server that takes any request, and the port where it listens."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer(context) or b"")

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


@pytest.mark.parametrize("client", [True, False])
def test_a_cluster_that_asks_for_no_token_is_left_alone(monkeypatch: pytest.MonkeyPatch, client: bool) -> None:
    """And it does not get ours."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    seen = []
    server, port = serve(lambda context: seen.extend(dict(context.invocation_metadata())["authorization"].split()))
    with pytest.raises(ValueError, match="takes any token"):
        check(Address("127.0.0.1", port, client))
    assert seen[0] == "Bearer"
    assert "secret" not in seen
    server.stop(None)
    with pytest.raises(ValueError, match="no cluster answers"):
        check(Address("127.0.0.1", port, client))


@pytest.mark.parametrize(
    ("here", "there", "says"),
    [
        ({"torch": "2"}, {"torch": "2"}, "^$"),
        ({"torch": "2"}, {"torch": "3"}, "torch 3, here 2"),
        ({"torch": "2"}, {}, "torch missing, here 2"),
        ({}, {"torch": "2"}, "torch 2, here missing"),
    ],
)
def test_a_node_with_other_packages_is_told_apart(here: dict[str, str], there: dict[str, str], says: str) -> None:
    assert re.search(says, difference(here, there))
