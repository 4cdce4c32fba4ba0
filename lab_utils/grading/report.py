"""Reports to read: one HTML page per submission and one for the class.

Everything in them may come from a stranger, so Jinja2 escapes all of it, the pages forbid scripts and any
load from elsewhere (a Content-Security-Policy), and pictures are shown as images, in which nothing runs.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from lab_utils.grading.results import Grade, StepGrade, number
from lab_utils.labs.spec import LabSpec

TEMPLATES = Path(__file__).resolve().parent / "templates"
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")  # colours of a terminal: ECMA-48


def submission_page(spec: LabSpec, grade: Grade, cluster: str) -> str:
    return _page("report.html", lab=spec, grade=grade, cluster=cluster)


def overview_page(spec: LabSpec, grades: list[Grade], ignored: list[str], cluster: str) -> str:
    run = [grade for grade in grades if grade.status != "error"]
    mean = number(sum(grade.score for grade in run) / len(run)) if run else 0
    return _page(
        "overview.html",
        lab=spec,
        grades=sorted(grades, key=lambda grade: grade.student.lower()),
        ignored=ignored,
        counts=Counter(grade.status for grade in grades),
        steps=step_rows(spec, run),
        histogram=histogram([grade.score for grade in run], spec.points),
        mean=mean,
        cluster=cluster,
    )


def step_rows(spec: LabSpec, grades: list[Grade]) -> list[dict[str, Any]]:
    """For each step: how many got all of its points, of those for whom it counts."""
    rows = []
    for step in spec.steps:
        mine = [each for grade in grades for each in grade.steps if each.step == step.name and each.counts]
        full = sum(each.earned >= each.points for each in mine)
        mean = number(sum(each.earned for each in mine) / len(mine)) if mine else "–"
        percent = round(100 * full / len(mine)) if mine else 0
        rows.append(
            {
                "step": step.name,
                "title": step.title,
                "points": step.points,
                "full": full,
                "count": len(mine),
                "mean": mean,
                "percent": percent,
            }
        )
    return rows


def histogram(scores: list[float], top: float) -> Markup:
    """How many reached which score, in at most ten columns, as an inline picture with a text in its place."""
    columns = int(min(10, max(1, top)))
    counts = [0] * columns
    for score in scores:
        counts[min(columns - 1, int(score / top * columns)) if top else 0] += 1
    highest = max([*counts, 1])
    wide, tall = 640, 180
    step = wide / columns
    parts = []
    for index, count in enumerate(counts):
        height = 130 * count / highest
        left = index * step
        low, high = number(round(top * index / columns, 1)), number(round(top * (index + 1) / columns, 1))
        parts.append(
            f'<rect class="column" x="{left + 4:.1f}" y="{150 - height:.1f}" width="{step - 8:.1f}" height="{height:.1f}" rx="2"/>'
        )
        if count:
            parts.append(f'<text x="{left + step / 2:.1f}" y="{144 - height:.1f}" text-anchor="middle">{count}</text>')
        parts.append(f'<text x="{left + step / 2:.1f}" y="168" text-anchor="middle">{low}–{high}</text>')
    words = f"{len(scores)} scores from {min(scores, default=0)} to {max(scores, default=0)} of {top}"
    return Markup(
        f'<svg viewBox="0 0 {wide} {tall}" role="img" aria-label="{words}" style="width:100%;max-width:{wide}px">'
        f'<title>{words}</title><line x1="0" y1="150" x2="{wide}" y2="150"/>{"".join(parts)}</svg>'
    )


def look_of(step: StepGrade) -> str:
    return "partly" if step.status == "failed" and step.earned > 0 else step.status


def sign_of(step: StepGrade) -> str:
    return {"passed": "✔", "failed": "✘", "partly": "◐", "skipped": "–", "error": "!"}[look_of(step)]


def named(step: Any) -> bool:
    """Whether the step's name says more than its title."""
    title, name = (step["title"], step["step"]) if isinstance(step, dict) else (step.title, step.step)
    return bool(title) and title.lower() != name.replace("-", " ")


def picture(output: dict[str, str]) -> str:
    """A data URL. As an <img>, an SVG runs no script and loads nothing: SVG 2, section 2.2.1."""
    if output["kind"] == "png":
        return "data:image/png;base64," + re.sub(r"[^A-Za-z0-9+/=]", "", output["data"])
    return "data:image/svg+xml;base64," + base64.b64encode(output["data"].encode("utf-8", "replace")).decode()


def plain(text: str) -> str:
    """Text without a terminal's colours and without characters that no page may hold."""
    return "".join(char for char in ESCAPES.sub("", text) if char in "\n\t" or ord(char) >= 32)


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.globals.update(
        look_of=look_of, sign_of=sign_of, picture=picture, named=named, plain=plain, style=Markup((TEMPLATES / "style.css").read_text())
    )
    return made


def _page(template: str, **values: Any) -> str:
    # A lone surrogate (a half character) cannot be written as UTF-8.
    return _environment().get_template(template).render(**values).encode("utf-8", "replace").decode()
