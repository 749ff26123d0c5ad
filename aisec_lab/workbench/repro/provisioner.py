"""How a runner that was forked starts the kernel of its notebook: the one that was forked along with it."""

import asyncio
import json
import os
import signal
import socket
import sys
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from aisec_lab.workbench.repro.processes import KERNEL, exit_with_parent

LAUNCHER = "ipykernel_launcher"

_waiting: tuple[int, socket.socket] | None = None


def use(kernel: tuple[int, socket.socket] | None) -> None:
    """Have this process start its first kernel by a fork, and any other in the ordinary way.

    Args:
        kernel: the process that waits to become the kernel, and the socket on which it waits, or None.
    """
    global _waiting
    _waiting = kernel
    factory = KernelProvisionerFactory.instance()
    name, group = "aisec-forked", KernelProvisionerFactory.GROUP_NAME
    factory.provisioners[name] = EntryPoint(name, f"{__name__}:{ForkedProvisioner.__name__}", group)
    factory.default_provisioner_name = name


class ForkedProcess:
    """A forked child, with as much of `subprocess.Popen` as a provisioner asks for."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._look(os.WNOHANG)

    def wait(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._look(0)

    def send_signal(self, signum: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def _look(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ForkedProvisioner(LocalProvisioner):
    """Starts a kernel by a fork if it can; every kernel ends with this process."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel that a command line describes, and return how to connect to it."""
        global _waiting
        if _waiting is None or not self._forkable(cmd):
            return await super().launch_kernel(cmd, **kwargs, preexec_fn=partial(exit_with_parent, os.getpid()))
        (pid, channel), _waiting = _waiting, None
        env = kwargs["env"] | {"JPY_PARENT_PID": str(os.getpid())}
        words = cmd[cmd.index(LAUNCHER) + 1 :]
        asked = {"words": words, "env": env, "cwd": str(kwargs.get("cwd") or Path.cwd())}
        channel.sendall(json.dumps(asked).encode() + b"\n")
        channel.close()
        self.process = ForkedProcess(pid)  # type: ignore[assignment]  # all of Popen that is used
        self.pid, self.pgid = pid, None
        self.cwd = kwargs.get("cwd", Path.cwd())
        return self.connection_info

    async def wait(self) -> int | None:
        """Until the kernel has ended; its exit code. LocalProvisioner looks ten times a second, which is felt."""
        while self.process and self.process.poll() is None:
            await asyncio.sleep(0.005)
        return await super().wait()

    def _forkable(self, cmd: list[str]) -> bool:
        """The project's own kernel, of this interpreter's environment."""
        ours = getattr(self.parent, "kernel_name", None) == KERNEL and LAUNCHER in cmd
        return ours and Path(cmd[0]).parent == Path(sys.executable).parent
