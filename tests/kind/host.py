"""What dockerd and kubelets in containers change for the whole machine, namespaces or not: looked at before, put back, looked at after."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.cluster import leaks

# Written by kubelet ("kernel flags that it relies on"), and by this test.
SYSCTLS = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys"),
    *("kernel/keys/root_maxbytes", "fs/inotify/max_user_instances"),
)
CGROUPS = Path("/sys/fs/cgroup")
GROUP = "docker"  # dockerd's, in each hierarchy

Look = dict[str, set[str]]


def look() -> Look:
    return {
        **leaks.look(),
        "sysctls": {f"{name}={(Path('/proc/sys') / name).read_text().strip()}" for name in SYSCTLS},
        "docker's control groups": {str(path) for path in groups()},
    }


def difference(before: Look, after: Look) -> list[str]:
    return leaks.difference(before, after)


def put_back(before: Look) -> None:
    for line in before["sysctls"]:
        name, _, value = line.partition("=")
        (Path("/proc/sys") / name).write_text(value)
    for top in groups():
        if str(top) not in before["docker's control groups"]:
            _remove(top)


def _remove(top: Path) -> None:
    """The kernel lets go of a group only when the last of its killed processes is gone."""
    deadline = time.monotonic() + 20
    while top.exists():
        try:
            for folder, _, _ in os.walk(top, topdown=False):
                Path(folder).rmdir()
        except OSError:
            if time.monotonic() > deadline:
                return  # the comparison tells
            time.sleep(0.2)


def groups() -> list[Path]:
    return [path for path in (*CGROUPS.glob(GROUP), *CGROUPS.glob(f"*/{GROUP}")) if path.is_dir()]
