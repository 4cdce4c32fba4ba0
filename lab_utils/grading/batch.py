"""Many submissions, one after another or on several clusters at once: resumed, never stopped by one of them.

Each grade is written down when it is made (`OUT/state/`), under a fingerprint of everything that it depends
on. A later run takes what has the same fingerprint, so it resumes and regrades what changed and no more.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import queue
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import lab_utils
from lab_utils.errors import BadInput, Busy
from lab_utils.grading import cgroups, scratch
from lab_utils.grading.arena import NO_CLUSTER
from lab_utils.grading.discover import Entry
from lab_utils.grading.limits import Limits
from lab_utils.grading.results import Grade, read_document
from lab_utils.grading.submission import Rejected, read_file
from lab_utils.grading.unit import Job
from lab_utils.grading.worker import WorkerFailed, grade_apart, warm_up
from lab_utils.labs.answers import write_whole
from lab_utils.labs.catalog import LabFiles

WRITTEN = ("grades.csv", "canvas.csv", "moodle.csv", "index.html", "reports", "gradescope")  # beside results.json and state/


@dataclass(frozen=True)
class Slot:
    """One cluster that grades one submission at a time, and how it looked when nobody had touched it."""

    cluster: str
    baseline: dict[str, Any] = field(default_factory=dict)
    may_reset: bool = True


class Watcher(Protocol):
    def begun(self, total: int, kept: int) -> None: ...

    def again(self, entry: Entry, why: str) -> None: ...

    def finished(self, grade: Grade, left: int, eta: float) -> None: ...


@dataclass(frozen=True)
class Work:
    """What a run has to do: who was graded before, by this very grader and course, and who was not."""

    prints: dict[str, str]  # by submission: everything that its grade depends on
    kept: dict[str, Grade]
    todo: list[Entry]


def outstanding(files: LabFiles, entries: Sequence[Entry], out: Path, limits: Limits, *, on_cluster: bool) -> Work:
    versions = course_version(files) + grader_version() + ("" if on_cluster else NO_CLUSTER)
    prints = {entry.submission: fingerprint(entry, versions, limits) for entry in entries}
    kept = {entry.submission: grade for entry in entries if (grade := _kept(out, entry, prints[entry.submission]))}
    return Work(prints, kept, [entry for entry in entries if entry.submission not in kept])


def grade_all(
    files: LabFiles, entries: Sequence[Entry], out: Path, slots: Sequence[Slot], limits: Limits, watcher: Watcher, work: Work
) -> list[Grade]:
    """Every submission's grade, in the order of `entries`."""
    grades = dict(work.kept)
    todo: queue.Queue[Entry] = queue.Queue()
    for entry in work.todo:
        todo.put(entry)
    cgroups.sweep()
    scratch.sweep()
    if todo.qsize():
        warm_up()
    watcher.begun(len(entries), len(grades))
    batch = _Batch(files, out, limits, work.prints, todo, grades, watcher, len(slots), todo.qsize())
    threads = [threading.Thread(target=batch.serve, args=(slot,), name=f"slot {slot.cluster}", daemon=True) for slot in slots]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
    except BaseException:
        batch.stop.set()
        for thread in threads:
            thread.join(90)
        raise
    if batch.broken:
        raise batch.broken
    return [grades[entry.submission] for entry in entries]


@dataclass
class _Batch:
    files: LabFiles
    out: Path
    limits: Limits
    prints: dict[str, str]
    todo: queue.Queue[Entry]
    grades: dict[str, Grade]
    watcher: Watcher
    slots: int
    total: int
    begun: float = field(default_factory=time.monotonic)
    done: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    broken: BaseException | None = None
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)

    def serve(self, slot: Slot) -> None:
        verified = False
        while not self.stop.is_set():
            try:
                entry = self.todo.get_nowait()
            except queue.Empty:
                return
            try:
                verified = self._one(slot, entry, verified)
            except BaseException as error:  # not a submission's doing: a full disk, a bug of ours
                self.broken = error
                self.stop.set()
                return

    def _hear(self, job: Job, event: dict[str, Any]) -> None:
        """A cluster that was reset is compared with how it looked right after that."""
        if event["event"] == "baseline":
            job.baseline = self.baselines[job.cluster] = event["baseline"]

    def _one(self, slot: Slot, entry: Entry, verified: bool) -> bool:
        """Grade one; returns whether the cluster is known to be pristine after it."""
        job = Job(
            self.files.name,
            str(self.files.root),
            entry,
            slot.cluster,
            self.limits,
            self.baselines.get(slot.cluster, slot.baseline),
            slot.may_reset,
            verified,
        )
        grade: Grade | None = None
        for attempt in (1, 2):  # once more, if the grader or its cluster had an accident
            try:
                grade = grade_apart(job, partial(self._hear, job), self.stop.is_set)
                break
            except WorkerFailed as error:
                job.verified = False
                if self.stop.is_set():
                    return False
                if attempt == 2:
                    grade = Grade.begin(entry, self.files.spec)
                    grade.status, grade.message = "error", f"it could not be graded: {error}. Run the same command again"
                    grade.finish(self.files.spec, f"not executed: {error}")
                else:
                    with self.lock:
                        self.watcher.again(entry, str(error))
        assert grade
        grade.fingerprint = self.prints[entry.submission]
        grade.report = f"reports/{slug(entry)}.html"
        write_whole(state_file(self.out, entry), json.dumps(asdict(grade), indent=1) + "\n")
        with self.lock:
            self.grades[entry.submission] = grade
            self.done += 1
            left = self.total - self.done
            self.watcher.finished(grade, left, left * (time.monotonic() - self.begun) / self.done)
        return job.verified if grade.status == "rejected" else grade.status == "graded" and not grade.harm


@contextmanager
def out_folder(path: Path, lab: str) -> Iterator[Path]:
    """The folder for results: made if needed, ours alone while we work, never one of another lab or of somebody else."""
    if path.exists() and not path.is_dir():
        raise BadInput(f"{path} is not a folder", "Give a folder with --out; it is made if it is not there")
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({error.strerror})", "Give another folder with --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another `lab grade` writes into {path}") from None
        try:
            _ours(path, lab)
            yield path
        finally:
            if not (path / "state").exists():  # nothing was graded, so nothing shall be left
                (path / ".lock").unlink(missing_ok=True)
                with suppress(OSError):
                    if made:
                        path.rmdir()


def _ours(path: Path, lab: str) -> None:
    """Whether what lies in the folder was written by us, for this lab; else `BadInput`, before it is written over."""
    if (path / "results.json").exists():
        if (other := read_document(path / "results.json")["lab"]) != lab:
            raise BadInput(f"{path} holds the results of lab {other}", "Choose another folder with --out")
    elif not (path / "state").exists() and (there := [name for name in WRITTEN if (path / name).exists()]):
        raise BadInput(f"{path} holds {', '.join(there)}, not written by this grader", "Choose another folder with --out")


def slug(entry: Entry) -> str:
    """A file name for a submission: readable, safe, and unique by its hash."""
    word = re.sub(r"[^A-Za-z0-9._-]+", "-", entry.student).strip("-.")[:60] or "submission"
    return f"{word}-{hashlib.sha256(entry.submission.encode('utf-8', 'replace')).hexdigest()[:8]}"


def state_file(out: Path, entry: Entry) -> Path:
    return out / "state" / f"{slug(entry)}.json"


def _kept(out: Path, entry: Entry, wanted: str) -> Grade | None:
    """An earlier grade of exactly this; none when anything it depends on has changed, or the grader had failed."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        grade = Grade.from_dict(json.loads(state_file(out, entry).read_text(encoding="utf-8")))
        if grade.fingerprint == wanted and grade.status != "error":
            return grade
    return None


def fingerprint(entry: Entry, versions: str, limits: Limits) -> str:
    digest = hashlib.sha256(versions.encode())
    told = [entry.submission, entry.student, entry.student_id, entry.system, entry.late, entry.timestamp, entry.refused, asdict(limits)]
    digest.update(json.dumps(told).encode())
    if entry.path:
        try:
            digest.update(hashlib.sha256(read_file(entry.path, limits.notebook_bytes)).digest())
        except Rejected as why:
            digest.update(str(why).encode())
    return digest.hexdigest()[:32]


def course_version(files: LabFiles) -> str:
    """What the lab is: all files that its students and its checks read."""
    return _hash(
        path for path in files.folder.rglob("*") if not any(part.startswith((".", "__")) for part in path.relative_to(files.folder).parts)
    )


def grader_version() -> str:
    package = Path(lab_utils.__file__).parent
    paths = [package / "checks.py", package / "lab.py", package / "cluster.py"]
    for name in ("grading", "labs", "faults"):
        paths += (package / name).rglob("*.py")
    return _hash(paths)


def _hash(paths: Any) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
