"""A lab that needs no cluster, and notebooks handed in for it: what most tests of the grader run on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab_utils.checks import load_checks
from lab_utils.grading.discover import who
from lab_utils.grading.limits import Limits
from lab_utils.grading.results import Grade
from lab_utils.grading.unit import Job, grade
from lab_utils.labs.release import joined, notebook_text, released, solution
from lab_utils.labs.source import LabSource, read_source

LAB = "90-answers"
DATA = Path(__file__).parent / "data" / "root"
FULL = 13
STEPS = ["sum", "word", "table", "double", "last"]
RIGHT = {
    "sum": 'lab.answer("sum", lab.params["first"] + 1)',
    "word": 'lab.answer("word", "Pod")',
    "table": 'lab.answer("table", {"api": 6443, "etcd": 2379, "kubelet": 10250, "dns": 53, "ssh": 22})',
    "double": 'lab.answer("double", (lab.params["first"] + 1) * 2)',
    "last": 'lab.answer("last", given)',
}
PATIENT = Limits(cell_seconds=60, total_seconds=240, grace_seconds=3)  # nothing in a test waits for these to pass

Notebook = dict[str, Any]
Grader = Callable[..., Grade]


@pytest.fixture(scope="session")
def source() -> LabSource:
    text = (DATA / "solutions" / LAB / "lab.md").read_text()
    return read_source(text, LAB, "lab.md")


@pytest.fixture(scope="session")
def root(source: LabSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with one lab, built, and a solution that no student may see."""
    top = tmp_path_factory.mktemp("course")
    shutil.copytree(DATA, top, dirs_exist_ok=True)
    folder = top / "labs" / LAB
    spec = joined(source, load_checks(folder / "checks.py"))
    (folder / "lab.json").write_text(spec.as_json())
    (folder / "lab.ipynb").write_text(notebook_text(released(source)))
    return top


@pytest.fixture
def untouched(source: LabSource) -> Notebook:
    return released(source)


@pytest.fixture
def solved(source: LabSource) -> Notebook:
    return solution(source)


@pytest.fixture
def handed_in(source: LabSource) -> Callable[..., Notebook]:
    """A notebook with everything right, but for the steps that are named: handed_in(word='lab.answer("word", "Node")')."""

    def make(**changed: str) -> Notebook:
        notebook = released(source)
        for cell in notebook["cells"]:
            if step := cell["metadata"].get("step"):
                cell["source"] = changed.get(step, RIGHT[step])
        return notebook

    return make


@pytest.fixture
def grader(root: Path, tmp_path: Path) -> Grader:
    """Grade a notebook (as an object, text or bytes) as the batch does, in this process."""

    def run(what: Notebook | str | bytes, limits: Limits = PATIENT, name: str = "ada.ipynb") -> Grade:
        path = tmp_path / name
        path.write_bytes(as_bytes(what))
        return grade(Job(LAB, str(root), entry(path), limits=limits))

    return run


def entry(path: Path) -> Any:
    from dataclasses import replace

    return replace(who(path.name), submission=path.name, path=path)


def as_bytes(what: Notebook | str | bytes) -> bytes:
    if isinstance(what, bytes):
        return what
    return (what if isinstance(what, str) else json.dumps(what)).encode()


def earned(grade: Grade) -> dict[str, float]:
    return {step.step: step.earned for step in grade.steps}
