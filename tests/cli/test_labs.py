from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.outcome import CheckResult
from lab_utils.labs.store import Store
from tests.labs.conftest import checkout, example  # noqa: F401 (fixtures)


def lab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lab_utils", *words], text=True, capture_output=True, timeout=60)


def refused(*words: str) -> str:
    done = lab(*words)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("lab: "), done.stderr
    assert done.stderr.count("\n") == 1, "one line, and never a traceback"
    return done.stderr


def test_a_new_lab_builds_and_is_up_to_date(checkout: Path) -> None:  # noqa: F811
    assert "wrote solutions/09-dns/lab.md" in lab("new", "09-dns").stdout
    assert lab("build").stdout == "09-dns is up to date\n"
    done = lab("build", "--check")
    assert (done.returncode, done.stdout) == (0, "")


def test_build_check_fails_with_the_diff(example: LabFiles) -> None:  # noqa: F811
    example.notebook.write_text(example.notebook.read_text().replace("## Explain", "## Solved"))
    done = lab("build", "--all", "--check")
    assert done.returncode == 1
    assert "+++ labs/99-example/lab.ipynb, from solutions/99-example/lab.md" in done.stdout
    assert '+    "## Explain' in done.stdout


def test_the_solution_goes_where_one_says_but_never_among_the_labs(example: LabFiles) -> None:  # noqa: F811
    out = example.root / "deep" / "solution.ipynb"
    assert lab("solution", "99", "--out", str(out)).returncode == 0
    assert "str(lab.params" in json.dumps(json.loads(out.read_text()))
    assert "lies among what learners open" in refused("solution", "99", "--out", str(example.folder / "solution.ipynb"))
    assert "should end in .ipynb" in refused("solution", "99", "--out", str(example.root / "solution.html"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["build", "98"], "there is no lab '98'. There are: 99-example"),
        (["build", "99", "--all"], "both labs and --all were given"),
        (["new", "99-example"], "exists already"),
        (["new", "99-other"], "the number 99 is taken by 99-example"),
        (["new", "dns"], "'dns' is not a lab's name"),
        (["new", "../09-dns"], "is not a lab's name"),
        (["hint", "99", "nope"], "has no step 'nope'. Its steps are: predict, notes, explain, mend"),
        (["check", "99"], "there is no cluster here"),
        (["check", "99", "--cluster", "mine"], "no cluster named 'mine'"),
        (["start", "98"], "there is no lab '98'"),
        (["reset", "99", "--name", "mine"], "no cluster named 'mine'"),
        (["check"], "Missing argument 'LAB'. See `lab check --help`"),
        (["start", "--port", "0"], "1<=x<=65535. See `lab start --help`"),
        (["chekc"], "No such command 'chekc'"),
    ],
)
def test_what_cannot_be_right_is_one_line_and_code_2(example: LabFiles, words: list[str], why: str) -> None:  # noqa: F811
    assert why in refused(*words)


def test_hints_escalate_with_failed_checks_and_survive_the_process(example: LabFiles) -> None:  # noqa: F811
    first, second = example.spec.step("predict").hints
    said = lab("hint", "99", "predict").stdout
    assert first in said
    assert second not in said
    store = Store.of_learner(example.name)
    for _ in range(2):
        store.record(CheckResult("predict", 3, 0, "failed"))
    assert second in lab("hint", "99", "predict").stdout


def test_without_a_step_the_hints_are_for_the_first_that_has_not_passed(example: LabFiles) -> None:  # noqa: F811
    assert lab("hint", "99").stdout == lab("hint", "99", "predict").stdout
    store = Store.of_learner(example.name)
    store.record(CheckResult("predict", 3, 3, "passed"))
    assert lab("hint", "99").stdout == lab("hint", "99", "notes").stdout
    for step in example.spec.steps:
        store.record(CheckResult(step.name, step.points, step.points, "passed"))
    assert "every step of 99-example has passed" in lab("hint", "99").stdout


def test_progress_needs_no_cluster(example: LabFiles) -> None:  # noqa: F811
    Store.of_learner(example.name).record(CheckResult("notes", 5, 2.5, "failed"))
    assert lab("progress").stdout.splitlines()[1].split() == ["99-example", "20", "min", "0/4", "steps", "2.5/16", "points"]
    assert "2.5 of 16 points" in lab("progress", "99").stdout


def test_the_start_page_lists_labs_time_and_progress(example: LabFiles) -> None:  # noqa: F811
    Store.of_learner(example.name).record(CheckResult("notes", 5, 5, "passed"))
    done = lab("start", "--dry-run")
    assert "--ip=127.0.0.1" in done.stdout
    page = json.loads((example.root / "labs" / "start.ipynb").read_text())
    assert "| [99-example](99-example/lab.ipynb) | Example | 20 min | 1 of 4 | 5 of 16 |" in page["cells"][0]["source"]
