"""Grades in the forms that other systems read: nbgrader, Canvas, Moodle, Gradescope (pure, but for the writing)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from lab_utils.grading.results import Grade
from lab_utils.labs.spec import LabSpec

# nbgrader's own header, so that whatever reads its export reads ours.
NBGRADER = ["assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"]
NBGRADER += ["raw_score", "late_submission_penalty", "score", "max_score"]
CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
# Moodle takes a worksheet only when it has Identifier, Grade and "Last modified (grade)": mod/assign/feedback/offline/importgradeslib.php,
# `init`. That time left empty, a grade that somebody has given by hand is not written over.
MOODLE = ["Identifier", "Full name", "Email address", "Status", "Grade", "Maximum grade", "Last modified (submission)"]
MOODLE += ["Last modified (grade)", "Feedback comments"]


def per_student(grades: Iterable[Grade]) -> list[Grade]:
    """One grade for each student: a gradebook has one row. Of several submissions the best counts."""
    best: dict[tuple[str, str], Grade] = {}
    for grade in grades:
        key = (grade.student, grade.student_id)
        if key not in best or _worth(grade) > _worth(best[key]):
            best[key] = grade
    return list(best.values())


def _worth(grade: Grade) -> tuple[bool, float]:
    return grade.status != "error", grade.score


def _score(grade: Grade) -> float | str:
    """Nothing where the grader failed: a gradebook leaves such a student as it was, and would take 0 for a grade."""
    return "" if grade.status == "error" else grade.score


def grades_csv(spec: LabSpec, grades: Iterable[Grade]) -> str:
    rows = []
    for grade in per_student(grades):
        first, _, last = grade.student.rpartition(" ")
        rows.append(
            [
                spec.name,
                "",
                grade.timestamp,
                grade.student_id or grade.student,
                last if first else "",
                first,
                "",
                _score(grade),
                0,
                _score(grade),
                grade.max_score,
            ]
        )
    return _csv(NBGRADER, rows)


def canvas_csv(spec: LabSpec, grades: Iterable[Grade], assignment: str = "") -> str:
    """Canvas finds students by ID, which it wrote into the files' names, and the assignment by "Name (id)"."""
    rows: list[list[Any]] = [["    Points Possible", "", "", "", "", spec.points]]
    rows += [[grade.student, grade.student_id, "", "", "", _score(grade)] for grade in per_student(grades)]
    return _csv([*CANVAS, assignment or f"{spec.title} ({spec.name})"], rows)


def moodle_csv(spec: LabSpec, grades: Iterable[Grade]) -> str:
    """Moodle's offline grading worksheet, which finds students by "Participant 1234"."""
    rows = []
    for grade in per_student(grades):
        who = f"Participant {grade.student_id}" if grade.student_id else ""
        rows.append([who, grade.student, "", "Submitted for grading", _score(grade), grade.max_score, "", "", feedback(grade)])
    return _csv(MOODLE, rows)


def gradescope(grade: Grade) -> str:
    """The results.json that a Gradescope autograder leaves for one submission."""
    tests = [
        {
            "name": f"{step.step}: {step.title}" if step.title else step.step,
            "score": step.earned if step.counts else 0,
            "max_score": step.points if step.counts else 0,
            "status": "passed" if step.status == "passed" else "failed",
            "output": step.message,
            "visibility": "visible",
        }
        for step in grade.steps
    ]
    whole = {
        "score": grade.score,
        "execution_time": round(grade.seconds),
        "output": feedback(grade),
        "output_format": "text",
        "visibility": "visible",
        "tests": tests,
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def feedback(grade: Grade) -> str:
    lost = [f"{step.step}: {step.message}" for step in grade.steps if step.counts and step.earned < step.points]
    return "\n".join([*([grade.message] if grade.message else []), *(lost if grade.status != "rejected" else [])])


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_harmless(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def _harmless(cell: str) -> str:
    """A spreadsheet runs a cell that begins like a formula, and a student chose the file's name."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
