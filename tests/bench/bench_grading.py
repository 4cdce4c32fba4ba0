"""What grading costs beside papermill alone, what more jobs give, and what 200 MB of output cost the grader.

The notebook needs no cluster, so that no wait for one is in the figures.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import papermill

from lab_utils.checks import load_checks
from lab_utils.cluster import ClusterRecord
from lab_utils.grading.discover import who
from lab_utils.grading.graft import Trusted, as_notebook, plan
from lab_utils.grading.limits import Limits
from lab_utils.grading.results import Grade
from lab_utils.grading.submission import read_submission
from lab_utils.grading.unit import Job
from lab_utils.grading.worker import context, grade_apart
from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.release import joined, notebook_text, released, solution
from lab_utils.labs.source import read_source
from lab_utils.run import run
from tests.bench.report import Row, compare, seconds

LAB = "90-answers"
DATA = Path(__file__).resolve().parent.parent / "grading/data/root"


def course(top: Path) -> LabFiles:
    shutil.copytree(DATA, top, dirs_exist_ok=True)
    files = LabFiles(LAB, top)
    source = read_source(files.source.read_text(), LAB, "lab.md")
    files.declared.write_text(joined(source, load_checks(files.folder / "checks.py")).as_json())
    files.notebook.write_text(notebook_text(released(source)))
    (top / "ada.ipynb").write_text(notebook_text(solution(source)))
    return files


def graded(files: LabFiles, notebook: Path, limits: Limits) -> Grade:
    entry = replace(who(notebook.name), submission=notebook.name, path=notebook)
    return grade_apart(Job(LAB, str(files.root), entry, limits=limits), lambda event: None, lambda: False)


def bare(files: LabFiles, notebook: Path, top: Path) -> None:
    """papermill as it comes, with nbclient's engine: no sandbox, no checks, no limits."""
    trusted = Trusted.read(files.notebook)
    submission = read_submission(notebook.read_bytes(), LAB, [step.name for step in files.spec.steps], trusted.stubs, Limits())
    stub = top / "kubectl"
    stub.write_text("#!/bin/sh\necho '{}'\n")
    stub.chmod(0o755)
    record = ClusterRecord("none", "none", "up", "/dev/null", [], kubectl=str(stub))
    (top / "cluster.json").write_text(json.dumps(asdict(record)))
    surroundings = {
        "LAB_ROOT": str(files.root),
        "LAB_ANSWERS": str(top / "answers.json"),
        "LAB_CLUSTER_FILE": str(top / "cluster.json"),
        "LAB_LEARNER": "ada",
    }
    planned = as_notebook(plan(trusted, submission, files.spec))
    with patch.dict(os.environ, surroundings):
        papermill.execute_notebook(planned, str(top / "out.ipynb"), kernel_name="python3", progress_bar=False)


def throughput(files: LabFiles, top: Path, count: int, jobs: int) -> float:
    """Seconds for a whole run of the command, from its start to its last report."""
    inbox = top / "inbox"
    inbox.mkdir(exist_ok=True)
    for number in range(count):
        shutil.copy(top / "ada.ipynb", inbox / f"student-{number:03d}.ipynb")
    words = [sys.executable, "-m", "lab_utils", "grade", LAB, inbox, "--out", top / f"out-{jobs}", "--cluster", "none", "--jobs", jobs]
    return seconds(lambda: run([str(word) for word in words], env={"LAB_ROOT": str(files.root)}))


def peak(files: LabFiles, top: Path, cell: str) -> float:
    """The most memory, in MiB, of a process that was forked to grade one submission in which one cell is this."""
    notebook = json.loads((top / "ada.ipynb").read_text())
    for one in notebook["cells"]:
        if one["metadata"].get("step") == "word":
            one["source"] = cell
    path = top / "peak.ipynb"
    path.write_text(json.dumps(notebook))
    ours, theirs = context().Pipe()
    process = context().Process(target=_peak, args=(str(files.root), str(path), theirs))
    process.start()
    found = ours.recv() / 1024
    process.join()
    return float(found)


def _peak(root: str, notebook: str, answer: Any) -> None:
    import resource

    from lab_utils.grading.unit import grade

    path = Path(notebook)
    grade(Job(LAB, root, replace(who(path.name), submission=path.name, path=path)))
    answer.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
        top = Path(folder)
        files = course(top)
        assert graded(files, top / "ada.ipynb", Limits()).score == files.spec.points
        name = "one submission graded / papermill alone, same notebook"
        found = [compare(name, lambda: graded(files, top / "ada.ipynb", Limits()), lambda: bare(files, top / "ada.ipynb", top))]
        loud, quiet = peak(files, top, "for i in range(200_000): print('x' * 1000)"), peak(files, top, "1")
        found.append(Row("grader's memory, 200 MB of output / no output", f"{loud:.0f} MiB", f"{quiet:.0f} MiB", f"{loud / quiet:.2f}"))
        count = 8
        one = throughput(files, top, count, 1)
        for jobs in (2, 4):
            many = throughput(files, top, count, jobs)
            minute = [f"{60 * count / took:.1f} a minute" for took in (many, one)]
            found.append(Row(f"lab grade --jobs {jobs} / --jobs 1, {count} submissions", minute[0], minute[1], f"{one / many:.2f}"))
        return found
