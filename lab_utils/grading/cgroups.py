"""A cgroup per sandbox, where this machine lets us make one: limits for all of its processes together.

Both layouts are known: version 1 (a tree per controller) and version 2 (one tree). What cannot be made is
left out and said in the results; the rlimits of each process hold in any case.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PREFIX = "lab-grade"


@dataclass
class Cgroup:
    folders: list[Path] = field(default_factory=list)
    limited: list[str] = field(default_factory=list)  # "memory", "pids", "cpu": what really holds
    entries: list[int] = field(default_factory=list)  # open cgroup.procs, written between fork and exec

    def enter(self) -> None:
        """Move the calling process in. Runs between fork and exec, so it does nothing but write."""
        for entry in self.entries:
            os.write(entry, b"0")

    def out_of_memory(self) -> bool:
        """Whether the kernel had to kill something in here for memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with suppress(OSError):
                    words = (folder / name).read_text().split()
                    if int(dict(zip(words[::2], words[1::2], strict=False)).get("oom_kill", 0)) > 0:
                        return True
        return False

    def remove(self) -> None:
        for entry in self.entries:
            os.close(entry)
        self.entries.clear()
        for folder in self.folders:
            for _ in range(100):  # its processes were killed; they leave within moments
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.02)
                else:
                    break
        self.folders.clear()


def make(name: str, memory_bytes: int, processes: int) -> Cgroup:
    group = Cgroup()
    wanted = {
        "memory": {"memory.limit_in_bytes": memory_bytes, "memory.max": memory_bytes, "memory.swap.max": 0},
        "pids": {"pids.max": processes},
        # Their usual values: what counts is that all processes of a sandbox together have the share of one group.
        "cpu": {"cpu.shares": 1024, "cpu.weight": 100},
    }
    for controller, values in wanted.items():
        for parent in _parents(controller):
            folder = parent / name
            try:
                folder.mkdir(exist_ok=True)
            except OSError:
                continue
            if _limit(folder, values):
                group.limited.append(controller)
                if folder not in group.folders:
                    group.folders.append(folder)
                    group.entries.append(os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
                break
            if folder not in group.folders:
                with suppress(OSError):
                    folder.rmdir()
    return group


def sweep() -> None:
    """Remove the empty groups of graders that were killed. Their names end with the process that made them."""
    for controller in ("memory", "pids", "cpu"):
        for parent in _parents(controller):
            for folder in parent.glob(f"{PREFIX}-*"):
                if not Path("/proc", folder.name.removeprefix(f"{PREFIX}-")).exists():
                    with suppress(OSError):
                        folder.rmdir()


def _parents(controller: str) -> list[Path]:
    """Where a group with this controller might be made: below our own group, else at the top."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            found += [ROOT / controller / path.lstrip("/"), ROOT / controller]
        elif not controllers and (ROOT / "cgroup.controllers").exists():
            found += [ROOT / path.lstrip("/"), ROOT]
    return found


def _limit(folder: Path, values: dict[str, int]) -> bool:
    """Write those limits that exist in this layout; true when the controller's own one took."""
    took = False
    for name, value in values.items():
        if not (folder / name).exists():
            continue
        try:
            (folder / name).write_text(str(value))
        except OSError:
            continue
        took = took or not name.endswith("swap.max")
    return took
