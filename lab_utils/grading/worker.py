"""Each submission is graded in a process of its own, forked from one that has everything imported.

A process, because what a hostile kernel sends is read there: whatever it does to that process, the batch and
the other submissions do not notice. Forked, because importing papermill takes longer than starting a kernel.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

from lab_utils.errors import LabError
from lab_utils.grading.results import Grade
from lab_utils.grading.unit import Job, grade

PR_SET_PDEATHSIG = 1
DATA_BYTES = 2 * 2**30  # of private memory; a kernel that floods us ends this process, not the machine
RESET_SECONDS = 900  # a cluster may have to be made anew within one submission


class WorkerFailed(Exception):
    """The process that graded a submission did not come to an end of its own."""


def context() -> multiprocessing.context.ForkServerContext:
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["lab_utils.grading.worker", "lab_utils.lab", "kubernetes.client", "ipykernel.kernelspec"])
    return made


def warm_up() -> None:
    """Start the process that all others are forked from. Ctrl-C is not for it, not even while it imports."""
    context()
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def grade_apart(job: Job, on_event: Callable[[dict[str, Any]], None], stopped: Callable[[], bool]) -> Grade:
    """Grade in another process; `WorkerFailed` when it dies, hangs, or is stopped."""
    ours, theirs = context().Pipe()
    process = context().Process(target=_work, args=(job.as_json(), theirs), name=f"grade {job.entry.submission}")
    process.start()
    theirs.close()
    deadline = time.monotonic() + job.limits.total_seconds + 20 * job.limits.check_seconds + RESET_SECONDS
    try:
        while True:
            if ours.poll(0.2):
                try:
                    event = ours.recv()
                except EOFError:
                    process.join(10)
                    raise WorkerFailed(f"the process that graded it ended with code {process.exitcode}") from None
                if event["event"] == "grade":
                    process.join(10)
                    return Grade.from_dict(event["grade"])
                if event["event"] == "failed":
                    process.join(10)  # a signal in the middle of its end would be a traceback
                    raise WorkerFailed(event["why"])
                on_event(event)
            elif stopped():
                raise WorkerFailed("stopped")
            elif time.monotonic() > deadline:
                raise WorkerFailed("it took longer than all its limits together")
    finally:
        if process.is_alive():
            process.terminate()  # it still gives back what it holds on the cluster
            process.join(60)
        if process.is_alive():
            process.kill()
            process.join(10)
        process.close()
        ours.close()


def _end_with_the_batch(events: Connection) -> None:
    """The batch never sends anything, so what can be read here is the end of it: killed, most likely.

    (The death signal does not tell: the process that we were forked from lives as long as one of us does.)
    """
    select.select([events], [], [])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(90)  # for giving back what we hold on the cluster
    os._exit(143)


def _work(job: str, events: Connection) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # and bubblewrap dies with us, with all that is in it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the batch, which then ends us
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    threading.Thread(target=_end_with_the_batch, args=(events,), daemon=True).start()
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES if hard == resource.RLIM_INFINITY else min(DATA_BYTES, hard), hard))
    with suppress(BrokenPipeError):
        try:
            events.send({"event": "grade", "grade": asdict(grade(Job.from_json(job), events.send))})
        except LabError as error:
            events.send({"event": "failed", "why": str(error)})
        except MemoryError:
            events.send({"event": "failed", "why": "grading it took more memory than allowed"})
        except Exception as error:
            import traceback

            where = traceback.extract_tb(error.__traceback__)[-1]
            events.send({"event": "failed", "why": f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"})
