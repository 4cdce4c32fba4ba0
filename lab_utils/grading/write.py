"""Everything that a run leaves in its folder:

results.json              all grades; the schema is lab_utils/schemas/results.schema.json
grades.csv                nbgrader's header
canvas.csv moodle.csv     for their gradebooks
index.html                the class: scores, steps, submissions
reports/NAME.html         one submission: code, what was expected and seen
gradescope/NAME.json      one submission, as a Gradescope autograder says it
state/                    what a later run resumes from
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab_utils.grading.exports import canvas_csv, grades_csv, gradescope, moodle_csv
from lab_utils.grading.report import overview_page, submission_page
from lab_utils.grading.results import Grade, document
from lab_utils.labs.answers import write_whole
from lab_utils.labs.spec import LabSpec

FORMATS = ("csv", "html", "canvas", "moodle", "gradescope")


def write_all(
    out: Path,
    spec: LabSpec,
    grades: list[Grade],
    ignored: list[str],
    cluster: dict[str, Any],
    formats: tuple[str, ...],
    assignment: str = "",
) -> None:
    data = document(spec, cluster, grades, ignored)
    write_whole(out / "results.json", json.dumps(data, indent=2, ensure_ascii=True) + "\n")
    if "csv" in formats:
        _text(out / "grades.csv", grades_csv(spec, grades))
    if "canvas" in formats:
        _text(out / "canvas.csv", canvas_csv(spec, grades, assignment))
    if "moodle" in formats:
        _text(out / "moodle.csv", moodle_csv(spec, grades))
    if "gradescope" in formats:
        for grade in grades:
            _text(out / "gradescope" / f"{Path(grade.report).stem}.json", gradescope(grade))
    if "html" in formats:
        said = told(cluster)
        for grade in grades:
            _text(out / grade.report, submission_page(spec, grade, said))
        _text(out / "index.html", overview_page(spec, grades, ignored, said))


def told(cluster: dict[str, Any]) -> str:
    if cluster["provider"] == "none":
        return "graded without a cluster"
    return f"graded on {', '.join(cluster['names'])} ({cluster['provider']}, Kubernetes {cluster['kubernetes']})"


def _text(path: Path, text: str) -> None:
    write_whole(path, text.encode("utf-8", "replace").decode())
