"""What goes into gradebooks."""

from __future__ import annotations

import csv
import json

import pytest

from lab_utils.grading import exports
from lab_utils.grading.results import Grade, StepGrade
from lab_utils.labs.spec import LabSpec, Needs, Step

SPEC = LabSpec("08-services", "Services", 90, ("x",), Needs(), ("lab-08",), (Step("chains", 6, "Chains"), Step("path", 4, "Path")))


def grade(student: str, score: float, status: str = "graded", **more: object) -> Grade:
    steps = [
        StepGrade("chains", "Chains", 6, min(score, 6), "passed", "passed"),
        StepGrade("path", "Path", 4, 0, "failed", "expected 1; seen: 2"),
    ]
    return Grade(f"{student}.ipynb", student, score, 10, status, steps=steps, **more)  # type: ignore[arg-type]


GRADES = [
    grade("Ada Lovelace", 6, student_id="4711"),
    grade("Bob", 0, "rejected", message="it is empty"),
    grade("Eve", 0, "error", message="no"),
]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_nbgraders_header_and_one_row_for_each_student() -> None:
    text = exports.grades_csv(SPEC, GRADES)
    assert text.splitlines()[0] == (
        "assignment,duedate,timestamp,student_id,last_name,first_name,email,raw_score,late_submission_penalty,score,max_score"
    )
    ada, bob, eve = rows(text)
    assert (ada["student_id"], ada["first_name"], ada["last_name"], ada["score"], ada["max_score"]) == (
        "4711",
        "Ada",
        "Lovelace",
        "6",
        "10",
    )
    assert (bob["student_id"], bob["score"]) == ("Bob", "0")
    assert (eve["raw_score"], eve["score"]) == ("", ""), "what could not be graded is not 0"


def test_moodle_finds_the_columns_without_which_it_takes_no_worksheet() -> None:
    ada, bob, eve = rows(exports.moodle_csv(SPEC, GRADES))
    assert {"Identifier", "Grade", "Last modified (grade)", "Feedback comments"} <= set(ada)
    assert (ada["Identifier"], ada["Full name"], ada["Grade"]) == ("Participant 4711", "Ada Lovelace", "6")
    assert ada["Feedback comments"] == "path: expected 1; seen: 2"
    assert (bob["Grade"], bob["Feedback comments"], eve["Grade"]) == ("0", "it is empty", "")


def test_canvas_finds_students_by_id_and_the_assignment_by_its_column() -> None:
    text = exports.canvas_csv(SPEC, GRADES, "Services (1234)")
    assert text.splitlines()[:2] == ["Student,ID,SIS User ID,SIS Login ID,Section,Services (1234)", "    Points Possible,,,,,10"]
    assert [row["Services (1234)"] for row in rows(text)[1:]] == ["6", "0", ""]


def test_gradescope_shows_each_step() -> None:
    said = json.loads(exports.gradescope(GRADES[0]))
    assert set(said) >= {"score", "execution_time", "output", "visibility", "tests"}
    assert [(test["name"], test["score"], test["max_score"], test["status"]) for test in said["tests"]] == [
        ("chains: Chains", 6, 6, "passed"),
        ("path: Path", 0, 4, "failed"),
    ]


@pytest.mark.parametrize(("first", "second", "counts"), [(3, 5, "5"), (5, 3, "5"), (0, 0, "0")])
def test_of_several_submissions_of_one_student_the_best_counts(first: float, second: float, counts: str) -> None:
    several = [grade("Ada", 0, "error"), grade("Ada", first), grade("Ada", second), grade("Ada", 9, student_id="other Ada")]
    assert [row["score"] for row in rows(exports.grades_csv(SPEC, several))] == [counts, "9"]
