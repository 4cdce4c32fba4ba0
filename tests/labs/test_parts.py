"""Programs written in pieces: the file is in the order of the notebook, whoever runs its cells in whatever order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab_utils.errors import BadInput
from lab_utils.labs.parts import Parts, files_of, pieces_of


def notebook(*sources: str) -> dict[str, Any]:
    prose = {"cell_type": "markdown", "source": ["%%part in.py prose\n", "is no piece"]}
    return {"cells": [prose, *({"cell_type": "code", "source": text.splitlines(keepends=True)} for text in sources)]}


TWO_FILES = notebook(
    "%%part a.py first\n\nx = 1\n\n", "print('an ordinary cell')", "%%part b.py only\ny = 2", "%%part a.py second\nz = x\n"
)


def test_a_files_pieces_follow_each_other_as_the_cells_do() -> None:
    assert files_of(TWO_FILES) == {"a.py": "x = 1\n\n\nz = x\n", "b.py": "y = 2\n"}


def test_a_piece_that_was_run_takes_its_own_place() -> None:
    parts = Parts(pieces_of(TWO_FILES))
    parts.keep("a.py", "second", "z = 'mine'\n", {})
    parts.keep("a.py", "first", "x = 'mine'\n", {})
    assert parts["a.py"] == "x = 'mine'\n\n\nz = 'mine'\n"
    assert parts["b.py"] == "y = 2\n", "its cell was not run yet: it is as the notebook has it"


def test_a_piece_of_a_learners_own_comes_last() -> None:
    parts = Parts(pieces_of(TWO_FILES))
    assert "new piece" in parts.keep("a.py", "helper", "def h(): ...", {})
    assert parts["a.py"].endswith("z = x\n\n\ndef h(): ...\n")


def test_only_files_that_are_named_are_run_here() -> None:
    parts, names = Parts(pieces_of(TWO_FILES)), dict[str, Any]()
    parts.runs_here.add("a.py")
    parts.keep("b.py", "only", "y = 3", names)
    parts.keep("a.py", "first", "x = 3", names)
    assert (names["x"], "y" in names) == (3, False)


def test_text_that_is_no_python_is_refused_and_not_kept() -> None:
    parts = Parts(pieces_of(TWO_FILES))
    with pytest.raises(SyntaxError) as refused:
        parts.keep("a.py", "first", "x = (", {})
    assert refused.value.filename == "a.py, first"
    assert parts["a.py"].startswith("x = 1")


def test_the_answer_is_the_file_or_what_the_lab_says() -> None:
    parts = Parts(pieces_of(TWO_FILES))
    parts.answers["second"] = lambda: 42
    assert parts.answer("a.py", "first") == parts["a.py"]
    assert parts.answer("a.py", "second") == 42


@pytest.mark.parametrize("first", ["%%part a.py\nx", "%%part a.py one two\nx"])
def test_a_part_has_a_file_and_a_name(first: str) -> None:
    with pytest.raises(BadInput, match="needs two words"):
        pieces_of(notebook(first))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [{}]}', "half a {", json.dumps(notebook("%%part a.py\n"))])
def test_a_notebook_that_cannot_be_read_has_no_pieces(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lab.ipynb"
    path.write_text(text)
    parts = Parts.begun(path)
    with pytest.raises(BadInput, match="no cell of this notebook"):
        parts["a.py"]
    parts.keep("a.py", "first", "x = 1", {})
    assert parts["a.py"] == "x = 1\n"
