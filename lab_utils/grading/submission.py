"""What a student handed in, read within limits: the code of each step, and nothing else.

The file is a stranger's. It is read as JSON and by hand rather than by nbformat, which upgrades, validates
and copies what it does not need. Metadata is looked at for two things only (which step a cell belongs to,
which lab the notebook says it is) and outputs for one: see `learner`.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab_utils.grading.limits import Limits

PIECES = 50  # cells of one step; a step is one cell, and two when somebody has split it
LEARNER = re.compile(r"[0-9a-f]{8,64}")


class Rejected(Exception):
    """This file is not a notebook of this lab that can be run. The text says why, for the student."""


@dataclass(frozen=True)
class Submission:
    """The student's cells by step, in document order; usually one per step."""

    steps: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)  # what a person may want to know: a cell that was ignored, an old format
    learner: str = ""  # the id from which the student's own parameters were drawn, when the notebook tells it


def read_file(path: Path, limit: int) -> bytes:
    """A plain file's bytes: no link, no device, no pipe, no more than the limit."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Rejected(
            "it is a link, and links are not followed" if path.is_symlink() else f"it cannot be read: {error.strerror}"
        ) from None
    kind = os.fstat(handle).st_mode
    if not stat.S_ISREG(kind):
        os.close(handle)
        raise Rejected("it is a folder, not a notebook" if stat.S_ISDIR(kind) else "it is not a plain file")
    with os.fdopen(handle, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Rejected(f"it is larger than {limit // 2**20} MiB. Clear the outputs (Edit, Clear Outputs of All Cells) and save it again")
    return data


def read_submission(data: bytes, lab: str, steps: Collection[str], stubs: dict[str, str], limits: Limits) -> Submission:
    """The student's cells, or `Rejected`. `stubs` is what each step's cell holds when nobody has touched it."""
    notes: list[str] = []
    notebook = parse(data)
    cells = find_cells(notebook, notes)
    metadata = notebook.get("metadata")
    named = metadata.get("lab") if isinstance(metadata, dict) else None
    said = named.get("name") if isinstance(named, dict) else None
    found: dict[str, list[str]] = {}
    learner = ""
    own = 0
    for cell in cells:
        learner = learner or told_learner(cell)
        step = step_of(cell, steps)
        if step is None:
            own += is_own(cell)
            continue
        source = code_of(cell)
        if source is None:
            notes.append(f"a cell of step {step!r} was ignored: it is not code, or its text is not text")
            continue
        if len(source) > limits.cell_chars:
            notes.append(f"a cell of step {step!r} was ignored: it is longer than {limits.cell_chars} characters")
            continue
        found.setdefault(step, []).append(source)
    if isinstance(said, str) and said != lab:
        raise Rejected(f"it is a notebook of lab {clean(said)}, not of {lab}")
    if not found:
        raise Rejected(f"it holds no cell of lab {lab}: none has the name of a step. Hand in the notebook that the lab came with")
    for step, pieces in found.items():
        found[step] = useful(step, pieces, stubs.get(step, ""), notes)
    for step in steps:
        if step not in found:
            notes.append(f"step {step!r} has no cell: it was deleted, or lost its name")
    if own:
        notes.append(f"{own} code cell{'s' * (own > 1)} that the lab did not come with: not run, only cells of steps are graded")
    notes = list(dict.fromkeys(notes))  # a hundred thousand cells of one kind are said once
    return Submission({step: found[step] for step in steps if step in found}, notes, learner)


def parse(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig")  # with or without the mark that some editors put in front
    except UnicodeDecodeError as error:
        raise Rejected(f"it is not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise Rejected("it is empty")
    try:
        notebook = json.loads(text)
    except RecursionError:
        raise Rejected("its JSON is nested far deeper than any notebook's") from None
    except (ValueError, MemoryError) as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise Rejected(f"it is not a whole notebook: its JSON ends or breaks{where}") from None
    if not isinstance(notebook, dict):
        raise Rejected("it is JSON, but not a notebook")
    return notebook


def find_cells(notebook: dict[str, Any], notes: list[str]) -> list[dict[str, Any]]:
    """The cells of nbformat 4, or of 3 (where they lie in worksheets and call their source `input`)."""
    version = notebook.get("nbformat", 4 if "cells" in notebook else None)
    if "nbformat" not in notebook and version == 4:
        notes.append("the notebook does not say its format; it was read as format 4")
    if isinstance(version, bool) or not isinstance(version, int):
        raise Rejected("it is JSON, but not a notebook: it does not say which format (nbformat) it has")
    if version == 4:
        cells = notebook.get("cells")
    elif version == 3:
        notes.append("the notebook was in the old format 3 and was converted")
        sheets = notebook.get("worksheets")
        sheets = [sheet for sheet in sheets if isinstance(sheet, dict)] if isinstance(sheets, list) else []
        lists = [sheet.get("cells") for sheet in sheets]
        cells = [cell for part in lists if isinstance(part, list) for cell in part]
    else:
        raise Rejected(f"it has the notebook format {version}; formats 3 and 4 can be read")
    if not isinstance(cells, list):
        raise Rejected("it has no list of cells")
    good = [cell for cell in cells if isinstance(cell, dict)]
    if len(good) < len(cells):
        notes.append(f"{len(cells) - len(good)} entries in the list of cells are not cells and were ignored")
    return good


def step_of(cell: dict[str, Any], steps: Collection[str]) -> str | None:
    """By the name in its metadata; else by its id, which is the step's name, for tools that drop metadata."""
    metadata = cell.get("metadata")
    said = metadata.get("step") if isinstance(metadata, dict) else None
    for name in (said, cell.get("id")):
        if isinstance(name, str) and name in steps:
            return name
    return None


def is_own(cell: dict[str, Any]) -> bool:
    """A code cell that a student has added. Those that the lab comes with are named by `labs/release.py`."""
    name = cell.get("id")
    return not (isinstance(name, str) and name.startswith(("given-", "check-", "progress"))) and bool((code_of(cell) or "").strip())


def code_of(cell: dict[str, Any]) -> str | None:
    if cell.get("cell_type") != "code":
        return None
    source = cell.get("source", cell.get("input"))
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        return None
    # Half characters cannot be sent to a kernel; NUL ends Python's own parser with an error of its own. Python reads Windows' ends
    # of lines as its own, a shell does not: to `%%bash` they would be part of each command.
    return source.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")


def useful(step: str, pieces: list[str], stub: str, notes: list[str]) -> list[str]:
    """Of several cells of one step, those that were worked on; they run in document order, as in the student's own notebook."""
    if len(pieces) == 1:
        return pieces
    touched = [piece for piece in pieces if piece.strip() and piece.strip() != stub.strip()]
    kept = (touched or pieces[:1])[:PIECES]
    notes.append(
        f"step {step!r} has {len(pieces)} cells; {'they were' if len(kept) == len(pieces) else f'{len(kept)} of them were'} run in order"
    )
    return kept


def told_learner(cell: dict[str, Any]) -> str:
    """The learner's id, which the cell that makes the lab shows beside its table, as display metadata.

    It only says from which seed this student's parameters were drawn, so that a port written as a number
    is the right one here too. Saying another one gives other numbers, not points.
    """
    outputs = cell.get("outputs")
    for output in outputs[:5] if isinstance(outputs, list) else []:
        metadata = output.get("metadata") if isinstance(output, dict) else None
        lab = metadata.get("lab") if isinstance(metadata, dict) else None
        said = lab.get("learner") if isinstance(lab, dict) else None
        if isinstance(said, str) and LEARNER.fullmatch(said):
            return said
    return ""


def clean(text: str, length: int = 80) -> str:
    """A stranger's word as it may stand in a message: one line, printable, not long."""
    line = "".join(char if char.isprintable() else "?" for char in text)
    return line if len(line) <= length else line[:length] + "…"
