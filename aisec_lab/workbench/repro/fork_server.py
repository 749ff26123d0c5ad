"""A process that has imported everything once, and forks from itself the runners of stages and their kernels.

It is run by path, not as a module of this package, nor does it import one: `aisec_lab` is imported after the fork, in
whoever needs it, so each stage sees the source as it lies there then. It has one thread and no event loop, which is why
forking it is safe.

The coordinator speaks to it in lines of JSON over a socket:
    {"start": id, "commands": [["aisec", [word, …]] | ["exec", [word, …]], …], "env": {…}, "cwd": …, "log": …}
    {"stop": seconds}: interrupt what runs, kill it after that time
and hears `{"ready": true}` once, and `{"ended": id, "code": n, "seconds": s}`. Where the socket closes, all is killed.

Family: coordinator, server, a runner for each command, its kernel. A child is killed by Linux when its parent dies
(PR_SET_PDEATHSIG). What a runner has started itself is given to the server when the runner is gone
(PR_SET_CHILD_SUBREAPER), and the server kills it.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aisec_lab.workbench.repro import forks, processes
else:
    sys.path.insert(0, str(Path(__file__).parent))  # by their paths too
    processes, forks = importlib.import_module("processes"), importlib.import_module("forks")
    del sys.path[0], sys.modules["forks"], sys.modules["processes"]  # a notebook may have modules of these names

# What notebooks, runners and `configure` import, in the order of their cost; AISEC_PRELOAD may name other modules. None
# of them may start a thread. UNWANTED look whether they are in a notebook when they are imported: they have to be
# imported again where they are used.
IMPORTS = (
    "torch",
    "scipy.stats",
    "pandas",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.ensemble",
    "matplotlib.pyplot",
    "pyarrow.parquet",
    "nbconvert",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.debugger",
    "dvc.repo",
    "papermill",
    "safetensors.torch",
    "hydra",
    "omegaconf",
    "jedi",
    "jinja2",
    "click",
    "tqdm",
)
UNWANTED = ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook", "matplotlib_inline.backend_inline")
HARMLESS = {"jemalloc_bg_thd"}  # a thread of pyarrow's allocator, which stops and restarts it around a fork


class Server:
    """The loop that starts what it is asked to start, and says what has ended."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.unread = b""
        self.running: dict[int, tuple[int, dict[str, Any]]] = {}  # runner to its pidfd and what is left to do
        self.selector = selectors.DefaultSelector()
        self.selector.register(channel, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until the other end of the socket is closed."""
        self.say({"ready": True})
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.channel:
                    if not self.listen():
                        return self.stop(0)
                elif key.data in self.running:  # else it was reaped when all were stopped
                    self.reap(key.data)

    def listen(self) -> bool:
        """Read requests and do them; False if the other end has closed the socket."""
        try:
            received = self.channel.recv(1 << 16)
        except ConnectionResetError:
            return False
        *lines, self.unread = (self.unread + received).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "stop" in request:
                self.stop(request["stop"])
            else:
                open(request["log"], "wb").close()
                self.start(request | {"began": monotonic()})
        return bool(received)

    def start(self, request: dict[str, Any]) -> None:
        """Fork a runner for the first of the commands that are left."""
        here = os.getpid()
        pid = os.fork()
        if pid == 0:
            processes.exit_with_parent(here)
            for fd, _ in self.running.values():
                os.close(fd)
            self.selector.close()
            self.channel.close()
            forks.run(request)
        fd = os.pidfd_open(pid)
        self.running[pid] = fd, request
        self.selector.register(fd, selectors.EVENT_READ, pid)

    def reap(self, pid: int) -> None:
        """A runner is over: see that nothing is left of it, then go on to its next command or say how it ended."""
        fd, request = self.running.pop(pid)
        self.selector.unregister(fd)
        os.close(fd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.sweep()
        if code == 0 and request["commands"][1:]:
            self.start(request | {"commands": request["commands"][1:]})
        else:
            self.say({"ended": request["start"], "code": code, "seconds": monotonic() - request["began"]})

    def say(self, message: dict[str, Any]) -> None:
        """Tell the coordinator; where it is gone, the loop will see so."""
        with suppress(BrokenPipeError):
            self.channel.sendall(json.dumps(message).encode() + b"\n")

    def sweep(self) -> None:
        """Kill what ended runners have left behind."""
        while strays := [pid for pid in processes.children() if pid not in self.running]:
            for pid in strays:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def stop(self, grace: float) -> None:
        """Interrupt what runs, as Ctrl-C does, and kill it after `grace` seconds."""
        end = monotonic() + grace
        if grace:
            for pid in self.running:
                processes.interrupt(pid)
        for _, request in self.running.values():
            request["commands"] = request["commands"][:1]
        while self.running:
            late = monotonic() >= end
            for pid, (fd, _) in list(self.running.items()):
                if late:
                    os.kill(pid, signal.SIGKILL)
                if late or select_one(fd, max(0.0, end - monotonic())):
                    self.reap(pid)


def select_one(fd: int, seconds: float) -> bool:
    """Whether a descriptor becomes readable within some time."""
    with selectors.DefaultSelector() as one:
        one.register(fd, selectors.EVENT_READ)
        return bool(one.select(seconds))


def warm() -> None:
    """Import what the forks will need, and hold that it may be forked."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    os.environ.pop("MPLBACKEND", None)  # for kernels only
    with suppress(NoSuchKernel):  # without it only commands that run no notebook can run here
        spec = KernelSpecManager().get_kernel_spec(processes.KERNEL)
        os.environ.update(spec.env)  # libraries read OMP_NUM_THREADS when they are imported
    for name in os.environ.get("AISEC_PRELOAD", " ".join(IMPORTS)).split():
        importlib.import_module(name)
    _warm_page()
    for name in UNWANTED:
        sys.modules.pop(name, None)
    others = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
    names = [Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in others]
    if not HARMLESS.issuperset(names):
        raise RuntimeError(f"threads {names}: a process with threads of its own cannot be forked safely")
    gc.collect()
    gc.freeze()  # what is shared stays shared: no collection in a fork touches it


def _warm_page() -> None:
    """Make a page once: what its libraries compile at their first use, expressions and schemas, is then there."""
    import nbformat
    from nbconvert import HTMLExporter

    cells = [nbformat.v4.new_markdown_cell("# $x$\n\n`y`"), nbformat.v4.new_code_cell("1")]
    notebook = nbformat.reads(nbformat.writes(nbformat.v4.new_notebook(cells=cells)), as_version=4)
    HTMLExporter(template_name="basic").from_notebook_node(notebook)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's
    processes.adopt_orphans()
    warm()
    Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    os._exit(0)  # as `leave`, without what the forks have done
