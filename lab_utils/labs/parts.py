"""Programs that a lab's notebook writes piece by piece: its cells are the only place where their source stands.

A cell that begins with `%%part FILE PIECE` is a piece of FILE. A file's pieces follow each other as the notebook's cells do, in
whatever order they are run; and until its cell was run, a piece is what the notebook in the lab's folder has.

    lab.parts["rules.py"]                  the file as it is now
    lab.parts.runs_here.add("rules.py")    what is in its cells is run in the notebook as well, like any other cell
    lab.parts.answers["peers"] = function  what is recorded as the answer to a step when the piece of its name was run;
                                           without it, the answer is the file
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lab_utils.errors import BadInput
from lab_utils.labs.build import load_source
from lab_utils.labs.catalog import find_lab
from lab_utils.labs.release import solution

Pieces = dict[str, dict[str, str]]  # file → piece → text, both in the order of the cells


def pieces_of(notebook: Mapping[str, Any]) -> Pieces:
    pieces: Pieces = {}
    for cell in notebook["cells"]:
        first, _, text = "".join(cell["source"]).partition("\n")
        if cell["cell_type"] == "code" and first.startswith("%%part "):
            file, piece = named(first.removeprefix("%%part "))
            pieces.setdefault(file, {})[piece] = text
    return pieces


def named(line: str) -> tuple[str, str]:
    words = line.split()
    if len(words) != 2:
        raise BadInput(f"%%part {line.strip()}: it needs two words", "Write %%part FILE PIECE")
    return words[0], words[1]


def joined(pieces: Mapping[str, str]) -> str:
    return "\n\n\n".join(text.strip("\n") for text in pieces.values()) + "\n"


def files_of(notebook: Mapping[str, Any]) -> dict[str, str]:
    """File name → text."""
    return {file: joined(pieces) for file, pieces in pieces_of(notebook).items()}


@cache
def solved(lab: str) -> dict[str, str]:
    """The files of a lab as its solution has them."""
    return files_of(solution(load_source(find_lab(lab, sources=True))))


class Parts:
    """The files of one notebook as they are now."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self.runs_here: set[str] = set()
        self.answers: dict[str, Callable[[], Any]] = {}

    @classmethod
    def begun(cls, notebook: Path) -> Parts:
        """As the notebook has them before any of its cells was run. Learners write in it, so it may be gone, or no notebook any more."""
        try:
            return cls(pieces_of(json.loads(notebook.read_bytes())))
        except (OSError, ValueError, LookupError, TypeError, BadInput):
            return cls({})

    def __getitem__(self, file: str) -> str:
        if file not in self._pieces:
            raise BadInput(f"no cell of this notebook is a piece of {file}", f"There is: {', '.join(self._pieces) or 'none'}")
        return joined(self._pieces[file])

    def keep(self, file: str, piece: str, text: str, names: dict[str, Any]) -> str:
        """Put a piece in its place. `names` is where it is run, if it is. Returns what a learner is told."""
        code = compile(text, f"{file}, {piece}", "exec")  # a slip of the pen shows here, and not on a node
        new = piece not in self._pieces.get(file, {})
        self._pieces.setdefault(file, {})[piece] = text
        if file in self.runs_here:
            exec(code, names)
        return f"{file}: a new piece at its end, {piece}" if new else f"{file}: {piece} is as you wrote it"

    def answer(self, file: str, piece: str) -> Any:
        """What a learner hands in, now that this piece was run."""
        return self.answers[piece]() if piece in self.answers else self[file]
