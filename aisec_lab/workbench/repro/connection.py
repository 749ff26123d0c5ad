"""The way into a Ray cluster: by token only, and with one clear line where it is refused."""

import os
import re
import socket
import uuid
import warnings
from typing import NamedTuple

GCS_PORT, CLIENT_PORT = 6379, 10001  # Ray's own
CLIENT = "ray://"
LOOPBACK = "127.0.0.1"
SECONDS = 10.0  # until a cluster that does not answer is not there
TRIES = 3  # the head starts a process for each client, and one time in ten that one did not live
MEND = (
    "make one with `(umask 077; ray get-auth-token --generate > /dev/null)` and copy ~/.ray/auth_token to each machine "
    "of the cluster, or name another file in RAY_AUTH_TOKEN_PATH"
)
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",  # off by default: anybody who reaches a port could run anything
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # each fork here is followed by exec; what gRPC does at a fork has crashed
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a thread that comes late starts a cluster of its own
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray hides the GPUs from a process that claims none
    "RAY_prestart_worker_first_driver": "0",  # a process for each CPU, which is not used here
}
METHODS = {  # something harmless to ask; the answer to the right token need not be a good one
    False: "/ray.rpc.NodeInfoGcsService/CheckAlive",
    True: "/ray.rpc.RayletDriver/ClusterInfo",
}


class Address(NamedTuple):
    """Where a cluster is reached.

    Args:
        host, port: of its head.
        client: by Ray's client, from a machine that is no node of the cluster; else this machine is one.
    """

    host: str
    port: int
    client: bool

    def __str__(self) -> str:
        return f"{CLIENT * self.client}{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Read an address.

    Raises:
        ValueError: it is none, or names no machine.
    """
    found = re.fullmatch(r"(ray://)?([\w.-]+)(?::(\d{1,5}))?", text)
    if not found:
        raise ValueError(
            f"no address of a cluster: {text!r}; HOST:PORT where this machine is a node of it, else ray://HOST:PORT"
        )
    client = found[1] is not None
    return Address(ip_of(found[2]), int(found[3] or (CLIENT_PORT if client else GCS_PORT)), client)


def ip_of(host: str) -> str:
    """The IP address of a machine, which is what Ray goes by.

    Raises:
        ValueError: there is no such machine; or it is a loopback address by which Ray would listen on every one.
    """
    try:
        ip = socket.gethostbyname(host)
    except OSError as error:
        raise ValueError(f"no machine {host!r}: {error}") from error
    if ip.startswith("127.") and ip != LOOPBACK:
        raise ValueError(f"{host}: of the loopback addresses, take {LOOPBACK}")
    return ip


def set_environment(host: str) -> None:
    """Set what Ray reads when it is first imported, here and in all that this process starts.

    Args:
        host: the address that this machine has in the cluster, or the cluster's.
    """
    os.environ.update(ENVIRONMENT)
    if host == LOOPBACK:
        # Ray takes the address of a network card instead of the loopback one, except where it thinks that the platform
        # allows one machine only. With the loopback address itself it listens on no other.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def own_token() -> str:
    """The token that this machine has; `set_environment` comes before.

    Raises:
        ValueError: it has none.
    """
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    if not loader.has_token(ignore_auth_mode=True):
        raise ValueError(f"a cluster is entered by a token only, and this machine has none: {MEND}")
    return str(loader.get_raw_token(ignore_auth_mode=True))


def check(address: Address) -> None:
    """See that a cluster is there, takes our token, and no other; Ray says after half a minute that something is wrong.

    Raises:
        ValueError: one of these is not so.
    """
    token = own_token()
    if _admits(address, uuid.uuid4().hex):
        raise ValueError(
            f"the cluster at {address} takes any token, so that anybody who reaches it can run anything: start its "
            "nodes with `aisec node`"
        )
    if not _admits(address, token):
        raise ValueError(
            f"the cluster at {address} refuses the token of this machine: copy its ~/.ray/auth_token (or the file that "
            "RAY_AUTH_TOKEN_PATH names there) to this machine; RAY_AUTH_TOKEN, where it is set, comes first"
        )


def connect(address: Address) -> None:
    """Connect this process to a cluster.

    Raises:
        ValueError: it is not there, or refuses.
    """
    set_environment(address.host)
    check(address)
    import ray

    for left in reversed(range(TRIES if address.client else 1)):
        try:
            with warnings.catch_warnings(action="ignore"):
                ray.init(address=str(address), log_to_driver=False, configure_logging=False)
            return
        except (ConnectionError, RuntimeError) as error:
            disconnect()
            if not left:
                reason = " ".join(str(error).split())
                mend = "" if address.client else "; from a machine that is no node of it, say ray://HOST:PORT"
                raise ValueError(f"no connection to the cluster at {address}: {reason}{mend}") from error


def disconnect() -> None:
    """Leave the cluster."""
    import ray

    ray.shutdown()


def _admits(address: Address, token: str) -> bool:
    import grpc

    metadata = [("authorization", f"Bearer {token}")]
    with grpc.insecure_channel(f"{address.host}:{address.port}") as channel:
        try:
            channel.unary_unary(METHODS[address.client])(b"", metadata=metadata, timeout=SECONDS)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise ValueError(
                    f"no cluster answers at {address}: start one with `aisec node --head`, or open the way to it"
                ) from error
            return bool(error.code() is not grpc.StatusCode.UNAUTHENTICATED)
    return True
