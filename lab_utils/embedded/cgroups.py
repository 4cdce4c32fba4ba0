"""Where a node's processes live among the host's control groups.

Three layouts are met in the wild, told apart by what is mounted on /sys/fs/cgroup:

    v2      one unified tree. A group with processes in it cannot hand controllers to its children
            (cgroup-v2.rst, "No Internal Process Constraint"), so a node gets a group whose own
            processes sit in a leaf. Under systemd that group is a delegated scope
            (systemd.io/CGROUP_DELEGATION), elsewhere it is made below the nearest ancestor that delegates.
    v1      one tree per controller; a node gets a group in each, below our own.
    hybrid  v1 with an empty v2 tree beside it (on `unified`), which is taken along.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab_utils.errors import HostLacks
from lab_utils.run import run

ROOT = Path("/sys/fs/cgroup")
V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
CONTROL = "cgroup.subtree_control"
NEEDED_ON_V2 = ("cpu", "cpuset", "io", "memory", "pids")


@dataclass(frozen=True)
class Place:
    """The groups of one node: what to make, and what to prefix the node's first command with. On v2, `divide` is the one group."""

    groups: list[Path]
    launcher: list[str]
    divide: Path | None = None

    @property
    def enter(self) -> list[Path]:
        """The files that a process writes its pid to in order to move in."""
        return [group / "cgroup.procs" for group in ([self.divide / "node"] if self.divide else self.groups)]


def version() -> str:
    if (ROOT / "cgroup.controllers").exists():
        return "v2"
    if any((ROOT / controller).is_dir() for controller in V1_CONTROLLERS):
        return "v1"
    raise HostLacks("no control groups are mounted on /sys/fs/cgroup", "Mount cgroup2 there: mount -t cgroup2 none /sys/fs/cgroup")


def own_groups(text: str) -> dict[str, str]:
    """/proc/self/cgroup as controller → path; the v2 line has the key "". Pure."""
    found = {}
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name.removeprefix("name=")] = path
    return found


def under_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()  # sd_booted(3)


def place(unit: str) -> Place:
    """Where the node called `unit` (unique on this machine) belongs."""
    mine = own_groups(Path("/proc/self/cgroup").read_text())
    if version() == "v1":
        trees = {name: ROOT / name for name in V1_CONTROLLERS if (ROOT / name).is_dir()}
        groups = [tree / mine.get(name, "/").lstrip("/") / unit for name, tree in trees.items()]
        if (ROOT / "unified").is_dir():
            groups.append(ROOT / "unified" / mine.get("", "/").lstrip("/") / unit)
        return Place(groups, [])
    if under_systemd():
        scope = f"{unit}.scope"
        # A node's systemd takes SIGTERM as the word to start itself again (systemd(1)): a host that shuts down would wait for it in vain.
        properties = ["-p", "Delegate=yes", "-p", "KillSignal=SIGKILL"]
        launcher = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={scope}", "--slice=system.slice", *properties, "--"]
        group = ROOT / "system.slice" / scope
        return Place([group], launcher, group)
    group = _delegating_ancestor() / unit
    return Place([group], [], group)


def make(spot: Place) -> None:
    """Make the groups, ready to be entered. Under systemd the scope itself appears with its first process."""
    if spot.launcher:
        # A scope whose processes were killed a moment ago may not be closed yet, and its name not free.
        run(["systemctl", "stop", spot.groups[0].name], check=False)
        return
    for group in spot.groups:
        group.mkdir(parents=True, exist_ok=True)
        if (group / "cpuset.cpus").exists() and version() == "v1":
            # A v1 cpuset starts empty and takes no process until both files are filled.
            for name in ("cpuset.cpus", "cpuset.mems"):
                (group / name).write_text((group.parent / name).read_text())
            (group / "cgroup.clone_children").write_text("1")


GUARDED_PROCESSES, GUARDED_BYTES = 8192, 3 * 2**30  # of one node; a cluster with an idle lab on it uses a tenth of both


def delegate(spot: Place, owner: int) -> None:
    """Let somebody else divide these groups (cgroups(7), "Delegation"), within limits that stay ours."""
    handed = ("cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads", "cgroup.clone_children")
    if spot.divide:
        return  # on v2, boot.sh hands over what it divides off: under systemd the group is there only when its first process is
    for group in spot.groups:
        os.chown(group, owner, owner)
        for name in handed:
            if (group / name).exists():
                os.chown(group / name, owner, owner)
        for name, limit in (("pids.max", GUARDED_PROCESSES), ("memory.limit_in_bytes", GUARDED_BYTES)):
            if (group / name).exists():
                (group / name).write_text(str(limit))


def processes(groups: list[Path]) -> list[int]:
    """Every process in these groups and below."""
    found: set[int] = set()
    for group in groups:
        for path in [group, *_below(group)]:
            try:
                found.update(int(line) for line in (path / "cgroup.procs").read_text().split())
            except (OSError, ValueError):
                continue  # gone meanwhile, or a threaded group
    return sorted(found)


def kill(groups: list[Path], seconds: float = 60) -> None:
    """End every process in these groups: the node's own, whatever its pid 1 still knows of them."""
    deadline = time.monotonic() + seconds
    while pids := processes(groups):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if time.monotonic() > deadline:
            raise HostLacks(
                f"processes {', '.join(map(str, pids[:5]))} of the node do not end", "They hang in the kernel; a reboot ends them"
            )
        time.sleep(0.02)


def remove(groups: list[Path]) -> None:
    """Remove emptied groups, depth first.

    Left-over groups are not only dirt: a kubelet that boots among them spends seconds on each (its cAdvisor
    asks every one for its container).
    """
    for group in groups:
        for path in [*reversed(list(_below(group))), group]:
            for _ in range(100):
                try:
                    path.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:  # a dying process is still counted for a moment
                    time.sleep(0.02)


def _below(group: Path) -> list[Path]:
    return [Path(folder) for folder, _, _ in os.walk(group)][1:] if group.is_dir() else []


def dividing() -> list[Path]:
    """The files in which `place` may let the groups on the way up hand controllers to their children; the lowest first. On v1 and under
    systemd there are none."""
    if version() == "v1" or under_systemd():
        return []
    mine = own_groups(Path("/proc/self/cgroup").read_text())
    group = ROOT / mine.get("", "/").lstrip("/")
    return [one / CONTROL for one in (group, *group.parents) if one.is_relative_to(ROOT) and (one / CONTROL).exists()]


def keep_back(control: Path, before: str) -> None:
    """Take from a group's children what it did not hand to them before. Where they make use of it meanwhile, the kernel keeps it."""
    for name in set(control.read_text().split()) - set(before.split()):
        with suppress(OSError):
            control.write_text(f"-{name}")


def _delegating_ancestor() -> Path:
    """The nearest group above (or at) ours that gives, or can be made to give, its children what a node needs."""
    for control in dividing():
        try:
            missing = set(NEEDED_ON_V2) - set(control.read_text().split())
            if missing:
                control.write_text(" ".join(f"+{name}" for name in sorted(missing)))
            return control.parent
        except OSError:
            continue
    raise HostLacks(
        "no control group here can be divided (every one on the way up has processes or lacks controllers)",
        "Start from a delegated group, for example a container with its own cgroup namespace",
    )
