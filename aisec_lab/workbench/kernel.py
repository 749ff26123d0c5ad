"""The engine that runs a notebook's cells: papermill's own, which at the end asks the kernel what it has imported."""

from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger
from papermill.utils import merge_kwargs, remove_args

from aisec_lab.workbench.imports import PACKAGE

ENGINE = "aisec"
ASKED = f"' '.join(name for name in __import__('sys').modules if name.partition('.')[0] == {PACKAGE!r})"


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """Runs the cells, and asks outside of them: no cell, output or number of the notebook shows it."""

    imported: list[str]

    def papermill_execute_cells(self) -> None:
        super().papermill_execute_cells()
        asked = self.kc.execute("", silent=True, store_history=False, user_expressions={"modules": ASKED})
        answer = self.wait_for_reply(asked)["content"]["user_expressions"]["modules"]
        if answer["status"] != "ok":
            raise RuntimeError(f"the kernel did not say what it imported: {answer['evalue']}")
        self.imported = answer["data"]["text/plain"].strip("'").split()


class AskingEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine with one more argument, `imported`: a set that gets the names of the package's modules that
    the kernel has imported when the last cell has run.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, imported: set[str], **kwargs: Any) -> None:
        """Run the cells, with what papermill's engine gives its client."""
        settings = merge_kwargs(
            remove_args(["input_path", "timeout", "startup_timeout", "start_timeout", "execution_timeout"], **kwargs),
            timeout=kwargs.get("execution_timeout") or kwargs.get("timeout"),
            startup_timeout=kwargs.get("start_timeout", 60),
            kernel_name=kernel_name,
            log=logger,
        )
        client = _Client(nb_man, **settings)
        client.execute()
        imported.update(client.imported)


papermill_engines.register(ENGINE, AskingEngine)
