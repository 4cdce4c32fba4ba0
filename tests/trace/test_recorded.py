"""Nodes with rules of many hands, recorded together with what real requests met there (`seen.json`): the traces agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab_utils.iptables import parse
from lab_utils.snapshot import read_snapshot
from lab_utils.topology import NodeView, Topology
from lab_utils.topology.hops import Way
from lab_utils.trace import Destination, Packet, Trace, trace

SNAPSHOTS = Path(__file__).parent.parent / "data" / "snapshots"
VERDICT = {"answered": "ACCEPT", "refused": "REJECT", "timeout": "DROP"}


def host(address: str) -> str:
    return address.rpartition(":")[0]


def records(snapshot: str) -> list[Any]:
    """Without those that someone sent to himself: they never leave his own network namespace."""
    seen = json.loads((SNAPSHOTS / snapshot / "seen.json").read_text())
    return [pytest.param(each, id=f"{each['from']} to {each['to']}") for each in seen if each["source"] != host(each["to"])]


@pytest.fixture(scope="module")
def docker() -> NodeView:
    return Topology.from_snapshot(read_snapshot(SNAPSHOTS / "docker-iptables")).node("w1")


def source_of(end: Destination, packet: Packet) -> str:
    return end.source.partition(":")[0] if end.source else packet.src


def traced(view: NodeView, record: dict[str, Any]) -> tuple[Packet, Trace]:
    address, _, port = record["to"].rpartition(":")
    came = record["comes by"]
    packet = Packet(record["source"], address, int(port), protocol=record["protocol"], in_interface=came or None)
    found = view.trace(packet, "local" if not came else "external" if came == "eth0" else "pod")
    assert found is not None
    return packet, found


@pytest.mark.parametrize("record", records("docker-iptables"))
def test_on_a_worker_with_docker_every_request_fares_as_it_did(docker: NodeView, record: dict[str, Any]) -> None:
    packet, found = traced(docker, record)
    assert not found.undecided, found.summary
    if not found.destinations and packet.dst in docker.netns.addresses:
        # To the node itself: a process decides. Docker's proxy listens on every published port, and on 9999 for 127.0.0.1 alone.
        listens = packet.dport != 9999 or packet.dst == "127.0.0.1"
        assert (found.verdict, record["result"]) == ("ACCEPT", "answered" if listens else "refused")
        return
    assert found.verdict == VERDICT[record["result"]]
    assert set(record.get("by", ())) <= {host(end.address) for end in found.outcomes}
    assert set(record.get("seen as", ())) <= {source_of(end, packet) for end in found.outcomes}


# NetworkPolicies, as kube-router enforces them: the whole way from node to node, since a policy may stop a packet on either.


@pytest.fixture(scope="module")
def policies() -> Topology:
    return Topology.from_snapshot(read_snapshot(SNAPSHOTS / "policies"))


def ways(topology: Topology, record: dict[str, Any]) -> tuple[Way, ...]:
    address, _, port = record["to"].rpartition(":")
    sender = record["source"] if record["from"] in topology.nodes else record["from"]
    return topology.path(sender, address, int(port), record["protocol"]).ways


def fate(way: Way) -> str:
    last = way.hops[-1].what
    return "answered" if way.arrived else "refused" if last.startswith("rejected") else "timeout" if last.startswith("dropped") else last


@pytest.mark.parametrize("record", [each for each in records("policies") if each.values[0]["from"] != "outside"])
def test_under_network_policies_every_request_fares_as_it_did(policies: Topology, record: dict[str, Any]) -> None:
    found = ways(policies, record)
    if found[0].hops[-1].kind == "leave":
        # kube-router accepts what its policies allow before kube-proxy's rule can refuse a Service without endpoints: the
        # packet leaves for the default gateway. What refused it there was not recorded.
        assert record["to"].startswith(policies.service("shop/nobody").ips[0])
        return
    fates = {fate(way) for way in found}
    if record["to"].rpartition(":")[0] in policies.service("shop/web-sticky").ips or record["to"].endswith(":30081"):
        assert set(record["result"].split("/")) <= fates  # the Service keeps to the endpoint that a client got first
    else:
        assert set(record["result"].split("/")) == fates
    arrived = {host(way.destination) for way in found if way.arrived}
    assert set(record.get("by", ())) <= arrived


@pytest.mark.parametrize("record", [each for each in records("policies") if each.values[0]["from"] == "outside"])
def test_traffic_from_outside_meets_the_policies_too(policies: Topology, record: dict[str, Any]) -> None:
    address, _, port = record["to"].rpartition(":")
    view = policies.node_with_ip(address)
    assert view is not None
    found = view.trace(Packet(record["source"], address, int(port), in_interface="eth0"))
    assert found is not None and not found.undecided
    verdicts = {VERDICT[each] for each in record["result"].split("/")}
    if view.name == "w1":  # here are the Pods; the other node sends the packets on to them
        assert set(found.verdicts) == verdicts


def test_every_chain_of_the_policies_is_decided(policies: Topology) -> None:
    """With the IP sets that were recorded nothing is left open; without them, the trace says so."""
    view = policies.node("w1")
    client, safe = policies.pod("shop/client"), policies.pod("vault/safe")
    packet = Packet(client.ip, safe.ip, 8080, in_interface="cni0", physdev_in="veth0", physdev_out="veth1")
    found = view.trace(packet, "pod")
    assert found is not None and not found.undecided and found.verdict == "REJECT"
    chains = {step.chain for step in found.steps}
    assert "KUBE-ROUTER-FORWARD" in chains and any(chain.startswith("KUBE-POD-FW-") for chain in chains)
    blind = trace(view.ruleset, packet, origin="pod")
    assert any("what the set KUBE-" in each.why for each in blind.undecided)


@pytest.mark.parametrize("name", ["docker-iptables", "policies"])
def test_nothing_in_the_recorded_rules_is_unknown(name: str) -> None:
    for node in read_snapshot(SNAPSHOTS / name).nodes:
        for text in (node.iptables, node.ip6tables):
            assert parse(text).unknown == ()
            assert list(parse(str(parse(text))).rules) == list(parse(text).rules)
