"""The page that `lab start` opens: labs, time, points and progress, as Markdown that JupyterLab shows with its links alive."""

from __future__ import annotations

from pathlib import Path

from lab_utils.cluster import known_clusters
from lab_utils.labs.answers import write_whole
from lab_utils.labs.catalog import LabFiles, all_labs
from lab_utils.labs.render import number
from lab_utils.labs.store import Store

PAGE = "start.md"


def write_start_page(folder: Path) -> Path:
    page = folder / PAGE
    write_whole(page, start_page(all_labs(), known_clusters()))
    return page


def start_page(labs: list[LabFiles], clusters: list[str]) -> str:
    lines = ["# Kubernetes Inside Out: the labs", ""]
    if clusters:
        lines += [f"Cluster here: {', '.join(f'`{name}`' for name in clusters)}.", ""]
    else:
        lines += ["There is no cluster on this machine yet. Start one in a terminal with `lab up`.", ""]
    lines += ["| lab | about | time | steps passed | points |", "|---|---|---:|---:|---:|"]
    lines += [_row(lab) for lab in labs]
    lines += [
        "",
        "Open a lab by its link, and run its cells from top to bottom. After each task, the cell `lab.check(…)` looks at the",
        "cluster and says what it expected, what it saw, and where to look. `lab.hint(…)` helps, more with each attempt.",
        "Your progress is kept outside of the notebook: a restarted kernel loses nothing. `lab.reset()` begins a lab anew.",
        "",
        "This page is written by `lab start`. For the state of now: `lab progress`, in a terminal.",
        "",
    ]
    return "\n".join(lines)


def _row(lab: LabFiles) -> str:
    results = Store.of_learner(lab.name).results()
    passed = sum(result.passed for result in results.values())
    earned = number(sum(result.earned for result in results.values()))
    title = lab.spec.title.replace("|", "\\|")
    cells = [f"[{lab.name}]({lab.name}/lab.ipynb)", title, f"{lab.spec.minutes} min", f"{passed} of {len(lab.spec.steps)}"]
    return f"| {' | '.join(cells)} | {earned} of {lab.spec.points} |"
