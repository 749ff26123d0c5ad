"""A process that has imported everything once, and forks from itself the runners of stages and their kernels.

It is run by path, not as a module of this package: `aisec_lab` is imported after the fork, in whoever needs it, so each
stage sees the source as it lies there then. It has one thread and no event loop, which is why forking it is safe.

The coordinator speaks to it in lines of JSON over a socket:
    {"start": id, "commands": [["aisec", [word, …]] | ["exec", [word, …]], …], "env": {…}, "cwd": …, "log": …}
    {"stop": seconds}: interrupt what runs, kill it after that time
and hears `{"ready": true}` once, and `{"ended": id, "code": n, "seconds": s}`. Where the socket closes, all is killed.

Family: coordinator, server, a runner for each command, its kernel. A child is killed by Linux when its parent dies
(PR_SET_PDEATHSIG). What a runner has started itself is given to the server when the runner is gone
(PR_SET_CHILD_SUBREAPER), and the server kills it.
"""

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn

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
KERNEL = "aisec-lab"  # the only kernel whose imports are made here
HARMLESS = {"jemalloc_bg_thd"}  # a thread of pyarrow's allocator, which stops and restarts it around a fork
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
prctl = ctypes.CDLL(None, use_errno=True).prctl


def die_with_parent(parent: int) -> None:
    """Have Linux kill this process when its parent, the process `parent`, dies; at once where it has died already."""
    if prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Be given the processes that a descendant leaves behind, instead of init."""
    if prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


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
                if key.fileobj is not self.channel:
                    self.reap(key.data)
                elif not self.listen():
                    return self.stop(0)

    def listen(self) -> bool:
        """Do what is asked; False where nobody will ask any more."""
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
            die_with_parent(here)
            for fd, _ in self.running.values():
                os.close(fd)
            self.selector.close()
            self.channel.close()
            run(request)
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
        while strays := [pid for pid in children() if pid not in self.running]:
            for pid in strays:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def stop(self, grace: float) -> None:
        """Interrupt what runs, as Ctrl-C does, and kill it after `grace` seconds."""
        end = monotonic() + grace
        if grace:
            for pid in self.running:
                for each in [*reversed(descendants(pid)), pid]:
                    send(each, signal.SIGINT)
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


def children(pid: int | None = None) -> list[int]:
    """The processes whose parent a process is, this one by default."""
    import psutil

    return [child.pid for child in psutil.Process(pid).children()]


def descendants(pid: int) -> list[int]:
    """The children of a process, theirs, and so on; parents first."""
    try:
        return [one for child in children(pid) for one in (child, *descendants(child))]
    except Exception as error:  # psutil's, which is imported late: it ended meanwhile
        if type(error).__name__ == "NoSuchProcess":
            return []
        raise


def send(pid: int, signum: int) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def run(request: dict[str, Any]) -> NoReturn:
    """In the fork: be the runner of one command, and end with its exit code."""
    code = 1
    try:
        adopt_orphans()
        become(request["env"], request["cwd"])
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        kind, words = request["commands"][0]
        if kind == "exec":
            os.execvpe(words[0], words, os.environ)
        code = run_aisec(words)
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def run_aisec(words: Sequence[str]) -> int:
    """Run the command `aisec` in this process; its exit code. A notebook's kernel is forked before anything else."""
    kernel = fork_kernel() if words[0] == "run" else None
    from aisec_lab.workbench.command import main
    from aisec_lab.workbench.repro import provisioner

    provisioner.use(kernel)
    sys.argv = ["aisec", *words]
    try:
        main(prog_name="aisec")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    return 0


def fork_kernel() -> tuple[int, socket.socket]:
    """Fork the process that will be the kernel once it is told its connection file; its pid and the way to tell it."""
    here, there = socket.socketpair()
    runner = os.getpid()
    pid = os.fork()
    if pid:
        there.close()
        return pid, here
    try:
        die_with_parent(runner)
        here.close()
        with there.makefile() as lines:
            asked = lines.readline()
        there.close()
        if asked:
            be_kernel(**json.loads(asked))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def be_kernel(words: list[str], env: dict[str, str], cwd: str) -> None:
    """What `python -m ipykernel_launcher` does with these words, this environment and this working directory."""
    from ipykernel.kernelapp import IPKernelApp

    become(env, cwd)
    sys.argv = ["ipykernel_launcher", *words]
    app = IPKernelApp.instance(parent_handle=1)  # 1: it has a parent, and need not look whether that lives: Linux does
    app.initialize(words)
    if "matplotlib" in sys.modules:  # which reads this when it is imported, by the first cell of an ordinary kernel
        sys.modules["matplotlib"].rcParams["backend"] = os.environ["MPLBACKEND"]
    app.start()


def become(env: dict[str, str], cwd: str) -> None:
    """In a fork: be as a process that was started anew, in its own session, with nothing on stdin."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if "numpy" in sys.modules:  # else all forks draw the same where nobody seeds; `random` sees to it itself
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def leave(code: int) -> NoReturn:
    """End as an interpreter does, without taking its whole memory apart."""
    import atexit

    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


def warm() -> None:
    """Import what the forks will need, and hold that it may be forked."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    os.environ.pop("MPLBACKEND", None)  # a kernel's; no runner shall have it
    with suppress(NoSuchKernel):  # without it only commands that run no notebook can run here
        os.environ.update(KernelSpecManager().get_kernel_spec(KERNEL).env)  # libraries read OMP_NUM_THREADS on import
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
    adopt_orphans()
    warm()
    Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    os._exit(0)  # as `leave`, without what the forks have done
