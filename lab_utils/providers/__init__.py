"""Providers make and remove clusters. One small protocol; everything above it is the same on all of them.

embedded    nodes are Linux namespaces on this machine
vagrant     nodes are virtual machines
kind        nodes are Docker containers
kubeconfig  a cluster that is already there
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord
from lab_utils.errors import BadInput, HostLacks
from lab_utils.progress import Progress

# Name → module. A module is imported when it is asked for, so that nobody pays for a provider not used.
PROVIDERS = {
    "embedded": "lab_utils.providers.embedded",
    "vagrant": "lab_utils.providers.vagrant",
    "kind": "lab_utils.providers.kind",
    "kubeconfig": "lab_utils.providers.kubeconfig",
}

# What is taken when nobody chose: what starts soonest first. Never somebody's own cluster: that one must be named.
BY_ITSELF = ("embedded", "kind", "vagrant")


@dataclass(frozen=True)
class ClusterSpec:
    """What a user may choose about a cluster."""

    name: str
    workers: int = 2
    proxy_mode: str = "iptables"  # or "nftables"
    metrics_server: bool = False
    bare: bool = False  # nodes with the packages, and nothing of Kubernetes running
    guarded: bool = False  # embedded: a user namespace around each node, so that its root is nobody on this machine
    storage: bool = False  # local-path-provisioner and its StorageClass
    ingress: bool = False  # Contour with Envoy
    images: tuple[str, ...] = ()  # beside those that every node has
    network_policy: str = ""  # an engine that keeps NetworkPolicies: kube-router, kube-network-policies, own
    ports: tuple[str, ...] = ()  # kind: HOST:NODE pairs, for a host that does not reach its containers' addresses
    kubeconfig: str = ""  # kubeconfig: the file, and the context in it, of a cluster that is there already
    context: str = ""
    node_access: str = ""  # kubeconfig: none, or debug for a privileged Pod on each node
    said: tuple[str, ...] = ()  # --workers, --proxy-mode: where the user chose them, for whoever cannot give what was chosen


@dataclass(frozen=True)
class Usability:
    """Whether a provider can run here. `why` says what is missing, `mend` the command that helps.

    One that is `doubtful` may run here: it cannot be told without asking the user, for a password. Of two, the certain one is taken.
    """

    name: str
    usable: bool
    why: str
    mend: str = ""
    doubtful: bool = False


@dataclass(frozen=True)
class NodeStatus:
    name: str
    ip: str
    role: str
    running: bool
    ready: bool
    detail: str = ""


class Provider(Protocol):
    """What a provider does. Each call leaves either what it promises or nothing, and may be repeated."""

    name: str

    def usability(self) -> Usability:
        """Can it run on this machine? Looks only, changes nothing, ends within a second or two."""

    def takes(self, workers: int) -> tuple[int, int]:
        """Megabytes of memory and of disk that a cluster of so many workers takes on this machine."""

    def up(self, spec: ClusterSpec, progress: Progress) -> Cluster:
        """Make the cluster and return it once it carries traffic between its nodes.

        Records what it is about to make before it makes it. What was asked and exists already is returned as it is.
        """

    def down(self, name: str, progress: Progress) -> None:
        """Remove everything that `up` made, however far it came. Removing nothing is no error."""

    def reset(self, name: str, progress: Progress) -> Cluster:
        """Bring the cluster back to what it was right after `up`."""

    def status(self, record: ClusterRecord) -> list[NodeStatus]:
        """Each node, whether it runs, and whether Kubernetes calls it Ready."""

    def load(self, record: ClusterRecord, archive: Path, progress: Progress) -> list[str]:
        """Put the images of a `docker save` archive on every node; returns their names."""

    def node(self, record: ClusterRecord, node: NodeRecord) -> Node:
        """The way to reach one node."""


@runtime_checkable
class Fences(Protocol):
    """A provider that can cut a cluster off, for a grader whose students run Pods there."""

    def fence(self, name: str, closed: bool) -> None:
        """Keep nodes and Pods from reaching anything beyond the cluster, or let them again."""


def provider(name: str) -> Provider:
    if name not in PROVIDERS:
        raise BadInput(f"there is no provider named {name!r}", f"There are: {', '.join(PROVIDERS)}")
    found: Provider = import_module(PROVIDERS[name]).PROVIDER
    return found


def choose() -> str:
    """The best provider that can run here."""
    found = []
    for name in BY_ITSELF:
        found.append(provider(name).usability())
        if found[-1].usable and not found[-1].doubtful:
            return name
    for doubtful in in_order(found):
        return doubtful.name
    reasons = "; ".join(f"{each.name}: {each.why}" for each in found)
    raise HostLacks(f"no provider can run here; {reasons}", "See `lab doctor`")


def in_order(found: Iterable[Usability]) -> list[Usability]:
    """Those that can run, the best first: what may be taken by itself, of these what surely runs, of these what starts soonest."""
    order = [*BY_ITSELF, *(name for name in PROVIDERS if name not in BY_ITSELF)]
    usable = [each for each in found if each.usable]
    return sorted(usable, key=lambda each: (each.name not in BY_ITSELF, each.doubtful, order.index(each.name)))


def node_for(record: ClusterRecord, node: NodeRecord) -> Node:
    """The way to a node: its provider's, unless the record says why there is none (grading/access.py)."""
    if why := node.access.get("closed"):
        from lab_utils.providers.closed import ClosedNode

        return ClosedNode(node, why)
    return provider(record.provider).node(record, node)
