"""A real cluster, recorded with `lab snapshot` while tests/data/snapshots/shop.yaml ran on it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from lab_utils import draw
from lab_utils.links import FOUND
from lab_utils.snapshot import Snapshot, read_snapshot
from lab_utils.topology import Pod, Topology

SNAPSHOTS = Path(__file__).parent / "data" / "snapshots"
CLUSTERS = sorted(path.parent.name for path in SNAPSHOTS.glob("flannel-*/snapshot.json"))


@pytest.fixture(scope="module", params=CLUSTERS)
def recorded(request: pytest.FixtureRequest) -> Snapshot:
    return read_snapshot(SNAPSHOTS / request.param)


@pytest.fixture(scope="module")
def topology(recorded: Snapshot) -> Topology:
    return Topology.from_snapshot(recorded)


def web_pods(topology: Topology) -> list[Pod]:
    return [pod for pod in topology.pods.values() if pod.namespace == "shop" and pod.name.startswith("web-")]


def test_every_pod_with_a_network_of_its_own_is_joined_for_certain(topology: Topology) -> None:
    joined = {cable.pod.key: cable for name in topology.nodes for cable in topology.cables(name)}
    wanted = {pod.key for pod in topology.pods.values() if not pod.host_network and pod.phase == "Running"}
    assert joined.keys() == wanted and len(wanted) >= 6
    assert all(cable.peer.verdict == FOUND and cable.peer.certain for cable in joined.values())
    for cable in joined.values():  # the ends that the matcher joined carry the address that the API tells
        inside = topology.namespaces[cable.pod.netns].device(cable.inside.index)
        assert inside is not None and cable.pod.ip in [str(address.ip) for address in inside.addresses]


def test_every_pod_reaches_every_other_one(topology: Topology) -> None:
    pods = [pod for pod in topology.pods.values() if pod.netns in topology.pods]
    for one in pods:
        for other in pods:
            if one is not other:
                path = topology.path(one.key, other.key)
                assert path.arrived, str(path)
                assert path.hops[-1].namespace == other.key
                assert any(hop.kind == "wrap" for hop in path.hops) == (one.node != other.node)


def test_a_service_leads_to_its_three_pods_with_equal_chances(topology: Topology) -> None:
    path = topology.path("shop/client", "service/shop/web")
    assert {(way.pod, way.probability) for way in path.ways} == {(pod.key, Fraction(1, 3)) for pod in web_pods(topology)}
    assert path.arrived


def test_a_service_without_endpoints_is_refused(topology: Topology) -> None:
    (way,) = topology.path("shop/client", "service/shop/nobody").ways
    assert not way.arrived and "rejected" in way.hops[-1].what


def test_the_dns_service_is_reached_by_udp(topology: Topology) -> None:
    path = topology.path("shop/client", "service/kube-system/kube-dns", protocol="udp")
    assert path.arrived and {way.destination.rpartition(":")[2] for way in path.ways} == {"53"}


def test_everything_can_be_drawn(topology: Topology) -> None:
    for name, view in topology.nodes.items():
        assert draw.node(topology, name).table.rows
        for service in ("shop/web", "shop/web-outside", "shop/web-sticky", "shop/nobody", "kube-system/kube-dns", "default/kubernetes"):
            assert draw.service(view.ruleset, service, topology).table.rows
    assert all(pod.ip in str(draw.cluster(topology).table) for pod in web_pods(topology))


def test_the_recording_holds_no_secret(recorded: Snapshot) -> None:
    kinds = {str(item["kind"]) for item in (*recorded.pods, *recorded.services, *recorded.endpointslices, *recorded.api_nodes)}
    assert kinds == {"Pod", "Service", "EndpointSlice", "Node"}
    assert not any("annotations" in item["metadata"] for item in (*recorded.pods, *recorded.services))
    assert not any("env" in container for pod in recorded.pods for container in pod["spec"]["containers"])


def test_outside_traffic_with_the_local_policy_stays_on_the_node(topology: Topology) -> None:
    for name, view in topology.nodes.items():
        here = {f"{pod.ip}:8080" for pod in web_pods(topology) if pod.node == name}
        rows = draw.service(view.ruleset, "shop/web-outside", topology).table.rows
        assert {row[2] for row in rows if "NodePort" in row[1]} == (here or {"none"})
        assert len([row for row in rows if "ClusterIP" in row[1]]) == 3


def test_both_modes_of_kube_proxy_are_recorded() -> None:
    modes = {name: '"kube-proxy"' in read_snapshot(SNAPSHOTS / name).node("w1").nft for name in CLUSTERS}
    assert modes == {"flannel-iptables": False, "flannel-nftables": True}
