"""Ray's processes on a node: started by this process, for holders of the token only, and ended with it."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from aisec_lab.workbench.repro.connection import check, ip_of, own_token, parse, set_environment
from aisec_lab.workbench.repro.members import PROJECT, SLOTS
from aisec_lab.workbench.repro.processes import PR_SET_PDEATHSIG, adopt_orphans, prctl

CLIENT_HOST = "127.0.0.1"  # where Ray's client is let in: from other machines by ssh
ENDS = (signal.SIGINT, signal.SIGTERM)
LOOK = 1.0  # seconds between two looks whether Ray's processes live


class NodeSettings(NamedTuple):
    """What a node is to be.

    Args:
        project: the root of its copy of the project.
        host: the address at which other nodes reach it; where it is 127.0.0.1, Ray listens on no other.
        address: of the head that it joins, such as `10.0.0.1:6379`; None: it is the head.
        port, client_port: on which a head listens, for nodes and for Ray's client.
        slots: stages that it runs at once.
        store: megabytes of memory for Ray's object store; None: as Ray chooses.
    """

    project: Path
    host: str
    address: str | None
    port: int
    client_port: int
    slots: int
    store: int | None


def serve(settings: NodeSettings) -> int:
    """Be a node until SIGTERM, Ctrl-C, or the death of one of Ray's processes; the exit code.

    Whatever was started ends with this process, also where that one is killed: it watches over a fork that starts Ray,
    and the fork over it. Else some of Ray's processes would live on for minutes.

    Raises:
        ValueError: no token; the head is not there or refuses it; this copy of the project is a node already.
    """
    adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    parent = os.getpid()
    child = os.fork()  # before Ray and gRPC, which have threads
    if child == 0:
        _begin(settings, parent)
        return 0
    for signum in ENDS:
        signal.signal(signum, lambda *_: os.kill(child, signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _end_family()
    return code


def _begin(settings: NodeSettings, parent: int) -> None:
    """In the fork: be the node, until the parent is gone or asks for the end."""
    from filelock import FileLock, Timeout

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return
    adopt_orphans()
    settings = settings._replace(host=ip_of(settings.host))
    set_environment(settings.host)
    own_token()
    if settings.address:
        head = parse(settings.address)
        check(head)
        settings = settings._replace(address=str(head))
    place = settings.project / ".dvc" / "tmp" / "aisec"
    place.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place / "node.lock", timeout=0):
            _run(settings)
    except Timeout as error:
        raise ValueError(f"{settings.project} is a node already: make another clone for a second one") from error
    except KeyboardInterrupt:
        pass
    finally:
        _end_family()


def _run(settings: NodeSettings) -> None:
    os.environ[PROJECT] = str(settings.project)
    node = _start(settings)
    try:
        print(_welcome(settings, node.address), flush=True)
        while not (dead := node.dead_processes()):
            _reap({one.process.pid for each in node.all_processes.values() for one in each})
            time.sleep(LOOK)
        sys.exit(f"aisec: {dead[0][0]} of Ray has ended: see {node.get_logs_dir_path()}")
    finally:
        node.kill_all_processes(check_alive=False, allow_graceful=True)


def _reap(own: set[int]) -> None:
    """Let go of the orphans that have come to this process and have ended; for its own children others wait."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.pid not in own and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, 0)


def _end_family() -> None:
    """Kill what this process has started, and what that has started; orphans come back to it."""
    while family := psutil.Process().children(recursive=True):
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family)


def _start(settings: NodeSettings) -> Any:
    """What `ray start --block` does; that command cannot keep Ray on 127.0.0.1."""
    from ray._private import services
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    ray_params: Any = RayParams  # whose hints are wrong
    start_client: Any = services.start_ray_client_server
    params = ray_params(
        gcs_address=settings.address,
        gcs_server_port=None if settings.address else settings.port,
        node_ip_address=settings.host,
        num_cpus=settings.slots,
        resources={SLOTS: settings.slots} if settings.slots else {},
        object_store_memory=settings.store and settings.store << 20,
        include_dashboard=False,
        dashboard_agent_listen_port=0,
        include_log_monitor=False,
        no_monitor=True,  # it would start and end nodes
    )
    node = Node(params, head=not settings.address, shutdown_at_exit=False, spawn_reaper=True)
    if not settings.address:
        stdout, stderr = node.get_log_file_handles("ray_client_server", unique=True)
        client = start_client(
            node.address,
            CLIENT_HOST,
            settings.client_port,
            stdout_file=stdout,
            stderr_file=stderr,
            fate_share=node.kernel_fate_share,
            runtime_env_agent_address=node.runtime_env_agent_address,
            node_id=node.node_id,
        )
        node.all_processes["ray_client_server"] = [client]
    return node


def _welcome(settings: NodeSettings, address: str) -> str:
    if settings.address:
        return f"node of {address} with {settings.slots} slots; Ctrl-C ends it"
    return (
        f"cluster at {address}, this node with {settings.slots} slots; Ctrl-C ends it\n"
        f"other nodes:         aisec node --address {address} --host THEIR_ADDRESS\n"
        f"from a node:         aisec repro --cluster {address}\n"
        f"from other machines: ssh -NL {settings.client_port}:{CLIENT_HOST}:{settings.client_port} HEAD, then "
        f"aisec repro --cluster ray://{CLIENT_HOST}:{settings.client_port}"
    )
