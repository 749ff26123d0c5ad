"""One executor for several threads."""

import queue
import signal
import threading

from aisec_lab.workbench.repro.executor import Executor, Task

TICK = 0.05  # seconds until a task begins that comes while others run


class SharedExecutor:
    """Lets each of several threads run a task and wait for it, on an executor that is used from one thread only.

    Args:
        executor: runs the tasks; used by this object alone.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.asked: queue.SimpleQueue[Task | None] = queue.SimpleQueue()  # None: stop
        self.answers: dict[str, queue.SimpleQueue[int | BaseException]] = {}  # by addressing
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def run(self, task: Task) -> int:
        """Run a task, of which none of the same name runs; its exit code. Callers see to it that at most `slots` run.

        Raises:
            BaseException: what the executor raised; it is stopped then.
        """
        answer = self.answers[task.addressing] = queue.SimpleQueue()
        self.asked.put(task)
        if not self.thread.is_alive():
            raise RuntimeError(f"{task.addressing}: the executor is stopped")
        code = answer.get()
        if isinstance(code, BaseException):
            raise code
        return code

    def stop(self) -> None:
        """End all that runs; each task then ends as if it had been killed. May be called twice."""
        self.asked.put(None)
        self.thread.join()

    def _serve(self) -> None:
        answer: int | BaseException = -signal.SIGKILL
        running: set[str] = set()
        try:
            while True:
                try:
                    task = self.asked.get_nowait() if running else self.asked.get()
                except queue.Empty:
                    for ended in self.executor.wait(TICK):
                        running.remove(ended.addressing)
                        self.answers.pop(ended.addressing).put(ended.code)
                    continue
                if task is None:
                    return
                running.add(task.addressing)
                self.executor.start(task)
        except BaseException as error:  # raised again in the threads that wait
            answer = error
        finally:
            self.executor.stop()
            for each in list(self.answers.values()):
                each.put(answer)
