"""Ways against the kernel: send datagrams, and see on which devices the counters move."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from lab_utils import draw
from lab_utils.topology import NodeView, Path, Pod, Topology
from tests.kernel.flannel import NODES, PODS, pod_cidr, take, talk, wire
from tests.kernel.wiring import Wiring, needs_root, wiring

pytestmark = [pytest.mark.kernel, needs_root]

MANY = 40
Counters = dict[tuple[str, str], int]


@pytest.fixture(scope="module")
def wired() -> Iterator[tuple[Wiring, Topology]]:
    with wiring() as wires:
        wire(wires)
        talk(wires)
        yield wires, Topology.from_snapshot(take(wires))


def counters(wires: Wiring) -> Counters:
    """Packets in and out, of every device of every namespace; a Pod's namespace carries the name that the topology uses."""
    names = {node: node for node in NODES} | {pod.short: f"{pod.namespace}/{pod.name}" for pod in PODS}
    found: Counters = {}
    for short, name in names.items():
        for device in json.loads(wires.inside(short, "ip", "-j", "-s", "link")):
            stats = device["stats64"]
            found[name, device["ifname"]] = stats["rx"]["packets"] + stats["tx"]["packets"]
    return found


def lit(wires: Wiring, sender: str, to: str, port: int) -> set[tuple[str, str]]:
    """The devices through which `MANY` datagrams passed. Less is ARP and IPv6 talking to themselves."""
    before = counters(wires)
    code = f"import socket; s = socket.socket(2, socket.SOCK_DGRAM); [s.sendto(b'x', ({to!r}, {port})) for _ in range({MANY})]"
    wires.inside(sender, "python3", "-c", code)
    time.sleep(0.3)
    after = counters(wires)
    return {key for key in after if after[key] - before[key] >= MANY}


def on_the_way(path: Path) -> set[tuple[str, str]]:
    return {(hop.namespace, hop.device) for hop in path.hops if hop.device}


def test_the_kernel_sends_pod_traffic_through_just_these_devices(wired: tuple[Wiring, Topology]) -> None:
    wires, topology = wired
    for sender, receiver in ((PODS[3], PODS[1]), (PODS[1], PODS[2]), (PODS[0], PODS[4])):
        path = topology.path(f"{sender.namespace}/{sender.name}", f"{receiver.namespace}/{receiver.name}")
        assert path.arrived
        moved = lit(wires, sender.short, receiver.ip, 9)
        # A frame between two ports passes through the bridge, but is not counted by the bridge device.
        assert on_the_way(path) == moved, (sender.name, receiver.name)


def test_the_kernel_sends_service_traffic_through_just_these_devices(wired: tuple[Wiring, Topology]) -> None:
    wires, topology = wired
    client = PODS[3]
    path = topology.path("default/client", "service/kube-system/kube-dns", protocol="udp")
    assert [way.pod for way in path.ways] == [f"{PODS[0].namespace}/{PODS[0].name}"]
    assert on_the_way(path) == lit(wires, client.short, "10.96.0.10", 53)


def test_node_traffic_takes_the_way_too(wired: tuple[Wiring, Topology]) -> None:
    wires, topology = wired
    assert on_the_way(topology.path("w1", "default/client")) == lit(wires, "w1", PODS[3].ip, 9)


def test_with_the_host_gateway_backend_no_tunnel_is_on_the_way(wired: tuple[Wiring, Topology]) -> None:
    """flannel's host-gw: a route to each other node instead of a tunnel, as all nodes share one network."""
    wires, _ = wired
    for node in NODES:
        for other, (address, _) in NODES.items():
            if other != node:
                wires.ip(node, f"route replace {pod_cidr(other)}.0/24 via {address} dev eth0")
    path = Topology.from_snapshot(take(wires)).path("default/client", f"{PODS[1].namespace}/{PODS[1].name}")
    assert path.arrived and not any(hop.kind == "wrap" for hop in path.hops)
    assert on_the_way(path) == lit(wires, "client", PODS[1].ip, 9)


def test_a_pod_without_a_bridge_is_routed_as_calico_does() -> None:
    """The Pod's gateway is an address that nobody has; the node answers for it (proxy ARP) and routes to each Pod."""
    with wiring() as wires:
        for name in ("node", "one", "two"):
            wires.add(name)
        wires.inside("node", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for number, pod in ((1, "one"), (2, "two")):
            wires.veth("node", f"cali{number}", pod, "eth0")
            wires.ip("node", f"link set cali{number} up")
            wires.ip(pod, "link set eth0 up")
            wires.ip(pod, f"addr add 10.99.0.{number}/32 dev eth0")
            wires.ip(pod, "route add 169.254.1.1 dev eth0 scope link")
            wires.ip(pod, "route add default via 169.254.1.1 dev eth0")
            wires.inside("node", "sysctl", "-qw", f"net.ipv4.conf.cali{number}.proxy_arp=1")
            wires.ip("node", f"route add 10.99.0.{number} dev cali{number} scope link")
        wires.say("one", "10.99.0.2")
        namespaces = [replace(wires.read(name), name=name if name == "node" else f"x/{name}") for name in wires.names]
        pods = [Pod("x", name, "node", (ip,), False, "Running", f"x/{name}") for name, ip in (("one", "10.99.0.1"), ("two", "10.99.0.2"))]
        topology = Topology([NodeView("node", "192.0.2.1", "worker", namespaces[0])], pods, [], namespaces, wires.inodes)
        path = topology.path("x/one", "x/two")
        assert [hop.kind for hop in path.hops] == ["send", "cable", "route", "cable", "arrive"]
        assert "169.254.1.1" in path.hops[0].what
        drawing = draw.path(path, topology)
        assert "no bridge" in drawing.svg and len(drawing.table.rows) == 5
