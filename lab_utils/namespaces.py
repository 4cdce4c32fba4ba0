"""Which Linux namespaces do the processes of a Pod share? Read from /proc, told as a table and as a drawing.

A Linux namespace has no name: two processes are in the same one exactly when /proc/PID/ns/KIND shows the same inode
number for both (see namespaces(7)). That is all that is compared here.

    who = inhabitants(cluster, "shop", "web")      # the pause process and each container's first process
    draw_sharing(who, title="Pod web")
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lab_utils.errors import BadInput

if TYPE_CHECKING:
    from lab_utils.cluster import Cluster, Node

# In the order in which a reader meets them: what a Pod shares first.
KINDS = ("net", "uts", "ipc", "pid", "mnt", "cgroup", "user")
MEANING = {
    "net": "interfaces, addresses, ports",
    "uts": "host name",
    "ipc": "shared memory, queues",
    "pid": "process numbers",
    "mnt": "mounted files",
    "cgroup": "view of cgroups",
    "user": "user numbers",
}
NODE = "the node"


@dataclass(frozen=True)
class Inhabitant:
    """A process and the namespaces it is in: kind → inode number."""

    name: str
    pid: int
    namespaces: Mapping[str, int]


def read_links(text: str) -> dict[int, dict[str, int]]:
    """PID → kind → inode, from lines like `/proc/712/ns/net net:[4026532301]`."""
    found: dict[int, dict[str, int]] = {}
    for pid, kind, inode in re.findall(r"^/proc/(\d+)/ns/(\w+) \w+:\[(\d+)\]$", text, re.M):
        found.setdefault(int(pid), {})[kind] = int(inode)
    return found


def look(node: Node, pids: Mapping[str, int]) -> list[Inhabitant]:
    """The namespaces of processes on a node, and of the node's own first process."""
    everyone = {NODE: 1, **pids}
    paths = " ".join(f"/proc/{pid}/ns/{kind}" for pid in everyone.values() for kind in KINDS)
    text = node.run(f"for link in {paths}; do echo $link $(readlink $link); done", check=True).stdout
    links = read_links(text)
    if gone := [name for name, pid in everyone.items() if pid not in links]:
        raise BadInput(f"there is no process for {', '.join(gone)} on {node.name} any more", "It may just have restarted: look again")
    return [Inhabitant(name, pid, links[pid]) for name, pid in everyone.items()]


def pids_of(node: Node, namespace: str, pod: str) -> dict[str, int]:
    """The pause process and the first process of each running container of a Pod, asked from the container runtime."""

    def ask(command: str, *words: str) -> Any:  # crictl takes options only before names
        return json.loads(node.run(["crictl", command, "-o", "json", *words], check=True).stdout)

    sandboxes = ask("pods", "--namespace", namespace, "--name", f"^{re.escape(pod)}$", "--state", "ready")["items"]
    if not sandboxes:
        raise BadInput(f"there is no sandbox for Pod {pod!r} of {namespace!r} on {node.name}", "See `crictl pods` there")
    sandbox = sandboxes[0]["id"]
    found = {"pause": int(ask("inspectp", sandbox)["info"]["pid"])}
    for container in sorted(ask("ps", "--pod", sandbox).get("containers") or [], key=lambda c: str(c["metadata"]["name"])):
        found[container["metadata"]["name"]] = int(ask("inspect", container["id"])["info"]["pid"])
    return found


def inhabitants(cluster: Cluster, namespace: str, pod: str) -> list[Inhabitant]:
    node = cluster.node(cluster.get("pod", pod, "-n", namespace)["spec"]["nodeName"])
    return look(node, pids_of(node, namespace, pod))


def runs(values: Sequence[object]) -> list[tuple[int, int]]:
    """Neighbours that are equal, as (first, last): `aab` is (0, 1), (2, 2)."""
    edges = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    return [(first, after - 1) for first, after in pairwise(edges) if first < len(values)]


@dataclass(frozen=True)
class Sharing:
    """A drawing: one column for each process, one bar for each namespace, as wide as the processes that are in it."""

    svg: str
    text: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        # On a narrow screen the picture scrolls, instead of shrinking until nobody can read it.
        svg = self.svg.replace("<svg ", '<svg style="min-width:600px;max-width:100%;height:auto" ', 1)
        return {"text/html": f'<figure style="overflow-x:auto;margin:1em 0">{svg}</figure>', "text/plain": self.text}

    def __str__(self) -> str:
        return self.text


def table(who: Sequence[Inhabitant]) -> str:
    head = f"{'':8}" + "".join(f"{one.name:>14}" for one in who)
    rows = [f"{kind:8}" + "".join(f"{one.namespaces[kind]:>14}" for one in who) for kind in KINDS]
    return "\n".join([head, *rows])


LIGHT = (
    "--in:#1d2733;--soft:#5b6875;--pod:#dbe7fb;--podline:#2457b8;--own:#fdeccf;"
    "--ownline:#b45309;--node:#e7e9ec;--nodeline:#7b8794;--card:#fff"
)
DARK = (
    "--in:#e8edf4;--soft:#a7b2bf;--pod:#1f3562;--podline:#8db4ff;--own:#4a3312;"
    "--ownline:#ffb86b;--node:#2b3138;--nodeline:#8994a0;--card:#161b22"
)
# The book's theme and JupyterLab each mark a dark page in their own way; paper is always light.
STYLE = f"""
.ns{{{LIGHT}}}
html[data-theme=dark] .ns,body[data-jp-theme-light=false] .ns{{{DARK}}}
@media print{{html[data-theme] .ns{{{LIGHT}}}}}
.ns text{{font-family:system-ui,sans-serif;fill:var(--in);font-size:13px}}
.ns .soft{{fill:var(--soft);font-size:11px}}
.ns .mono{{font-family:ui-monospace,monospace;font-size:11px}}
.ns .b{{font-weight:650}}
.ns .pod{{fill:var(--pod);stroke:var(--podline)}}
.ns .own{{fill:var(--own);stroke:var(--ownline)}}
.ns .node{{fill:var(--node);stroke:var(--nodeline)}}
.ns .card{{fill:var(--card);stroke:var(--nodeline)}}
.ns .frame{{fill:none;stroke:var(--podline);stroke-width:1.5;stroke-dasharray:5 4}}
"""
LEFT, COLUMN, GAP, ROW, BAR, HEAD = 176, 132, 12, 38, 28, 84


def draw_sharing(who: Sequence[Inhabitant], title: str = "") -> Sharing:
    """Bars in the Pod's colour are shared inside of it; in orange, one container's own; in grey, the node's own."""
    outside = who[0].namespaces
    width = LEFT + len(who) * (COLUMN + GAP) + 8
    height = HEAD + len(KINDS) * ROW + 34
    x = [LEFT + i * (COLUMN + GAP) for i in range(len(who))]
    parts = []
    if len(who) > 1:
        parts.append(f'<rect class="frame" x="{x[1] - 7}" y="8" width="{width - x[1] + 1}" height="{height - 38}" rx="10"/>')
    for at, one in zip(x, who, strict=True):
        middle = at + COLUMN / 2
        parts.append(f'<rect class="card" x="{at}" y="20" width="{COLUMN}" height="46" rx="6"/>')
        parts.append(f'<text class="b" x="{middle}" y="40" text-anchor="middle">{escape(one.name)}</text>')
        parts.append(f'<text class="soft mono" x="{middle}" y="57" text-anchor="middle">pid {one.pid}</text>')
    told = []
    for row, kind in enumerate(KINDS):
        y = HEAD + row * ROW
        parts.append(f'<text class="b mono" x="8" y="{y + 12}">{kind}</text><text class="soft" x="8" y="{y + 26}">{MEANING[kind]}</text>')
        inodes = [one.namespaces[kind] for one in who]
        for first, last in runs(inodes):
            members = [one.name for one in who[first : last + 1]]
            look_like = "node" if inodes[first] == outside[kind] else "pod" if len(members) > 1 else "own"
            span = x[last] + COLUMN - x[first]
            parts.append(f'<rect class="{look_like}" x="{x[first]}" y="{y}" width="{span}" height="{BAR}" rx="5"/>')
            parts.append(f'<text class="mono" x="{x[first] + span / 2}" y="{y + 18}" text-anchor="middle">{inodes[first]}</text>')
            told.append(f"{kind} {inodes[first]}: {', '.join(members)}")
    foot = height - 10
    for at, name, words in ((8, "pod", "shared within the Pod"), (196, "own", "one process's own"), (356, "node", "the node's own")):
        parts.append(f'<rect class="{name}" x="{at}" y="{foot - 10}" width="14" height="12" rx="3"/>')
        parts.append(f'<text class="soft" x="{at + 20}" y="{foot}">{words}</text>')
    label = escape(f"{title or 'Namespaces'}. {'; '.join(told)}", quote=True)
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    svg = (
        f'<svg class="ns" xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">'
        f"<style>{STYLE}</style><title>{escape(title or 'Namespaces')}</title>{''.join(parts)}</svg>"
    )
    return Sharing(svg, table(who))
