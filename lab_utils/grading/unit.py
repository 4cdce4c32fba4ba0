"""The unit of grading: one submission, one cluster, one result. It knows nothing of batches, folders or reports.

    python -m lab_utils.grading.unit JOB.json      one line of JSON per event on stdout, the last one the grade

The batch runs it in a process of its own; past one machine, that process is a Pod.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lab_utils.errors import LabError
from lab_utils.grading import cgroups
from lab_utils.grading.arena import NO_CLUSTER, RECORD, Access, Arena, NoArena
from lab_utils.grading.discover import Entry
from lab_utils.grading.engine import execute
from lab_utils.grading.graft import Planned, Trusted, as_notebook, plan
from lab_utils.grading.kernel import Kernel, Outcome
from lab_utils.grading.limits import Limits
from lab_utils.grading.relay import Relay
from lab_utils.grading.results import Grade, Shown, StepGrade, not_executed, number, rejected
from lab_utils.grading.sandbox import ANSWERS, View
from lab_utils.grading.scratch import Scratch
from lab_utils.grading.submission import Rejected, Submission, read_file, read_submission
from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.context import CheckContext
from lab_utils.labs.outcome import CheckResult
from lab_utils.labs.spec import LabSpec
from lab_utils.labs.store import Store

COURSE = "/course"  # where the sandbox shows the lab's own files
Tell = Callable[[dict[str, Any]], None]


@dataclass
class Job:
    """All that a unit needs, as plain JSON."""

    lab: str
    root: str  # of the trusted labs
    entry: Entry
    cluster: str = NO_CLUSTER
    limits: Limits = field(default_factory=Limits)
    baseline: dict[str, Any] = field(default_factory=dict)  # the cluster's pristine state
    may_reset: bool = True
    verified: bool = False  # that the cluster is pristine: the submission before was seen to leave it so

    @classmethod
    def from_json(cls, text: str) -> Job:
        data = json.loads(text)
        entry = data.pop("entry")
        entry["path"] = Path(entry["path"]) if entry["path"] else None
        return cls(entry=Entry(**entry), limits=Limits(**data.pop("limits")), **data)

    def as_json(self) -> str:
        return json.dumps(asdict(self), default=str)


def grade(job: Job, tell: Tell = lambda event: None) -> Grade:
    """Grade one submission. What a student can do ends as a grade; what raises is the grader's or the cluster's fault."""
    files = LabFiles(job.lab, Path(job.root))
    spec = files.spec
    trusted = Trusted.read(files.notebook)
    begun = time.monotonic()
    try:
        if job.entry.path is None:
            raise Rejected(job.entry.refused or "there is no file")
        data = read_file(job.entry.path, job.limits.notebook_bytes)
        submission = read_submission(data, spec.name, [step.name for step in spec.steps], trusted.stubs, job.limits)
    except Rejected as why:
        return rejected(job.entry, spec, str(why))
    result = Grade.begin(job.entry, spec)
    result.notes += submission.notes
    with Scratch() as folder:
        _run(job, files, trusted, submission, result, Path(folder), tell)
    result.seconds = round(time.monotonic() - begun, 2)
    return result


def _run(job: Job, files: LabFiles, trusted: Trusted, submission: Submission, result: Grade, folder: Path, tell: Tell) -> None:
    arena = arena_for(job, files.spec, tell)
    learner = submission.learner or result.student
    store = Store(files.name, folder / "store")
    context = CheckContext(files.spec, files.checks, arena.cluster, learner, store)
    clock = time.monotonic()
    try:
        access = arena.enter(context)
        result.waited += time.monotonic() - clock
        kernel = start_kernel(job, files, access, learner)
        relay = Relay(kernel.sandbox.doors, job.limits.connections)
        # The answers are read through the descriptor that was opened inside; it outlives the kernel.
        store.answers_file = Path(f"/proc/self/fd/{kernel.sandbox.answers}/answers.json")
        try:
            planned = plan(trusted, submission, files.spec)
            course = Course(files, context, kernel, planned, result, job.limits, tell)
            execute(as_notebook(planned), course)
            result.message = result.message or kernel.dead
        finally:
            relay.close()
            kernel.close()
            access.close()
    finally:
        clock = time.monotonic()
        result.harm = arena.leave(context)
        result.waited = round(result.waited + time.monotonic() - clock, 2)
        result.finish(
            files.spec, f"not executed: {result.message}" if result.message else "not executed: the notebook holds no cell for it"
        )


def arena_for(job: Job, spec: LabSpec, tell: Tell) -> Arena:
    if job.cluster == NO_CLUSTER:
        return NoArena()
    if spec.needs.bare:
        from lab_utils.grading.bare import BareArena

        return BareArena(job.cluster)
    from lab_utils.grading.pristine import ClusterArena

    return ClusterArena(job.cluster, job.baseline, job.limits, tell, may_reset=job.may_reset, verified=job.verified)


def start_kernel(job: Job, files: LabFiles, access: Access, learner: str) -> Kernel:
    view = View({f"{COURSE}/labs/{files.name}": files.folder, **access.shown}, access.files)
    env = {
        "LAB_ROOT": COURSE,
        "LAB_ANSWERS": f"{ANSWERS}/answers.json",
        "LAB_CLUSTER_FILE": RECORD,
        "LAB_LEARNER": learner,
    }
    return Kernel(f"{cgroups.PREFIX}-{os.getpid()}", view, env, job.limits, access.doors)


class Course:
    """Runs the planned cells in order and checks each step after its last cell (an engine.Runner)."""

    def __init__(
        self, files: LabFiles, context: CheckContext, kernel: Kernel, planned: list[Planned], result: Grade, limits: Limits, tell: Tell
    ) -> None:
        self.files = files
        self.context = context
        self.kernel = kernel
        self.planned = planned
        self.result = result
        self.limits = limits
        self.tell = tell
        self.left = limits.total_seconds
        self.cells: list[Shown] = []
        self.executed = False

    def run_cell(self, index: int, source: str) -> Outcome:
        one = self.planned[index]
        if not self.kernel.dead and self.left <= 0:
            self.kernel.stop(f"the notebook's time ({self.limits.total_seconds:g} s) was over")
        if not self.kernel.dead:
            for fault in one.inject:
                self._inject(fault)
        allowed = self.limits.cell_seconds if one.step else max(self.limits.cell_seconds, self.limits.given_seconds)
        outcome = self.kernel.run(source, min(allowed, self.left))
        self.left -= outcome.seconds
        return outcome

    def _inject(self, fault: dict[str, Any]) -> None:
        from lab_utils.faults import inject

        clock = time.monotonic()
        try:
            inject(self.context, fault["fault"], **fault.get("options", {}))
        except Exception:
            # That there is nothing to break is the student's doing: a Service that was deleted, a probe that was taken out. Where
            # the student makes the cluster, so is whatever its API answers. A cluster of ours that does not answer is our affair.
            if not self.context.spec.needs.bare and not self._answers():
                raise
            self.result.notes.append(f"the fault {fault['fault']} could not be injected: what it breaks is not there, or does not answer")
        self.result.waited += time.monotonic() - clock

    def _answers(self) -> bool:
        try:
            return self.context.cluster.kubectl("get", "--raw", "/readyz", check=False, timeout=30).ok
        except LabError:
            return False

    def after_cell(self, index: int, outcome: Outcome) -> None:
        one = self.planned[index]
        if not one.step:
            return
        shown = Shown(one.source, outcome.end, outcome.note, round(outcome.seconds, 2), [asdict(output) for output in outcome.outputs])
        self.cells.append(shown)
        self.executed = self.executed or outcome.end != "skipped"
        if one.last:
            self._check(one.step)
            self.cells, self.executed = [], False

    def _check(self, name: str) -> None:
        step = self.context.spec.step(name)
        if self.executed:
            from lab_utils.checks import run_checks

            clock = time.monotonic()
            checked = run_checks(self.context.checkset, self.context, only=name)[0]
            self.result.waited += time.monotonic() - clock
            if checked.missing and self.context.cluster.provider in HAVE_ALL:
                checked = self.context.results[name] = counted(checked)
            grade = StepGrade.of(checked, step.title, self.cells)
            if (ended := [cell.note for cell in self.cells if cell.note]) and not checked.passed:
                grade.message += f" (its cell ended with: {ended[-1]})"
        else:
            grade = not_executed(self.context.spec, name, f"not executed: {self.kernel.dead}")
            grade.cells = self.cells
            self.context.results[name] = CheckResult(name, step.points, 0, "failed", message=grade.message)
        self.result.steps.append(grade)
        self.tell({"event": "step", "step": name, "earned": number(grade.earned), "points": grade.points})


# Clusters whose nodes are made by this course, with all that its labs look for. kind's image, and somebody's own nodes, may lack a tool
# or have another network; there a step that cannot be checked is left out of the sum, as in the notebook.
HAVE_ALL = ("embedded", "vagrant")


def counted(skipped: CheckResult) -> CheckResult:
    """What a check misses after the student's code has run was taken away by it, and is no way to leave a step out of the sum."""
    message = f"{skipped.missing} is not there (any more), and the check cannot do without; when graded, these points count"
    return replace(skipped, status="failed", earned=0, message=message, missing="")


def main() -> None:
    """Grade the job in a file, for whatever starts units one by one."""
    job = Job.from_json(Path(sys.argv[1]).read_text())

    def say(event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)

    try:
        say({"event": "grade", "grade": asdict(grade(job, say))})
    except LabError as error:
        say({"event": "failed", "why": str(error)})
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
