"""The page that `lab start` opens: labs, time, points and progress.

It is a notebook of one Markdown cell: JupyterLab shows that as a page with living links at once, a .md file only as text.
"""

from __future__ import annotations

import json
from pathlib import Path

from lab_utils.cluster import known_clusters
from lab_utils.labs.answers import write_whole
from lab_utils.labs.catalog import LabFiles, all_labs
from lab_utils.labs.release import KERNEL, notebook_text
from lab_utils.labs.render import number
from lab_utils.labs.store import Store
from lab_utils.paths import state_dir

PAGE = "start.ipynb"
# JupyterLab's defaults, changed: it neither fetches news nor looks for updates.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}


def write_settings() -> Path:
    """A folder that JupyterLab takes as `app_settings_dir`; a user's own settings stand above it."""
    folder = state_dir() / "jupyterlab"
    write_whole(folder / "overrides.json", json.dumps(SETTINGS, indent=2) + "\n")
    return folder


def write_start_page(folder: Path) -> Path:
    page = folder / PAGE
    text = start_page(all_labs(), known_clusters())
    cell = {"cell_type": "markdown", "id": "start", "metadata": {"editable": False, "deletable": False}, "source": text}
    write_whole(page, notebook_text({"cells": [cell], "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5}))
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
