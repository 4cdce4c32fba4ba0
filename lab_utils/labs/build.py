"""`lab build`: from solutions/NN-topic/lab.md to labs/NN-topic/lab.ipynb and lab.json, or to a list of differences."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from lab_utils.checks import CheckSet
from lab_utils.errors import BadInput
from lab_utils.labs.answers import write_whole
from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.reach import named, names_in
from lab_utils.labs.release import handed_in, joined, notebook_text, released, solution
from lab_utils.labs.source import LabSource, Wrong, read_source, read_wrong


def load_source(files: LabFiles) -> LabSource:
    return read_source(_text(files.source), files.name, files.says(files.source))


def load_wrong(files: LabFiles) -> list[Wrong]:
    return [read_wrong(_text(path), files.says(path)) for path in files.wrong]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # with or without the mark that some editors put in front
    except FileNotFoundError:
        raise BadInput(f"there is no {path}", "`lab new` writes one to start from") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 (byte {error.start})") from None


def outputs(files: LabFiles) -> dict[Path, str]:
    """What the lab's generated files must hold. Reads everything that is written by hand, and finds its mistakes."""
    source = load_source(files)
    spec = joined(source, files.checks)
    _names_are_declared(files, source, files.checks)
    for wrong in load_wrong(files):
        _possible(wrong, source)
    return {files.notebook: notebook_text(released(source)), files.declared: spec.as_json()}


def _names_are_declared(files: LabFiles, source: LabSource, checkset: CheckSet) -> None:
    """Other people's nodes have other names. Where a lab's code calls a node by name it must say so: then these steps are skipped there."""
    spec = source.spec
    setup = files.folder / "setup.yaml"
    said = {files.says(each): named(_text(each)) for each in (checkset.path, setup) if each.is_file()}
    said[f"{source.where}, front matter `lab.params`"] = named(json.dumps(spec.params))
    said[source.where] = {name for cell in source.cells if cell.code for name in named(cell.source)}
    for where, names in said.items():
        _declared(names, spec.names, where)
    for cell in source.cells:
        if cell.step:
            names = named(cell.source) | names_in(checkset.checks[cell.step.name].function)
            _declared(names, [*spec.needs.names, *cell.step.names], f"{source.where}, step {cell.step.name!r} or its check")


def _declared(names: set[str], declared: list[str], where: str) -> None:
    if extra := sorted(names - set(declared)):
        say = f"[{', '.join(extra)}]"
        raise BadInput(
            f"{where}: it calls {', '.join(extra)} by name and does not declare it",
            f"Write `needs: {{names: {say}}}` if the lab does so all through, or `names: {say}` with each task that does",
        )


def _possible(wrong: Wrong, source: LabSource) -> None:
    handed_in(source, wrong)
    points = {step.name: step.points for step in source.spec.steps}
    for step, score in wrong.steps.items():
        if score > points.get(step, -1):
            raise BadInput(f"{wrong.where}: step {step!r} cannot earn {score:g} points")
    if not wrong.score <= sum(points.values()):  # not even NaN
        raise BadInput(f"{wrong.where}: it cannot score {wrong.score:g} of {sum(points.values())} points")


def solution_text(files: LabFiles) -> str:
    return notebook_text(solution(load_source(files)))


def build(files: LabFiles, *, force: bool = False) -> list[Path]:
    """Write what has changed; returns it. Somebody's work in the notebook is not overwritten without `force`."""
    written = []
    wanted = outputs(files)
    if not force and (work := somebodys_work(files.notebook)) and files.notebook.read_text(encoding="utf-8") != wanted[files.notebook]:
        raise BadInput(f"{files.says(files.notebook)} holds {work}", "Keep a copy if you need it, then build with --force")
    for path, text in wanted.items():
        if not path.is_file() or path.read_bytes() != text.encode():
            write_whole(path, text)
            written.append(path)
    return written


def somebodys_work(path: Path) -> str:
    """What in a notebook shows that somebody has worked in it: it was run."""
    try:
        cells = json.loads(path.read_bytes())["cells"]
        ran = any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return "the outputs of somebody's work" if ran else ""


def differences(files: LabFiles) -> str:
    """A unified diff from what is there to what the source says; empty when they agree."""
    pieces: list[str] = []
    for path, text in outputs(files).items():
        there = path.read_bytes().decode(errors="replace") if path.is_file() else ""  # as bytes: the ends of lines count, too
        if there != text:
            name = files.says(path)
            pieces += difflib.unified_diff(there.splitlines(True), text.splitlines(True), name, f"{name}, from {files.says(files.source)}")
    return "".join(pieces)
