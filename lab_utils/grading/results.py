"""What grading comes to: the shape of results.json, and the same in Python. The schema is published beside
the others: lab_utils/schemas/results.schema.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jsonschema

from lab_utils.errors import BadInput
from lab_utils.grading.discover import Entry
from lab_utils.labs.outcome import CheckResult
from lab_utils.labs.spec import SCHEMAS, LabSpec

Status = Literal["graded", "rejected", "error"]


@dataclass
class Shown:
    """A cell as the report shows it."""

    code: str
    end: str = "ok"
    note: str = ""
    seconds: float = 0.0
    outputs: list[dict[str, str]] = field(default_factory=list)


@dataclass
class StepGrade:
    """One step. `executed` is false when no cell of it ran, and then it earns nothing."""

    step: str
    title: str
    points: float
    earned: float
    status: str  # passed, failed, skipped, error
    message: str
    seconds: float = 0.0  # of its cells and its check
    executed: bool = True
    counts: bool = True  # false: this cluster lacks what the step needs, and its points do not count
    expected: str = ""
    seen: str = ""
    look: str = ""
    cells: list[Shown] = field(default_factory=list)

    @classmethod
    def of(cls, result: CheckResult, title: str, cells: list[Shown], executed: bool = True) -> StepGrade:
        message = result.message or ("passed" if result.passed else "")
        if not message:
            message = f"expected {result.expected}; seen: {result.seen}"
        return cls(
            step=result.step,
            title=title,
            points=number(result.points),
            earned=number(result.earned),
            status=result.status,
            message=message,
            seconds=round(result.seconds + sum(cell.seconds for cell in cells), 2),
            executed=executed,
            counts=result.counts,
            expected=result.expected,
            seen=result.seen,
            look=result.look,
            cells=cells,
        )


@dataclass
class Grade:
    """One submission's result.

    graded    it was run, to its end or until it ended itself; the score says how well
    rejected  what was handed in is not a notebook of this lab: score 0
    error     the grader or its cluster failed; the next run tries again
    """

    submission: str
    student: str
    score: float
    max_score: float
    status: Status
    message: str = ""
    student_id: str = ""
    system: str = ""
    late: bool = False
    timestamp: str = ""
    seconds: float = 0.0
    waited: float = 0.0  # of these, for checks and the cluster
    notes: list[str] = field(default_factory=list)
    harm: list[str] = field(default_factory=list)  # what it did to the cluster outside of its lab
    steps: list[StepGrade] = field(default_factory=list)
    fingerprint: str = ""
    report: str = ""

    @classmethod
    def begin(cls, entry: Entry, spec: LabSpec) -> Grade:
        person = {name: getattr(entry, name) for name in ("submission", "student", "student_id", "system", "late", "timestamp")}
        return cls(**person, score=0, max_score=number(spec.points), status="graded")

    def finish(self, spec: LabSpec, why: str = "") -> Grade:
        """Steps that were not reached earn nothing; then the sum."""
        reached = {step.step for step in self.steps}
        for step in spec.steps:
            if step.name not in reached:
                self.steps.append(not_executed(spec, step.name, why or "not executed"))
        order = [step.name for step in spec.steps]
        self.steps.sort(key=lambda step: order.index(step.step))
        self.score = number(sum(step.earned for step in self.steps if step.counts))
        self.max_score = number(sum(step.points for step in self.steps if step.counts))
        return self

    def public(self) -> dict[str, Any]:
        """As results.json has it: without code and outputs, which are in the report."""
        data = asdict(self)
        for step in data["steps"]:
            del step["cells"]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Grade:
        steps = [StepGrade(**{**step, "cells": [Shown(**cell) for cell in step["cells"]]}) for step in data["steps"]]
        return cls(**{**data, "steps": steps})


def not_executed(spec: LabSpec, step: str, why: str) -> StepGrade:
    said = spec.step(step)
    return StepGrade(step, said.title, number(said.points), 0, "failed", why, executed=False)


def rejected(entry: Entry, spec: LabSpec, why: str) -> Grade:
    grade = Grade.begin(entry, spec)
    grade.status, grade.message = "rejected", why
    return grade.finish(spec, f"not executed: {why}")


def number(value: float) -> float:
    """3.0 is 3: scores read better so, and compare equal."""
    rounded = round(float(value), 2)
    return int(rounded) if rounded.is_integer() else rounded


def document(spec: LabSpec, cluster: dict[str, Any], grades: list[Grade], ignored: list[str]) -> dict[str, Any]:
    data = {
        "lab": spec.name,
        "title": spec.title,
        "cluster": cluster,
        "submissions": [grade.public() for grade in grades],
        "ignored": ignored,
    }
    jsonschema.validate(data, schema())
    return data


@cache
def schema() -> dict[str, Any]:
    return dict(json.loads((SCHEMAS / "results.schema.json").read_text()))


def read_document(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(data, schema())
    except (OSError, ValueError, jsonschema.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path} does not hold results of this grader ({reason})", "Choose another folder with --out") from None
    return dict(data)
