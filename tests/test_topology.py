"""Ways of packets through a recorded wiring (tests/data/snapshots/wired, made by tests/kernel/flannel.py)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from lab_utils.errors import BadInput
from lab_utils.snapshot import NodeSnapshot, Snapshot, read_snapshot
from lab_utils.topology import Topology

WIRED = Path(__file__).parent / "data" / "snapshots" / "wired"
CLIENT, WEB1, WEB2, WEB3 = "default/client", "default/web-7d9c5b6f4-abcde", "default/web-7d9c5b6f4-fghij", "default/web-7d9c5b6f4-klmno"


@pytest.fixture(scope="module")
def recorded() -> Snapshot:
    return read_snapshot(WIRED)


@pytest.fixture(scope="module")
def topology(recorded: Snapshot) -> Topology:
    return Topology.from_snapshot(recorded)


def kinds(topology: Topology, a: str, b: str) -> list[str]:
    return [hop.kind for hop in topology.path(a, b).hops]


def changed(recorded: Snapshot, node: str, key: str, keep: object) -> Topology:
    """The same cluster with one table of one node changed. `keep` is asked of each line."""
    assert callable(keep)

    def change(one: NodeSnapshot) -> NodeSnapshot:
        if one.name != node:
            return one
        return replace(one, outputs={**one.outputs, key: [line for line in one.outputs[key] if keep(line)]})

    return Topology.from_snapshot(replace(recorded, nodes=tuple(change(one) for one in recorded.nodes)))


def test_every_pod_is_joined_to_the_bridge_of_its_node(topology: Topology) -> None:
    joined = {cable.pod.key: (cable.host.namespace, cable.inside.name) for node in topology.nodes for cable in topology.cables(node)}
    assert joined == {pod.key: (pod.node, "eth0") for pod in topology.pods.values()}
    assert all(cable.peer.certain for node in topology.nodes for cable in topology.cables(node))


def test_pods_of_one_node_meet_on_the_bridge_and_never_reach_the_ip_layer(topology: Topology) -> None:
    assert kinds(topology, WEB1, WEB2) == ["send", "cable", "bridge", "cable", "arrive"]


def test_pods_of_two_nodes_meet_through_the_tunnel(topology: Topology) -> None:
    assert kinds(topology, CLIENT, WEB1) == [
        "send", "cable", "bridge", "wrap", "route", "wire", "unwrap", "route", "bridge", "cable", "arrive",
    ]  # fmt: skip


def test_the_tunnel_hop_names_the_route_the_arp_and_the_fdb_entry(topology: Topology) -> None:
    (wrap,) = [hop for hop in topology.path(CLIENT, WEB1).hops if hop.kind == "wrap"]
    route, arp, fdb = wrap.why
    assert route == "route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink"
    assert arp.startswith("ARP 10.244.1.0 dev flannel.1 lladdr 02:00:00:00:00:11")
    assert fdb.startswith("FDB 02:00:00:00:00:11 dev flannel.1 dst 172.31.77.12")


def test_a_node_reaches_a_pod_of_its_own_over_the_bridge(topology: Topology) -> None:
    assert kinds(topology, "w1", WEB1) == ["send", "bridge", "cable", "arrive"]


def test_a_node_reaches_another_node_without_the_tunnel(topology: Topology) -> None:
    assert kinds(topology, "cp", "w2") == ["send", "wire", "arrive"]


def test_a_service_has_one_way_for_each_endpoint_with_its_probability(topology: Topology) -> None:
    found = topology.path(CLIENT, "service/default/web")
    assert {(way.destination, way.pod, way.probability) for way in found.ways} == {
        ("10.244.1.2:8080", WEB1, Fraction(1, 3)),
        ("10.244.1.3:8080", WEB2, Fraction(1, 3)),
        ("10.244.2.3:8080", WEB3, Fraction(1, 3)),
    }
    assert found.arrived
    assert not any(way.masquerade for way in found.ways)


def test_a_node_that_asks_a_service_is_masqueraded(topology: Topology) -> None:
    assert all(way.masquerade for way in topology.path("w1", "service/default/web").ways)


def test_a_pod_that_gets_itself_is_masqueraded_and_arrives(topology: Topology) -> None:
    own = {way.pod: way for way in topology.path(WEB1, "default/web").ways}[WEB1]
    assert own.masquerade and own.arrived


def test_the_rewriting_hop_names_chains_and_rule(topology: Topology) -> None:
    (hop,) = [hop for hop in topology.path(CLIENT, "service/default/web").hops if hop.kind == "rules"]
    assert "PREROUTING → KUBE-SERVICES → KUBE-SVC-" in hop.why[0] and "DNAT --to-destination 10.244.1.2:8080" in hop.why[1]


def test_a_service_without_endpoints_is_rejected_on_the_senders_node(topology: Topology) -> None:
    found = topology.path(CLIENT, "service/default/empty")
    assert not found.arrived
    assert (found.hops[-1].kind, found.hops[-1].node) == ("lost", "w2")
    assert "rejected" in found.hops[-1].what and "has no endpoints" in found.hops[-1].why[1]


def test_an_address_outside_leaves_by_the_uplink(topology: Topology) -> None:
    last = topology.path(CLIENT, "192.0.2.1").hops[-1]
    assert last.kind == "leave" and "eth0 of w2" in last.what


@pytest.mark.parametrize(
    ("key", "line", "value", "says"),
    [
        ("route", "dst", "10.244.1.0/24", "leaves through eth0"),  # then the default route has it
        ("neigh", "dst", "10.244.1.0", "no ARP entry for 10.244.1.0"),
        ("fdb", "mac", "02:00:00:00:00:11", "no FDB entry for 02:00:00:00:00:11"),
    ],
)
def test_what_flannel_forgot_to_write_is_named(recorded: Snapshot, key: str, line: str, value: str, says: str) -> None:
    broken = changed(recorded, "w2", key, lambda entry: entry.get(line) != value)
    assert says in broken.path(CLIENT, WEB1).hops[-1].what


def test_a_bridge_that_has_forgotten_a_pod_asks_at_all_ports(recorded: Snapshot) -> None:
    broken = changed(recorded, "w1", "fdb", lambda entry: entry.get("state") == "permanent")
    found = broken.path(CLIENT, WEB1)
    assert found.arrived
    assert any("asks at all ports" in reason for hop in found.hops for reason in hop.why)


def test_routes_in_a_circle_come_to_an_end(recorded: Snapshot) -> None:
    """w1 sends what is for its own Pods back to w2: neither ever keeps it."""

    def turn(node: NodeSnapshot) -> NodeSnapshot:
        if node.name != "w1":
            return node
        wrong = {"dst": "10.244.1.0/24", "gateway": "10.244.2.0", "dev": "flannel.1", "flags": ["onlink"]}
        return replace(node, outputs={**node.outputs, "route": [wrong, *[r for r in node.outputs["route"] if r["dst"] != "10.244.1.0/24"]]})

    circle = Topology.from_snapshot(replace(recorded, nodes=tuple(turn(node) for node in recorded.nodes)))
    assert "circles" in circle.path(CLIENT, WEB1).hops[-1].what


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        ("nobody", WEB1, "no Pod 'nobody'"),
        (CLIENT, "nobody", "no Pod 'nobody'"),
        (CLIENT, "service/default/nothing", "no Service"),
        ("192.0.2.1", WEB1, "neither a Pod's nor a node's address"),
        (CLIENT, "2001:db8::1", "IPv4 does not reach IPv6"),
    ],
)
def test_a_name_that_does_not_exist_is_said_so(topology: Topology, a: str, b: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        topology.path(a, b)


def test_without_api_objects_the_sandboxes_are_the_pods(recorded: Snapshot) -> None:
    bare = Topology.from_snapshot(replace(recorded, pods=(), services=(), endpointslices=()))
    assert {pod.key: pod.ip for pod in bare.pods.values()} == {pod.key: pod.ip for pod in Topology.from_snapshot(recorded).pods.values()}
    assert bare.path(CLIENT, WEB1).arrived


def test_a_pod_that_waits_for_its_node_has_no_address_and_does_no_harm(recorded: Snapshot) -> None:
    waiting = {"kind": "Pod", "metadata": {"name": "late", "namespace": "default"}, "spec": {}, "status": {"phase": "Pending"}}
    topology = Topology.from_snapshot(replace(recorded, pods=(*recorded.pods, waiting)))
    assert topology.pod("late").ip == ""
    with pytest.raises(BadInput, match="has no IP address"):
        topology.path(CLIENT, "late")
    with pytest.raises(BadInput, match="was not read"):
        topology.path("late", CLIENT)


@pytest.mark.parametrize(
    "broken", [{"kind": "Pod"}, {"kind": "Pod", "metadata": []}, {"metadata": {"name": "x"}, "status": {"podIPs": [1]}}]
)
def test_objects_that_kubernetes_never_writes_are_refused(recorded: Snapshot, broken: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="not what Kubernetes writes"):
        Topology.from_snapshot(replace(recorded, pods=(broken,)))


def test_a_pod_that_has_ended_does_not_own_its_old_address(recorded: Snapshot) -> None:
    ended = {
        **recorded.pods[0],
        "metadata": {"name": "old", "namespace": "default"},
        "status": {"phase": "Succeeded", "podIP": "10.244.1.2"},
    }
    topology = Topology.from_snapshot(replace(recorded, pods=(ended, *recorded.pods)))
    assert topology.path(CLIENT, "10.244.1.2").target == WEB1
