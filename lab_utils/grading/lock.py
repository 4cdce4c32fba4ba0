"""A cluster that grades is nobody else's: another `lab grade`, `lab up`, `lab reset` or `lab down` would change it under a submission."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from lab_utils.cluster import cluster_dir
from lab_utils.errors import Busy

LOCK = "grading.lock"  # in the cluster's folder; whoever held it and was killed holds it no longer


@contextmanager
def grading(name: str) -> Iterator[None]:
    folder = cluster_dir(name)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another `lab grade` uses cluster {name!r}", "Name another with --cluster") from None
        yield


def leave_alone(name: str) -> None:
    """Refuse to touch a cluster on which a submission is being graded."""
    try:
        lock = (cluster_dir(name) / LOCK).open()
    except OSError:
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"`lab grade` uses cluster {name!r}", "Wait until it has ended, or use another --name") from None
