"""What a snapshot holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab_utils.errors import BadInput

Outputs = Mapping[str, Any]  # key of lab_utils.links.namespace.COMMANDS → what that command printed, parsed


@dataclass(frozen=True)
class Sandbox:
    """One Pod's sandbox on a node. A Pod of the host's network has no namespace of its own, so no outputs either."""

    id: str
    namespace: str
    name: str
    pid: int
    inode: int
    outputs: Outputs | None = None


@dataclass(frozen=True)
class NodeSnapshot:
    name: str
    ip: str
    role: str
    kernel: str = ""  # boot id: nodes with the same one share a kernel, as containers and namespaces do
    inode: int | None = None
    iptables: str = ""
    ip6tables: str = ""
    nft: str = ""
    ipset: str = ""
    names: Mapping[str, int] = field(default_factory=dict)  # /run/netns name → inode
    outputs: Outputs = field(default_factory=dict)
    sandboxes: tuple[Sandbox, ...] = ()
    crictl_pods: Mapping[str, Any] = field(default_factory=dict)
    crictl_ps: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    cluster: str
    provider: str
    taken: str  # UTC, ISO 8601
    nodes: tuple[NodeSnapshot, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    pods: tuple[Mapping[str, Any], ...] = ()
    services: tuple[Mapping[str, Any], ...] = ()
    endpointslices: tuple[Mapping[str, Any], ...] = ()
    api_nodes: tuple[Mapping[str, Any], ...] = ()

    def node(self, name: str) -> NodeSnapshot:
        for node in self.nodes:
            if node.name == name:
                return node
        raise BadInput(f"there is no node {name!r} in this snapshot", f"It has: {', '.join(node.name for node in self.nodes) or 'none'}")
