"""`lab grade`: many notebooks in, scores and reports out."""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from lab_utils.cli.console import Console
from lab_utils.errors import BadInput

FORMATS = ("csv", "html", "canvas", "moodle", "gradescope")


class Seconds(click.FloatRange):
    """A range that "nan" is outside of: it compares as neither too small nor too large, and no deadline made of it ever comes."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        return seconds


@click.command()
@click.argument("lab")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for results and reports; a second run resumes there.")
@click.option("--jobs", type=click.IntRange(1, 32), default=1, show_default=True, help="How many at once; each has a cluster of its own.")
@click.option("--cluster", "clusters", multiple=True, help='Use this cluster (may be repeated); "none" for labs that need none.')
@click.option(
    "--timeout",
    type=Seconds(1, 86400),
    default=None,
    help="Seconds for one whole notebook, waiting for checks excluded. [default: 900]",
)
@click.option("--cell-timeout", type=Seconds(1, 86400), default=None, help="Seconds for one cell. [default: 120]")
@click.option("--format", "formats", multiple=True, help=f"Beside results.json: {', '.join(FORMATS)}. [default: all]")
@click.option("--canvas-assignment", default="", help='The column of canvas.csv, as Canvas names it: "Services (1234)".')
@click.option("--no-reset", is_flag=True, help="Never reset a cluster that a submission has harmed; stop instead.")
@click.option("--keep-clusters", is_flag=True, help="Leave the clusters that --jobs has started.")
def grade(
    lab: str,
    paths: tuple[Path, ...],
    out: Path,
    jobs: int,
    clusters: tuple[str, ...],
    timeout: float | None,
    cell_timeout: float | None,
    formats: tuple[str, ...],
    canvas_assignment: str,
    no_reset: bool,
    keep_clusters: bool,
) -> int:
    """Grade notebooks of a LAB (08, or 08-services).

    PATH is a notebook, a folder (one notebook or folder per student, or nbgrader's submitted/STUDENT/ASSIGNMENT/),
    or the zip that Canvas or Moodle gave you. Students' code runs in a sandbox; what counts is the cluster's state
    and recorded answers, judged outside of it. Ends with 0 when all were graded, whatever they scored.
    """
    from lab_utils.grading.arena import NO_CLUSTER
    from lab_utils.grading.batch import grade_all, out_folder, outstanding
    from lab_utils.grading.clusters import slots, without_walls
    from lab_utils.grading.discover import discover, real
    from lab_utils.grading.graft import Trusted
    from lab_utils.grading.limits import limits_with
    from lab_utils.grading.results import read_document
    from lab_utils.grading.sandbox import bwrap
    from lab_utils.grading.write import write_all
    from lab_utils.labs.catalog import find_lab

    chosen = tuple(word.strip() for said in formats for word in said.split(",")) or FORMATS
    if unknown := [word for word in chosen if word not in (*FORMATS, "json")]:
        raise BadInput(f"there is no format {unknown[0]!r}", f"There are: {', '.join(FORMATS)}; results.json is always written")
    files = find_lab(lab)
    if not files.checks.checks:
        raise BadInput(f"lab {files.name} has no checks")
    steps = {step.name for step in files.spec.steps}
    if not steps == set(files.checks.checks) == set(Trusted.read(files.notebook).stubs):
        raise BadInput(f"lab {files.name}: its notebook, lab.json and checks.py speak of different steps", f"Run `lab build {files.name}`")
    needs = files.spec.needs
    if NO_CLUSTER in clusters and (needs.workers or needs.access != "none"):
        raise BadInput(f"lab {files.name} cannot be graded without a cluster", 'Leave out "--cluster none"')
    if twice := [path for path in paths if real(path) == real(out)]:
        raise BadInput(f"results cannot be written into {twice[0]}, where the submissions are", "Choose another folder with --out")
    bwrap()
    limits = limits_with(timeout, cell_timeout)
    watcher = Watcher()
    with out_folder(out, files.name):
        found = discover(list(paths), files.name, limits, out)
        try:
            console = Console()
            work = outstanding(files, found.entries, out, limits, on_cluster=NO_CLUSTER not in clusters)
            with ExitStack() as stack:
                if work.todo or not (out / "results.json").exists():
                    enough, may_reset = max(1, len(work.todo)), not no_reset
                    ready, cluster = stack.enter_context(
                        slots(files, clusters, jobs, enough, console, may_reset=may_reset, keep=keep_clusters)
                    )
                else:  # nothing is left to grade, so no cluster is needed for it
                    ready, cluster = [], read_document(out / "results.json")["cluster"]
                if ready and needs.access == "change" and (open_ones := without_walls(cluster["names"])):
                    console.note(
                        f"in this lab a student's code is root on the nodes; those of {', '.join(open_ones)} share this machine's kernel: "
                        "whom you do not trust with this machine, grade behind user namespaces (lab up --guarded) or on virtual machines"
                    )
                grades = grade_all(files, found.entries, out, ready, limits, watcher, work)
            write_all(out, files.spec, grades, found.ignored, cluster, chosen, canvas_assignment)
        finally:
            found.cleanup()
    for name in found.ignored:
        click.echo(f"   not graded, ignored: {name}", err=True)
    if any(name.lower().endswith(".ipynb") for name in found.ignored):
        click.echo("   of a student's folder one notebook counts. Is it the folder of a group? Then give it by itself", err=True)
    failed = [each for each in grades if each.status == "error"]
    rejected = sum(each.status == "rejected" for each in grades)
    click.echo(
        f"{len(grades)} submissions of {files.name}: {len(grades) - rejected - len(failed)} graded, {rejected} rejected. Results: {out}"
    )
    broken = [step for each in grades for step in each.steps if step.status == "error"]
    if broken:  # a check of ours, or a cluster that did not answer: nobody's points should hang on it unseen
        click.echo(f"lab: {len(broken)} steps could not be judged (first {broken[0].step!r}: {broken[0].message})", err=True)
    if failed:
        click.echo(f"lab: {len(failed)} could not be graded ({failed[0].message})", err=True)
    return 1 if failed else 0


class Watcher:
    """One line per submission on stderr, with the time that is left."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def begun(self, total: int, kept: int) -> None:
        more = f"; {kept} have been graded before and did not change" if kept else ""
        click.echo(f"{total} submissions{more}", err=True)

    def finished(self, grade: Any, left: int, eta: float) -> None:
        mark = {"graded": "✓", "rejected": "–", "error": "✗"}[grade.status]
        score = f"{grade.score}/{grade.max_score}" if grade.status == "graded" else grade.status
        rest = f"{left} left, about {_duration(eta)}" if left else f"all done in {_duration(time.monotonic() - self.start)}"
        why = f" ({grade.message[:100]})" if grade.message else ""
        self._line(f" {mark} {grade.student[:40]:<24} {score:>9}  {grade.seconds:6.1f} s   {rest}{why}")

    def again(self, entry: Any, why: str) -> None:
        self._line(f" ↻ {entry.student[:40]:<24} is graded once more; the first time something went wrong here: {both_ends(why)}")

    def _line(self, text: str) -> None:
        click.echo(text.encode(sys.stderr.encoding or "utf-8", "replace").decode(sys.stderr.encoding or "utf-8"), err=True)


def both_ends(why: str, most: int = 300) -> str:
    """Of a command that failed, what it was stands first and what it said last. Pure."""
    return why if len(why) <= most else f"{why[: most // 3]} … {why[-(most * 2 // 3) :]}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 90 else f"{round(whole / 60)} min" if whole < 5400 else f"{whole / 3600:.1f} h"
