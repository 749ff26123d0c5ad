"""What a fork of the warm process does: be the runner of a command, or the kernel of a notebook.

The warm process loads this file by its path, not as a module of the package: `aisec_lab` is imported after the fork, by
the runner or the notebook that needs it. Nothing in the package may import this file: it runs the command `aisec`,
which imports the executors.
"""

import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from aisec_lab.workbench.repro.processes import adopt_orphans, exit_with_parent
else:
    from processes import adopt_orphans, exit_with_parent  # by its path too: `fork_server` lends its folder


def run(request: dict[str, Any]) -> NoReturn:
    """In the fork: be the runner of one command, and end with its exit code."""
    code = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        adopt_orphans()
        become(request["env"], request["cwd"])
        kind, words = request["commands"][0]
        if kind == "exec":
            for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
                signal.signal(signum, signal.SIG_DFL)
            os.execvpe(words[0], words, os.environ)
        code = run_aisec(words)
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def run_aisec(words: Sequence[str]) -> int:
    """Run the command `aisec` in this process; its exit code. A notebook's kernel is forked before anything else."""
    kernel = fork_kernel() if words[0] == "run" else None
    # Not at the top: the warm process must not hold the package, whose source may change before the next fork.
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
    """Fork the process that becomes the kernel when it receives its connection file; its pid and that socket."""
    here, there = socket.socketpair()
    runner = os.getpid()
    pid = os.fork()
    if pid:
        there.close()
        return pid, here
    try:
        exit_with_parent(runner)
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
    if "pandas" in sys.modules:  # which, imported in a kernel, shows 20 columns, and in a terminal as many as fit
        sys.modules["pandas"].set_option("display.max_columns", 20)
    app.start()


def become(env: dict[str, str], cwd: str) -> None:
    """In a fork: be as a process that was started anew, in its own session, with nothing on stdin."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if "numpy" in sys.modules:  # else all forks draw the same numbers without a seed; `random` reseeds itself
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
