"""Who scores a lab's notebooks in its tests.

On the suite's own cluster it is `lab grade`, as it scores students: sandboxed, with limited access, on a pristine cluster.
On a cluster that is there already (LAB_TEST_CLUSTER), which others may be using, it is a rehearsal: the same checks
after the same cells, with the administrator's access. LAB_TEST_JUDGE=grader or =rehearsal chooses one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab_utils.cluster import Cluster
from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.rehearsal import rehearse
from lab_utils.labs.release import Notebook, notebook_text


@dataclass
class Score:
    score: float
    max_score: float
    earned: dict[str, float]  # by step
    errors: list[str] = field(default_factory=list)  # checks that broke
    left: list[str] = field(default_factory=list)  # what was not as before, on the cluster
    raised: list[str] = field(default_factory=list)  # cells that ended in an error
    story: str = ""


def judge() -> str:
    if said := os.environ.get("LAB_TEST_JUDGE"):
        return said
    return "rehearsal" if os.environ.get("LAB_TEST_CLUSTER") or os.geteuid() != 0 else "grader"


def scores(files: LabFiles, notebooks: dict[str, Notebook], cluster: Cluster, folder: Path) -> dict[str, Score]:
    if judge() == "rehearsal":
        return {name: rehearsed(files, notebook, cluster, name) for name, notebook in notebooks.items()}
    return graded(files, notebooks, cluster, folder)


def rehearsed(files: LabFiles, notebook: Notebook, cluster: Cluster, name: str) -> Score:
    found = rehearse(files, notebook, cluster, learner=name)
    return Score(
        found.score,
        found.points,
        {result.step: result.earned for result in found.results},
        [result.message for result in found.results if result.status == "error"],
        found.left,
        [f"{cell}: {said}" for cell, said in found.errors.items()],
        found.story(),
    )


def graded(files: LabFiles, notebooks: dict[str, Notebook], cluster: Cluster, folder: Path) -> dict[str, Score]:
    inbox, out = folder / "in", folder / "out"
    inbox.mkdir(parents=True)
    for name, notebook in notebooks.items():
        (inbox / f"{name}.ipynb").write_text(notebook_text(notebook))
    words = ["grade", files.name, str(inbox), "--out", str(out), "--cluster", cluster.name]
    env = {**os.environ, "LAB_ROOT": str(files.root)}
    done = subprocess.run([sys.executable, "-m", "lab_utils", *words], env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = {}
    for path in (out / "state").glob("*.json"):
        grade = json.loads(path.read_text())
        steps = grade["steps"]
        found[grade["student"]] = Score(
            grade["score"],
            grade["max_score"],
            {step["step"]: step["earned"] for step in steps},
            [step["message"] for step in steps if step["status"] == "error"] + ([grade["message"]] if grade["status"] == "error" else []),
            grade["harm"],
            [f"{step['step']}: {cell['note']}" for step in steps for cell in step["cells"] if cell["note"]],
            story(steps),
        )
    assert set(found) == set(notebooks), done.stderr
    return found


def story(steps: list[dict[str, Any]]) -> str:
    """What a failed test shows: every step in a line, then whole those that lost points, for a log may be cut."""
    lines = [f"{step['step']}: {step['earned']} of {step['points']}, {step['status']}: {step['message']}" for step in steps]
    return "\n".join([*lines, json.dumps([step for step in steps if step["earned"] < step["points"]], indent=1)])
