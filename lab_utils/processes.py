"""The processes of a node, which of them are in containers, and who started whom.

    found = look(cluster.node("w1"))            # a list of Process: program, parent, container or not, which Pod
    draw.processes({"cp": …, "w1": …})          # lab_utils.draw

Two questions are kept apart. *Whose child* a process is, the kernel says (ppid). *Where* it runs is asked of its ancestors: containerd
starts one containerd-shim for each Pod, and what is below a shim is in a container. A shim's own parent is process 1: containerd starts it
through a process that ends at once, so that the shim outlives containerd.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.cluster import Node

SHIM = "containerd-shim"
# One line for each process, of the kernel's own and the shell's no more than there is; then what the runtime knows of its containers.
SCRIPT = r"""
ps -e -o pid=,ppid=,args= -ww | cut -c1-600
echo ---
crictl pods -o json 2>/dev/null || echo '{}'
"""


@dataclass(frozen=True)
class Process:
    """One process of a node. `pod` is "namespace/name" for a shim and all below it; `file` says whether its Pod came from a file."""

    pid: int
    ppid: int
    args: str
    kind: str  # "unit": started by systemd; "shim"; "pause"; "container"; "other"
    pod: str = ""
    from_file: bool = False

    @property
    def program(self) -> str:
        words = self.args.split()
        return PurePosixPath(words[0].rstrip(":")).name if words else ""

    @property
    def contained(self) -> bool:
        return self.kind in ("pause", "container")


@dataclass(frozen=True)
class Sandbox:
    id: str
    pod: str
    from_file: bool


def look(node: Node) -> list[Process]:
    listing, _, pods = node.run(SCRIPT, check=True).stdout.partition("\n---\n")
    return classify(read_ps(listing), read_sandboxes(pods))


def read_ps(text: str) -> list[tuple[int, int, str]]:
    """(pid, parent, command line), from `ps -o pid=,ppid=,args=`."""
    found = []
    for line in text.splitlines():
        words = line.split(None, 2)
        if len(words) == 3 and words[0].isdigit() and words[1].isdigit():
            found.append((int(words[0]), int(words[1]), words[2]))
    return found


def read_sandboxes(text: str) -> list[Sandbox]:
    """From `crictl pods -o json`. The kubelet notes where it has a Pod from: a file, or the API (kubernetes.io/config.source)."""
    found = []
    for item in json.loads(text or "{}").get("items") or []:
        about: Mapping[str, Any] = item["metadata"]
        source = (item.get("annotations") or {}).get("kubernetes.io/config.source", "")
        found.append(Sandbox(item["id"], f"{about['namespace']}/{about['name']}", source == "file"))
    return found


def classify(listing: Iterable[tuple[int, int, str]], sandboxes: Sequence[Sandbox]) -> list[Process]:
    rows = {pid: (parent, args) for pid, parent, args in listing}
    shims = {pid: _sandbox(args, sandboxes) for pid, (_, args) in rows.items() if _program(args).startswith(SHIM)}
    found = []
    for pid, (parent, args) in sorted(rows.items()):
        above = _shim_above(pid, rows, shims)
        owner = shims[above] if above else None
        if pid in shims:
            kind = "shim"
        elif above:
            kind = "pause" if _program(args) == "pause" and parent == above else "container"
        else:
            kind = "unit" if parent == 1 and pid != 1 else "other"
        found.append(Process(pid, parent, args, kind, owner.pod if owner else "", bool(owner and owner.from_file)))
    return found


def _shim_above(pid: int, rows: Mapping[int, tuple[int, str]], shims: Mapping[int, Sandbox | None]) -> int:
    """The shim that this process is, or is below of; 0 when there is none."""
    seen: set[int] = set()
    while pid in rows and pid not in seen:
        if pid in shims:
            return pid
        seen.add(pid)
        pid = rows[pid][0]
    return 0


def _sandbox(args: str, sandboxes: Sequence[Sandbox]) -> Sandbox | None:
    """A shim is told the id of its sandbox: containerd-shim-runc-v2 -namespace k8s.io -id ID -address …"""
    return next((each for each in sandboxes if each.id in args), None)


def _program(args: str) -> str:
    return PurePosixPath(args.split()[0]).name if args.strip() else ""
