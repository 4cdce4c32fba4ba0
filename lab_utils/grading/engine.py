"""The course's papermill engine: papermill walks the notebook, each cell is run by a kernel in the sandbox.

It is registered under the name "lab". papermill gives the frame that instructors know; what it must not
decide is whether a cell was executed: it reports `completed` for cells that a dead kernel never ran. So the
runner is asked for each cell, and is the only one that is believed.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import nbformat
import papermill
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from lab_utils.grading.kernel import Outcome

NAME = "lab"


class Runner(Protocol):
    def run_cell(self, index: int, source: str) -> Outcome:
        """Run one cell within its limits."""

    def after_cell(self, index: int, outcome: Outcome) -> None:
        """The cell has ended, somehow: time for the checks of its step."""


class LabEngine(Engine):  # type: ignore[misc]
    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, *, runner: Runner, **_: Any) -> None:
        for index, cell in enumerate(nb_man.nb.cells):
            nb_man.cell_start(cell, index)
            outcome = runner.run_cell(index, cell.source)
            if outcome.end != "ok":
                nb_man.cell_exception(cell, index)
            nb_man.cell_complete(cell, index)
            runner.after_cell(index, outcome)


papermill_engines.register(NAME, LabEngine)


def execute(notebook: nbformat.NotebookNode, runner: Runner) -> None:
    """Run every cell of a notebook object. Nothing is written: papermill's save after each cell is quadratic."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    try:
        papermill.execute_notebook(
            notebook, None, engine_name=NAME, kernel_name="python3", progress_bar=False, request_save_on_cell_execute=False, runner=runner
        )
    except PapermillExecutionError:
        pass  # some cell failed, which papermill tells at the very end; the runner was told when it happened
