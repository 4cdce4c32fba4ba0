"""From cells to notebooks: what a learner opens, what an instructor reads, what a wrong answer hands in (pure).

The same source gives the same bytes: cell ids come from steps and from content, nothing from clocks or chance.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lab_utils.checks import CheckSet
from lab_utils.errors import BadInput
from lab_utils.labs.source import Cell, LabSource, Wrong
from lab_utils.labs.spec import LabSpec

KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
}
Notebook = dict[str, Any]


def joined(source: LabSource, checkset: CheckSet) -> LabSpec:
    """The lab as its source and its checks agree on it, or `BadInput` saying where they do not."""
    steps = {step.name: step for step in source.spec.steps}
    file = checkset.path.name
    if lacking := [name for name in steps if name not in checkset.checks]:
        raise BadInput(
            f"{source.where}: the step {lacking[0]!r} has no check",
            f'Write @check("{lacking[0]}", points={steps[lacking[0]].points}) in {file}',
        )
    if extra := [name for name in checkset.checks if name not in steps]:
        raise BadInput(f"{checkset.path}: the check {extra[0]!r} has no step in {source.where}")
    for name, check in checkset.checks.items():
        if check.points != steps[name].points:
            raise BadInput(f"{source.where}: step {name!r} gives {steps[name].points} points, but its check in {file} gives {check.points}")
    if list(checkset.checks) != list(steps):
        raise BadInput(f"{checkset.path}: the checks come in another order than the steps", f"The steps are: {', '.join(steps)}")
    return replace(source.spec, steps=tuple(replace(step, after=checkset.checks[step.name].after) for step in steps.values()))


def released(source: LabSource) -> Notebook:
    """The learner's notebook: tasks with stubs, a check after each, no solutions, no hints, no outputs."""
    return _notebook(source, lambda cell: cell.stub, instructor=False)


def solution(source: LabSource) -> Notebook:
    """The instructor's notebook: tasks solved, hints shown, the cells for instructors kept."""
    return _notebook(source, lambda cell: cell.solved, instructor=True)


def handed_in(source: LabSource, wrong: Wrong) -> Notebook:
    """The notebook of somebody who answered as `wrong` says and did the rest right (or not at all)."""
    if unknown := set(wrong.cells) - {step.name for step in source.spec.steps}:
        raise BadInput(f"{wrong.where}: there is no step {', '.join(sorted(unknown))} in {source.spec.name}")

    def answer(cell: Cell) -> str:
        assert cell.step
        return wrong.cells.get(cell.step.name, cell.stub if wrong.base == "untouched" else cell.solved)

    return _notebook(source, answer, instructor=False)


def _notebook(source: LabSource, task: Callable[[Cell], str], *, instructor: bool) -> Notebook:
    cells: list[dict[str, Any]] = []
    seen: Counter[str] = Counter()

    def add(kind: str, text: str, metadata: Mapping[str, Any], id: str = "") -> None:
        if not id:
            digest = hashlib.sha256(f"{kind}\0{text}\0{seen[kind + text]}".encode()).hexdigest()[:12]
            seen[kind + text] += 1
            id = f"{'text' if kind == 'markdown' else 'given'}-{digest}"
        outputs: dict[str, Any] = {"execution_count": None, "outputs": []} if kind == "code" else {}
        cells.append({"cell_type": kind, "id": id, "metadata": dict(metadata), "source": text.splitlines(keepends=True), **outputs})

    fixed = {"deletable": False, "editable": False}
    for cell in source.cells:
        kind = "code" if cell.code else "markdown"
        tags = {"tags": list(cell.tags)} if cell.tags else {}
        if cell.kind == "solution":
            if instructor:
                add(kind, cell.source, tags)
        elif cell.step:
            if instructor:
                hints = "\n".join(f"{n}. {hint}" for n, hint in enumerate(cell.step.hints, 1))
                add("markdown", f"**Hints for `{cell.step.name}`**\n\n{hints}", {"tags": ["solution"]})
            name = cell.step.name
            add("code", task(cell), {"tags": ["task"], "step": name, "points": cell.step.points, "deletable": False}, id=name)
            points = "1 point" if cell.step.points == 1 else f"{cell.step.points} points"
            add("code", f'lab.check("{name}")  # {points}', {"tags": ["check"], **fixed}, id=f"check-{name}")
        else:
            inject = {"inject": [dict(fault) for fault in cell.inject]} if cell.inject else {}
            add(kind, cell.source, {**tags, **inject, **fixed})
    add("code", "lab.progress()", {"tags": ["check"], **fixed}, id="progress")
    return {"cells": cells, "metadata": {**KERNEL, "lab": {"name": source.spec.name}}, "nbformat": 4, "nbformat_minor": 5}


def notebook_text(notebook: Notebook) -> str:
    """The bytes of an .ipynb file, as nbformat writes them."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
