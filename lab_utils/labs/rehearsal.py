"""Run a lab's notebook cell by cell and check each step as the grader would, without a sandbox.

For the lab's own tests, which trust what they run. Students' notebooks go through `lab_utils.grading`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from lab_utils.checks import run_checks
from lab_utils.cluster import Cluster
from lab_utils.errors import LabError
from lab_utils.faults import inject
from lab_utils.labs.catalog import LabFiles, root
from lab_utils.labs.context import CheckContext
from lab_utils.labs.lifecycle import clean, leftovers, prepare
from lab_utils.labs.outcome import CheckResult
from lab_utils.labs.release import Notebook
from lab_utils.labs.store import Store


@dataclass
class Rehearsal:
    results: list[CheckResult]
    errors: dict[str, str] = field(default_factory=dict)  # step, or cell id → what its cell raised
    left: list[str] = field(default_factory=list)  # what was still on the cluster after cleaning up

    @property
    def score(self) -> float:
        return sum(result.earned for result in self.results if result.counts)

    @property
    def points(self) -> float:
        return sum(result.points for result in self.results if result.counts)

    def story(self) -> str:
        lines = [
            f"{each.step}: {each.status} {each.earned:g}/{each.points:g} {each.message} expected {each.expected!r} seen {each.seen!r}"
            for each in self.results
        ]
        return "\n".join([*lines, *(f"{cell} raised {said}" for cell, said in self.errors.items())])


def rehearse(files: LabFiles, notebook: Notebook, cluster: Cluster, *, learner: str = "rehearsal", cell_timeout: float = 300) -> Rehearsal:
    """From nothing to nothing: clean, prepare, run and check every step, clean again."""
    with tempfile.TemporaryDirectory(prefix="lab-rehearsal-") as folder:
        store = Store(files.name, Path(folder) / "store", answers=Path(folder) / "kernel" / "answers.json")
        context = CheckContext(files.spec, files.checks, cluster, learner, store)
        record = Path(folder) / "cluster.json"
        record.write_text(json.dumps(asdict(cluster.record)))
        env = {
            "LAB_ROOT": str(root()),
            "LAB_ANSWERS": str(store.answers_file),
            "LAB_CLUSTER_FILE": str(record),
            "LAB_LEARNER": learner,
        }
        clean(context)
        try:
            prepare(context)
            rehearsal = _run(context, notebook, env, cell_timeout)
        finally:
            clean(context)
        rehearsal.left = leftovers(context)
        return rehearsal


def _run(context: CheckContext, notebook: Notebook, env: dict[str, str], cell_timeout: float) -> Rehearsal:
    node = nbformat.reads(json.dumps(notebook), 4)  # type: ignore[no-untyped-call]
    client = NotebookClient(node, timeout=int(cell_timeout), allow_errors=True, kernel_name="python3")
    results, errors = [], {}
    with _kernel(client, env):
        for index, cell in enumerate(node.cells):
            if cell.cell_type != "code" or "check" in cell.metadata.get("tags", []):
                continue
            for fault in cell.metadata.get("inject", []):
                try:
                    inject(context, fault["fault"], **fault["options"])
                except LabError as error:
                    if not context.spec.needs.bare:  # there, a notebook may not have made anything that could be broken
                        raise
                    errors[cell.id] = str(error)
            try:
                client.execute_cell(cell, index)
            except (CellTimeoutError, DeadKernelError) as error:
                errors[cell.id] = type(error).__name__
                break
            if raised := [f"{output.ename}: {output.evalue}" for output in cell.outputs if output.output_type == "error"]:
                errors[cell.id] = raised[0]
            if step := cell.metadata.get("step"):
                results += run_checks(context.checkset, context, only=step)
    return Rehearsal(results, errors)


@contextmanager
def _kernel(client: Any, env: dict[str, str]) -> Iterator[None]:
    with client.setup_kernel(env={**os.environ, **env}):
        yield
