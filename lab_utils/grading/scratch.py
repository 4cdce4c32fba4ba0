"""Temporary folders that do not outlive their grader for long: what one that was killed has left, the next one removes.

They hold students' work. Whoever lives holds a lock on each of its folders; the kernel lets go of it with the process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX = "lab-grading-"
YOUNG = 60  # seconds in which a folder may be made, and not locked yet


class Scratch(tempfile.TemporaryDirectory[str]):
    def __init__(self) -> None:
        super().__init__(prefix=PREFIX)
        self._lock = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def cleanup(self) -> None:
        super().cleanup()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                said = os.fstat(handle)
                if said.st_uid == os.geteuid() and time.time() - said.st_mtime > YOUNG:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
