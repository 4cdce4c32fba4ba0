"""Ask a live cluster for a snapshot. One round trip a node: a shell script there prints everything in sections."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from lab_utils.cluster import Cluster, Node
from lab_utils.errors import Unhealthy
from lab_utils.links.namespace import COMMANDS
from lab_utils.snapshot.model import NodeSnapshot, Sandbox, Snapshot
from lab_utils.snapshot.prune import CRICTL, prune, prune_object

# What is asked on the node itself: section → command. A program that is missing leaves its section empty.
NODE_COMMANDS = {
    "kernel": "cat /proc/sys/kernel/random/boot_id",
    "inode": "stat -Lc %i /proc/self/ns/net",
    "names": "stat -Lc '%i %n' /run/netns/*",
    "iptables": "iptables-save",
    "ip6tables": "ip6tables-save",
    "nft": "nft -j list ruleset",
    "ipset": "ipset save",
    "crictl-pods": "crictl pods -o json",
    "crictl-ps": "crictl ps -o json",
}

# Pods of one node share what `crictl` costs: a sandbox's process is asked for one by one, its namespace read once.
SANDBOXES = """
for id in $(crictl pods -q --state ready 2>/dev/null); do
  pid=$(crictl inspectp -o go-template --template '{{.info.pid}}' "$id" 2>/dev/null) || continue
  inode=$(stat -Lc %i "/proc/$pid/ns/net" 2>/dev/null) || continue
  section "sandbox $id $pid $inode"
  [ "$inode" = "$host" ] && continue
"""


def script(boundary: str) -> str:
    """The shell script for a node. `boundary` cannot occur in anything that is printed."""
    lines = [f"section() {{ printf '\\n%s %s\\n' {shlex.quote(boundary)} \"$1\"; }}", "host=$(stat -Lc %i /proc/self/ns/net)"]
    for name, command in NODE_COMMANDS.items():
        lines.append(f"section {shlex.quote(name)}; {command} 2>/dev/null")
    for name, command in COMMANDS.items():
        lines.append(f"section {shlex.quote('host ' + name)}; {command} 2>/dev/null")
    lines.append(SANDBOXES)
    for name, command in COMMANDS.items():
        lines.append(f'  section "in $id {name}"; nsenter -t "$pid" -n {command} 2>/dev/null')
    return "\n".join([*lines, "done", "section end", "true"])


def sections(text: str, boundary: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(f"\n{boundary} ")[1:]:
        head, _, body = part.partition("\n")
        found[head] = body
    if "end" not in found:
        raise ValueError("the output stops in the middle")
    return found


def record_node(node: Node) -> NodeSnapshot:
    boundary = f"==={secrets.token_hex(12)}==="
    result = node.run(script(boundary), check=True, timeout=120)
    try:
        return read_sections(node.name, node.ip, node.role, sections(result.stdout, boundary))
    except ValueError as error:
        raise Unhealthy(f"what node {node.name} printed about its network cannot be read ({error})", "Run it again") from None


def read_sections(name: str, ip: str, role: str, found: Mapping[str, str]) -> NodeSnapshot:
    """A node's snapshot from the sections that the script printed. Pure."""
    crictl_pods = _json(found["crictl-pods"], {})
    who = {str(item["id"]): item["metadata"] for item in crictl_pods.get("items") or []}
    boxes = []
    for head in found:
        if head.startswith("sandbox "):
            _, identity, pid, inode = head.split()
            if identity not in who:
                continue  # gone, or come, while the script was running
            outputs = {key: _json(found[f"in {identity} {key}"], []) for key in COMMANDS} if f"in {identity} link" in found else None
            if outputs is not None and not outputs["link"]:
                continue  # its process ended between two lines of the script
            boxes.append(Sandbox(identity, str(who[identity]["namespace"]), str(who[identity]["name"]), int(pid), int(inode), outputs))
    return NodeSnapshot(
        name=name,
        ip=ip,
        role=role,
        kernel=found["kernel"].strip(),
        inode=int(found["inode"]),
        iptables=found["iptables"],
        ip6tables=found["ip6tables"],
        nft=found["nft"],
        ipset=found["ipset"],
        names={
            path.rpartition("/")[2]: int(inode)
            for inode, _, path in (line.partition(" ") for line in found["names"].splitlines())
            if inode.isdigit()
        },
        outputs={key: _json(found[f"host {key}"], []) for key in COMMANDS},
        sandboxes=tuple(sorted(boxes, key=lambda box: (box.namespace, box.name))),
        crictl_pods=prune(crictl_pods, CRICTL),
        crictl_ps=prune(_json(found["crictl-ps"], {}), CRICTL),
    )


def _json(text: str, otherwise: Any) -> Any:
    return json.loads(text) if text.strip() else otherwise


def record(cluster: Cluster) -> Snapshot:
    """Everything, from all nodes at the same time, so that the parts fit together."""
    with ThreadPoolExecutor(max_workers=len(cluster.nodes) + 1) as pool:
        objects = pool.submit(cluster.get, "pods,services,endpointslices,nodes", "-A")
        nodes = list(pool.map(record_node, cluster.nodes))
        kept = [prune_object(item) for item in objects.result()["items"]]
    by_kind: dict[str, tuple[Mapping[str, Any], ...]] = {
        kind: tuple(item for item in kept if item["kind"] == kind) for kind in ("Pod", "Service", "EndpointSlice", "Node")
    }
    return Snapshot(
        cluster=cluster.name,
        provider=cluster.provider,
        taken=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(by_kind["Node"]),
        nodes=tuple(nodes),
        pods=by_kind["Pod"],
        services=by_kind["Service"],
        endpointslices=by_kind["EndpointSlice"],
        api_nodes=by_kind["Node"],
    )


def versions(nodes: tuple[Mapping[str, Any], ...]) -> dict[str, str]:
    """What the nodes say that they run. Different answers are all given."""
    wanted = {"kubernetes": "kubeletVersion", "runtime": "containerRuntimeVersion", "kernel": "kernelVersion", "system": "osImage"}
    told = {
        name: sorted({str(node["status"]["nodeInfo"][key]) for node in nodes if node.get("status", {}).get("nodeInfo")})
        for name, key in wanted.items()
    }
    return {name: ", ".join(values) for name, values in told.items() if values}
