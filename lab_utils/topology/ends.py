"""From the names that people give to the two ends of a way, to addresses."""

from __future__ import annotations

from ipaddress import ip_address

from lab_utils.errors import BadInput
from lab_utils.links import Namespace
from lab_utils.topology.model import Topology, is_ip


def source(topology: Topology, a: str) -> tuple[Namespace, str, str]:
    """The namespace that sends, its address (empty: the route decides), and its name for people."""
    kind, _, rest = a.partition("/")
    if a in topology.nodes or (kind == "node" and rest in topology.nodes):
        node = topology.node(a if a in topology.nodes else rest)
        return node.netns, "", node.name
    if is_ip(a) and topology.pod_with_ip(a) is None:
        found = topology.node_with_ip(a)
        if found is None:
            raise BadInput(f"{a} is neither a Pod's nor a node's address here", "Start from a Pod or a node")
        return found.netns, a, found.name
    pod = topology.pod(rest if kind == "pod" else a)
    if pod.netns not in topology.namespaces:
        raise BadInput(f"the network namespace of Pod {pod.key} was not read")
    return topology.namespaces[pod.netns], pod.ip, pod.key


def target(topology: Topology, b: str, port: int | None, protocol: str, version: int) -> tuple[str, str, int | None]:
    kind, _, rest = b.partition("/")
    if b in topology.nodes or (kind == "node" and rest in topology.nodes):
        node = topology.node(b if b in topology.nodes else rest)
        return node.ip, node.name, port
    if is_ip(b):
        pod, service, machine = topology.pod_with_ip(b), topology.service_with_ip(b), topology.node_with_ip(b)
        if service:
            return b, f"Service {service.key}", service_port(topology, service.key, port, protocol)
        return b, pod.key if pod else machine.name if machine else b, port
    pod_exists = b in topology.pods or any(item.name == b for item in topology.pods.values())
    service_exists = b in topology.services or any(item.name == b for item in topology.services.values())
    if kind in ("service", "svc") or (service_exists and not pod_exists and kind != "pod"):
        found = topology.service(rest if kind in ("service", "svc") else b)
        ip = next((ip for ip in found.ips if ip_address(ip).version == version), found.ip)
        if not ip:
            raise BadInput(f"Service {found.key} has no ClusterIP (it is headless): DNS gives its Pods' addresses instead")
        return ip, f"Service {found.key}", service_port(topology, found.key, port, protocol)
    if service_exists and kind != "pod":
        raise BadInput(f"{b!r} is a Pod and a Service", f"Say pod/{b} or service/{b}")
    pod = topology.pod(rest if kind == "pod" else b)
    ip = next((ip for ip in pod.ips if ip_address(ip).version == version), pod.ip)
    if not ip:
        raise BadInput(f"Pod {pod.key} has no IP address")
    return ip, pod.key, port


def service_port(topology: Topology, key: str, port: int | None, protocol: str) -> int | None:
    ports = topology.services[key].ports
    fitting = [item.port for item in ports if item.protocol == protocol.lower()]
    return port if port is not None or not fitting else fitting[0]


def own_address(topology: Topology, ns: Namespace, target: str) -> str:
    """The address that the kernel puts into a packet of its own: the route's, or the first one of its device."""
    if ns.owner(target):
        return target
    route = ns.route(target)
    device = ns.device(route.device) if route else None
    version = ip_address(target).version
    fitting = [str(a.ip) for a in (device.usable_addresses if device else ()) if a.version == version]
    node = topology.nodes.get(ns.name)
    return (route.source if route else "") or (fitting[0] if fitting else "") or (node.ip if node else target)
