"""The topology itself: who has which namespace, which cables run where, and how to find a thing by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from lab_utils.errors import BadInput, LabError
from lab_utils.links import FOUND, Device, End, Namespace, Peer, match_peers, read_namespace
from lab_utils.snapshot.model import NodeSnapshot, Sandbox, Snapshot
from lab_utils.topology.objects import Pod, Service, ServicePort, read_pod, read_services

if TYPE_CHECKING:
    from lab_utils.topology.hops import Path
    from lab_utils.trace import Packet, Trace
    from lab_utils.trace.flow import Origin

__all__ = ["Cable", "NodeView", "Pod", "Service", "ServicePort", "Topology"]
NFT_TABLE = re.compile(r'"table": ?\{"family": ?"(\w+)", ?"name": ?"([^"]+)"')


@dataclass(frozen=True)
class NodeView:
    """A node: its own network namespace and the text of its rules."""

    name: str
    ip: str
    role: str
    netns: Namespace
    iptables: str = ""
    ip6tables: str = ""
    nft: str = ""
    ipset: str = ""

    @cached_property
    def ruleset(self) -> Any:
        """The rules that kube-proxy wrote, whichever mode it runs in; None if none were read."""
        return self._rules(self.iptables)

    @cached_property
    def ruleset6(self) -> Any:
        return self._rules(self.ip6tables)

    def _rules(self, save: str) -> Any:
        if '"kube-proxy"' in self.nft:
            from lab_utils.nft import parse as parse_nft

            return parse_nft(self.nft)
        if save.strip():
            from lab_utils.iptables import parse

            return parse(save)
        return None

    def trace(self, packet: Packet, origin: Origin = "external", *, explain: bool = False) -> Trace | None:
        """What all rules of this node do to a packet, given its addresses, routes and IP sets. None if no rules were read."""
        from lab_utils.trace import trace

        rules = self._in_force[packet.version]
        if not rules:
            return None
        own = {device.name: [str(address.ip) for address in device.addresses] for device in self.netns.devices if device.addresses}
        routes = {
            str(route.destination): route.device
            for route in sorted(self.netns.routes, key=lambda route: -route.metric)  # of two, the lower metric comes last and stays
            if route.kind == "unicast" and route.destination.version == packet.version
        }
        return trace(rules, packet, own, origin, sets=self._sets, routes=routes, explain=explain)

    @cached_property
    def _sets(self) -> dict[str, list[str]] | None:
        from lab_utils.iptables import parse_sets

        return parse_sets(self.ipset) if self.ipset.strip() else None

    @cached_property
    def _in_force(self) -> dict[int, list[Any]]:
        """The rules of iptables and those of nft: kube-proxy writes the ones, a network plugin may write the others."""
        from lab_utils.iptables import parse
        from lab_utils.iptables.options import BUILT_IN
        from lab_utils.nft import parse as parse_nft

        others = any(family == "inet" or name not in BUILT_IN for family, name in NFT_TABLE.findall(self.nft))
        shared = [parse_nft(self.nft)] if others else []
        saves = {4: self.iptables, 6: self.ip6tables}
        return {version: [*shared, *([parse(save)] if save.strip() else [])] for version, save in saves.items()}


@dataclass(frozen=True)
class Cable:
    """A veth pair between a node and one of its Pods."""

    pod: Pod
    host: End
    inside: End
    peer: Peer  # how it was found out


class Topology:
    """All nodes and Pods of a cluster, or of the part of it that was read."""

    def __init__(
        self,
        nodes: list[NodeView],
        pods: list[Pod],
        services: list[Service],
        namespaces: list[Namespace],
        names: Mapping[str, int] | None = None,
        title: str = "",
    ) -> None:
        self.title = title
        self.nodes = {node.name: node for node in nodes}
        self.pods = {pod.key: pod for pod in sorted(pods, key=lambda pod: pod.key)}
        self.services = {service.key: service for service in sorted(services, key=lambda service: service.key)}
        self.namespaces = {ns.name: ns for ns in namespaces}
        self.peers = match_peers(namespaces, names)

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> Topology:
        try:
            return cls._from_snapshot(snapshot)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, LabError):
                raise
            raise BadInput(f"the snapshot's objects are not what Kubernetes writes ({type(error).__name__}: {error})") from None

    @classmethod
    def _from_snapshot(cls, snapshot: Snapshot) -> Topology:
        nodes: list[NodeView] = []
        namespaces: list[Namespace] = []
        boxes: dict[tuple[str, str], tuple[NodeSnapshot, Sandbox, str]] = {}
        names: dict[str, int] = {}
        for node in snapshot.nodes:
            host = read_namespace(node.name, node.outputs, inode=node.inode, kernel=node.kernel)
            nodes.append(NodeView(node.name, node.ip, node.role, host, node.iptables, node.ip6tables, node.nft, node.ipset))
            namespaces.append(host)
            names.update(node.names)
            for box in node.sandboxes:
                netns = node.name
                if box.outputs is not None:
                    netns = f"{box.namespace}/{box.name}"
                    namespaces.append(read_namespace(netns, box.outputs, inode=box.inode, kernel=node.kernel))
                boxes[box.namespace, box.name] = (node, box, netns)
        pods: dict[str, Pod] = {}
        for item in snapshot.pods:
            meta = item["metadata"]
            found = boxes.get((str(meta.get("namespace", "")), str(meta["name"])))
            pod = read_pod(item, found[2] if found else "", found[1].id if found else "")
            pods[pod.key] = pod
        known = {ns.name: ns for ns in namespaces}
        for (namespace, name), (node, box, netns) in boxes.items():  # a sandbox that the API does not list is a Pod all the same
            ips = (
                tuple(str(a.ip) for device in known[netns].devices if device.kind != "loopback" for a in device.usable_addresses)
                if box.outputs
                else (node.ip,)
            )
            pods.setdefault(f"{namespace}/{name}", Pod(namespace, name, node.name, ips, box.outputs is None, "", netns, sandbox=box.id))
        title = f"Cluster {snapshot.cluster}"
        return cls(nodes, list(pods.values()), read_services(snapshot.services, snapshot.endpointslices), namespaces, names, title)

    # -- looking things up -------------------------------------------------------------------------------------------

    def node(self, name: str) -> NodeView:
        if name not in self.nodes:
            raise BadInput(f"there is no node {name!r}", f"There are: {', '.join(self.nodes) or 'none'}")
        return self.nodes[name]

    def pod(self, name: str) -> Pod:
        """By "namespace/name", by a name that only one Pod has, or by IP."""
        if name in self.pods:
            return self.pods[name]
        fitting = [pod for pod in self.pods.values() if name == pod.name or (name in pod.ips and not pod.host_network and not pod.over)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise BadInput(f"several Pods fit {name!r}: {', '.join(pod.key for pod in fitting)}", "Say NAMESPACE/NAME")
        raise BadInput(f"there is no Pod {name!r}", "`lab kubectl get pods -A` lists them")

    def service(self, name: str, namespace: str = "") -> Service:
        """By "namespace/name", by name (in `namespace`, or where only one Service has it), or by ClusterIP."""
        key = f"{namespace}/{name}" if namespace else name
        if key in self.services:
            return self.services[key]
        fitting = [] if namespace else [service for service in self.services.values() if name == service.name or name in service.ips]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise BadInput(f"several Services fit {name!r}: {', '.join(item.key for item in fitting)}", "Say which namespace")
        raise BadInput(f"there is no Service {key!r}", f"There are: {', '.join(self.services) or 'none'}")

    def pods_on(self, node: str) -> list[Pod]:
        """The Pods that a node has now; those that have ended are left out."""
        return [pod for pod in self.pods.values() if pod.node == node and not pod.over]

    def pod_with_ip(self, ip: str) -> Pod | None:
        return next((pod for pod in self.pods.values() if ip in pod.ips and not pod.host_network and not pod.over), None)

    def service_with_ip(self, ip: str) -> Service | None:
        return next((service for service in self.services.values() if ip in service.ips), None)

    def node_with_ip(self, ip: str) -> NodeView | None:
        return next((node for node in self.nodes.values() if ip == node.ip or ip in node.netns.addresses), None)

    def place_of(self, namespace: str) -> str:
        """On which node a namespace is."""
        if namespace in self.nodes:
            return namespace
        return self.pods[namespace].node if namespace in self.pods else ""

    def peer(self, namespace: str, device: Device) -> Peer | None:
        return self.peers.get(End(namespace, device.index, device.name))

    def cables(self, node: str) -> list[Cable]:
        """The veth pairs between this node and its Pods, in the order of the node's devices."""
        own = self.node(node).netns
        by_netns = {pod.netns: pod for pod in self.pods.values() if pod.netns and not pod.host_network}
        found = []
        for device in own.devices:
            peer = self.peer(node, device)
            if peer and peer.verdict == FOUND and peer.end and peer.end.namespace in by_netns:
                found.append(Cable(by_netns[peer.end.namespace], End(node, device.index, device.name), peer.end, peer))
        return found

    def path(self, a: str, b: str, port: int | None = None, protocol: str = "tcp") -> Path:
        """The way of a packet from `a` to `b`.

        Each is a Pod ("default/web"), a node ("w1"), a Service ("service/default/shop", as a destination) or an IP.
        With a port, and always for a Service, every node's rules are asked too: a Service has one way for each endpoint.
        """
        from lab_utils.topology.walk import Walker

        return Walker(self).path(a, b, port, protocol)


def is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
