"""lab.md, the one place where a lab is written, read into cells (pure: text in, values out).

    prose     a Markdown cell; `+++` on a line of its own begins the next one
    given     a code cell that everybody runs as it is
    task      a code cell with `step`, `points`, `hints` and the tag `task`; its solution lies between
              `### BEGIN SOLUTION` and `### END SOLUTION`
    solution  a cell with the tag `solution`: for instructors, never released

What follows BEGIN SOLUTION on its line is what the learner finds in the region's place.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from lab_utils.errors import BadInput
from lab_utils.labs.spec import LabSpec, Step, spec_from_front_matter, validate

Kind = Literal["prose", "given", "task", "solution"]
BEGIN = re.compile(r"^(\s*)### BEGIN SOLUTION(?::?\s+(\S.*?))?\s*$")
END = re.compile(r"^\s*### END SOLUTION\s*$")
MARKER = re.compile(r"\b(begin|end)[ _-]*solution", re.IGNORECASE)
FENCE = re.compile(r"^(`{3,}|~{3,})\{code-cell\}")


@dataclass(frozen=True)
class Cell:
    kind: Kind
    code: bool
    source: str  # with the solution and its markers
    line: int  # in lab.md; 0 for prose
    tags: tuple[str, ...] = ()
    step: Step | None = None
    inject: tuple[dict[str, Any], ...] = ()  # the faults that this cell asks for

    @property
    def stub(self) -> str:
        """What a learner finds."""
        return "\n".join(_lines(self.source, solved=False, where=f"line {self.line}"))

    @property
    def solved(self) -> str:
        """What a right answer looks like, without the markers."""
        return "\n".join(_lines(self.source, solved=True, where=f"line {self.line}"))


@dataclass(frozen=True)
class LabSource:
    spec: LabSpec
    cells: tuple[Cell, ...]
    where: str

    @property
    def tasks(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "task"]


@dataclass(frozen=True)
class Wrong:
    """A plausible wrong answer (or a right one in an unusual way): the cells that differ, and what it must score."""

    title: str
    score: float
    base: str
    cells: dict[str, str]
    steps: dict[str, float] = field(default_factory=dict)
    where: str = ""


def read_source(text: str, name: str, where: str) -> LabSource:
    """A lab from the text of its lab.md, or `BadInput` naming the place and what is allowed there."""
    front, notebook = _read(text, where)
    places = [number for number, line in enumerate(text.splitlines(), 1) if FENCE.match(line)]
    cells = []
    for raw in notebook["cells"]:
        line = places.pop(0) if raw["cell_type"] == "code" and places else 0
        cells.append(_cell(raw, line, f"{where}, line {line}" if line else where))
    steps = [cell.step for cell in cells if cell.step]
    if twice := {step.name for step in steps if [other.name for other in steps].count(step.name) > 1}:
        raise BadInput(
            f"{where}: several cells are the step {', '.join(sorted(twice))}", "A step is one cell; give the others names of their own"
        )
    if not steps:
        raise BadInput(f"{where} has no task cell", "A task cell has `tags: [task]` and a `step`")
    if not any(cell.code and cell.kind == "given" and f'Lab("{name}")' in cell.source for cell in cells):
        raise BadInput(f'{where} never says lab = Lab("{name}")', "Put it into the first code cell")
    return LabSource(spec_from_front_matter(name, front.get("lab"), steps, where), tuple(cells), where)


def read_wrong(text: str, where: str) -> Wrong:
    """One file of solutions/NN-topic/wrong/."""
    front, notebook = _read(text, where)
    wrong: dict[str, Any] = front.get("wrong") or {}
    validate(wrong, "wrong", f"{where}, front matter `wrong`")
    cells = {}
    for raw in notebook["cells"]:
        if raw["cell_type"] == "code":
            step = raw["metadata"].get("step")
            if not isinstance(step, str):
                raise BadInput(f"{where}: a code cell has no step", "Each code cell says `step: NAME`: it takes the place of that task")
            if step in cells:
                raise BadInput(f"{where}: two code cells are the step {step!r}", "One takes the place of that task")
            cells[step] = raw["source"]
    return Wrong(wrong["title"], wrong["score"], wrong.get("base", "solution"), cells, dict(wrong.get("steps", {})), where)


def _read(text: str, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import jupytext  # half a second that only authors wait for
    import nbformat
    from jupytext.myst import MystMetadataParsingError

    match = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    if not match:
        raise BadInput(f"{where} has no front matter", "Its first line is ---, then YAML, then ---")
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 2}" if mark else ""
        raise BadInput(f"{where}{line}: the front matter is not YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(front, dict):
        raise BadInput(f"{where}: the front matter is not a mapping")
    try:
        json.dumps(front, default=str, skipkeys=True)
    except (ValueError, RecursionError):
        raise BadInput(f"{where}: the front matter holds itself, by an alias (*)") from None
    try:
        return front, jupytext.reads(text, fmt="md:myst")
    except (MystMetadataParsingError, yaml.YAMLError, ValueError, nbformat.ValidationError) as error:
        raise BadInput(
            f"{where}: the metadata of a cell cannot be read ({' '.join(str(getattr(error, 'message', error)).split())})"
        ) from None


def _cell(raw: dict[str, Any], line: int, where: str) -> Cell:
    code, source, metadata = raw["cell_type"] == "code", raw["source"], raw["metadata"]
    tags = tuple(metadata.get("tags", ()))
    if "solution" in tags:
        return Cell("solution", code, source, line, tags)
    if meant := [tag for tag in tags if "solution" in tag.lower()]:
        raise BadInput(f"{where}: the tag {meant[0]!r} does not keep a cell from learners", "Write `tags: [solution]`")
    if "step" in metadata or "task" in tags:
        if not code:
            raise BadInput(f"{where}: a Markdown cell is marked as a task", "Answers are given in code cells, with lab.answer(step, value)")
        return _task(source, metadata, line, where)
    if MARKER.search(source):
        raise BadInput(f"{where}: a solution outside of a task cell would be released", "Mark the cell with `tags: [task]` and a `step`")
    if unknown := set(metadata) - {"tags"}:
        raise BadInput(
            f"{where}: a given cell has {', '.join(sorted(unknown))}", "It may have tags only; a task has `tags: [task]` and a `step`"
        )
    return Cell("given" if code else "prose", code, source, line, tags, inject=tuple(faults_in(source, where)) if code else ())


def _task(source: str, metadata: dict[str, Any], line: int, where: str) -> Cell:
    validate(metadata, "step", f"{where}, task cell")
    name = metadata["step"]
    if name == "progress" or name.startswith(("check-", "given-", "text-")):  # a step's name is its cell's id
        raise BadInput(f"{where}: the step {name!r} has a name that other cells of the notebook have", "Give it another one")
    where = f"{where}, step {name!r}"
    title = metadata.get("title") or name.replace("-", " ")
    hints = tuple(hint.strip() for hint in metadata["hints"])
    cell = Cell("task", True, source, line, ("task",), Step(name, metadata["points"], title, hints, names=tuple(metadata.get("names", ()))))
    stub, solved = "\n".join(_lines(source, solved=False, where=where)), "\n".join(_lines(source, solved=True, where=where))
    if _parses(solved) and not _parses(stub):
        raise BadInput(f"{where}: what is left for the learner is not Python", "Say what to leave after BEGIN SOLUTION, on the same line")
    if any(faults_in(stub, where)):
        raise BadInput(f"{where}: a task injects a fault", "Put lab.inject(…) into a given cell before the task")
    for told in _region_lines(source):
        if len(told) >= 12 and told in hints[0]:
            raise BadInput(f"{where}: the first hint holds a line of the solution: {told!r}", "Let hints lead up to it")
    return cell


def _lines(source: str, *, solved: bool, where: str) -> list[str]:
    """The cell with its regions opened (solved) or replaced by what the learner finds."""
    kept: list[str] = []
    begun = 0  # the line where the open region began; 0 outside
    filled = regions = 0
    for number, line in enumerate(source.splitlines(), 1):
        if match := BEGIN.match(line):
            if begun:
                raise BadInput(
                    f"{where}: a solution begins in its line {number}, inside the one begun in line {begun}", "Solutions do not nest"
                )
            begun, filled, regions = number, 0, regions + 1
            if not solved:
                kept.append(match[1] + (match[2] or _stub(source)))
        elif END.match(line):
            if not begun:
                raise BadInput(f"{where}: a solution ends in its line {number} that never began")
            if not filled:
                raise BadInput(f"{where}: the solution in lines {begun} to {number} is empty")
            begun = 0
        elif MARKER.search(line):
            raise BadInput(
                f"{where}: its line {number} looks like a marker: {line.strip()!r}", "Write exactly ### BEGIN SOLUTION and ### END SOLUTION"
            )
        else:
            filled += bool(line.strip())
            if solved or not begun:
                kept.append(line)
    if begun:
        raise BadInput(f"{where}: the solution begun in its line {begun} never ends", "Write ### END SOLUTION")
    if not regions:
        raise BadInput(
            f"{where}: a task without a solution would be released as it is",
            "Put ### BEGIN SOLUTION and ### END SOLUTION around what the learner writes",
        )
    return kept


def _region_lines(source: str) -> Iterator[str]:
    inside = False
    for line in source.splitlines():
        if BEGIN.match(line) or END.match(line):
            inside = not inside
        elif inside and line.strip():
            yield line.strip()


def _stub(source: str) -> str:
    """A placeholder that runs: a shell would take `...` for a command."""
    shell = source.lstrip().startswith(("%%bash", "%%sh", "%%script", "%%on"))
    return "# your commands here" if shell else "...  # your code here"


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def faults_in(source: str, where: str) -> Iterator[dict[str, Any]]:
    """The calls lab.inject("name", option=value) of a cell, which the grader does on the cell's behalf.

    The grader must know them without running the cell, so name and options are written out; `$port` in an option
    is filled with the learner's parameter.
    """
    if ".inject(" not in source:
        return
    if not _parses(source):
        raise BadInput(f"{where}: lab.inject stands in a cell that is not plain Python", "Give it a cell of its own")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "inject":
            try:
                (name,) = [ast.literal_eval(word) for word in node.args]
                options = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
            except ValueError:
                raise BadInput(
                    f"{where}: lab.inject has options that are computed", "Write them out; $name stands for a parameter"
                ) from None
            yield {"fault": name, "options": options}
