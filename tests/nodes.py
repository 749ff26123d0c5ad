"""Two Ray nodes of this machine, each with a copy of a project of its own."""

import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psutil

from tests.clone import Project

HANGS = 600  # seconds after which something does
HOST = "127.0.0.1"


def start(project: Project, *command: str, **environment: str) -> "subprocess.Popen[str]":
    """Begin a command that nobody waits for."""
    return subprocess.Popen(
        command,
        cwd=project.root,
        env=project.environment | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(project: Project, *command: str, code: int = 0, **environment: str) -> str:
    """Run a command, see that it exits with `code`; stdout and stderr together."""
    process = start(project, *command, **environment)
    output, _ = process.communicate(timeout=HANGS)
    assert process.returncode == code, output[-4000:]
    return output


class Cluster:
    """A head, which has a copy of the project, and a second node with another."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.copies = {name: project.copy(folder / name) for name in ("head", "other")}
        self.trap = folder / "trap"
        self.trap.mkdir()
        self.temporary = tempfile.mkdtemp(prefix="ray")  # Ray's sockets have short names only
        token = secrets.token_hex()
        self.environment = {"RAY_AUTH_TOKEN": token, "RAY_TMPDIR": self.temporary, "TRAP": str(self.trap)}
        self.nodes: dict[str, subprocess.Popen[str]] = {}
        port, client_port = free_port(), free_port()
        self.address, self.client = f"{HOST}:{port}", f"ray://{HOST}:{client_port}"
        self.begin("head", "--head", f"--port={port}", f"--client-port={client_port}", CAUGHT="no")

    def begin(self, name: str, *how: str, **environment: str) -> None:
        words = ("aisec", "node", "--slots=1", "--store=100", *how)
        node = self.nodes[name] = start(self.copies[name], *words, **self.environment, **environment)
        assert node.stdout is not None
        first = node.stdout.readline()
        assert first.startswith(("cluster at", "node of")), first + node.stdout.read()

    def begin_other(self) -> None:
        """Have the second node run."""
        if "other" not in self.nodes:
            self.begin("other", f"--address={self.address}", CAUGHT="yes")

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of a node; first the one that starts Ray, which the command watches over."""
        return psutil.Process(self.nodes[name].pid).children(recursive=True)

    def ended(self, name: str) -> None:
        """A node is to end, with all that it has started."""
        processes = self.processes(name)
        node = self.nodes.pop(name)
        processes[0].kill()
        node.communicate(timeout=HANGS)
        _, alive = psutil.wait_procs(processes, timeout=30)
        assert not alive, f"outlive their node: {[process.name() for process in alive]}"

    def close(self) -> None:
        """All nodes are to end, the head last."""
        for name in [*self.nodes][::-1]:
            self.ended(name)
        shutil.rmtree(self.temporary)

    def ran(self, name: str) -> set[str]:
        """The stages that a node has run since it was last asked."""
        logs = self.copies[name].root / ".dvc" / "tmp" / "aisec" / "node" / "logs"
        names = {log.stem for log in logs.glob("*.log")} - {"server"}
        for log in logs.glob("*.log"):
            log.unlink()
        return names


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])
