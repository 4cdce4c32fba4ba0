"""The student's cells, put into the trusted notebook (pure).

What runs is the course's own notebook: its text, its given cells, its order. Of the submission only the code
of task cells is taken; nothing of its metadata, its outputs or its other cells survives. So there is no tag,
no parameter and no edited given cell that could change how a notebook is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import nbformat

from lab_utils.errors import BadInput
from lab_utils.grading.submission import Submission
from lab_utils.labs.spec import LabSpec


@dataclass(frozen=True)
class Trusted:
    """The released notebook as the course made it."""

    notebook: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Trusted:
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise BadInput(f"{path} cannot be read ({error})", "Build it with `lab build`") from None

    @property
    def stubs(self) -> dict[str, str]:
        return {cell["metadata"]["step"]: text_of(cell) for cell in self.notebook["cells"] if is_task(cell)}


@dataclass(frozen=True)
class Planned:
    """One cell to run. `last` says that the step is complete after it, so that it can be checked."""

    source: str
    step: str = ""
    last: bool = False
    inject: list[dict[str, Any]] = field(default_factory=list)


def plan(trusted: Trusted, submission: Submission, spec: LabSpec) -> list[Planned]:
    """What is run, in the trusted notebook's order. Cells that check are left out: the grader checks."""
    planned: list[Planned] = []
    for cell in trusted.notebook["cells"]:
        if cell["cell_type"] != "code" or "check" in cell["metadata"].get("tags", []):
            continue
        if not is_task(cell):
            planned.append(Planned(text_of(cell), inject=list(cell["metadata"].get("inject", []))))
            continue
        step = spec.step(cell["metadata"]["step"]).name
        pieces = submission.steps.get(step, [])
        planned += [Planned(piece, step, last=number == len(pieces)) for number, piece in enumerate(pieces, 1)]
    return planned


def as_notebook(planned: list[Planned]) -> nbformat.NotebookNode:
    """A notebook for papermill, with our own metadata and no other."""
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "source": one.source, "execution_count": None, "outputs": []}
        for number, one in enumerate(planned)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}
    return cast(nbformat.NotebookNode, nbformat.from_dict(notebook))  # type: ignore[no-untyped-call]


def is_task(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code" and "step" in cell["metadata"]


def text_of(cell: Mapping[str, Any]) -> str:
    source = cell["source"]
    return "".join(source) if isinstance(source, list) else str(source)
