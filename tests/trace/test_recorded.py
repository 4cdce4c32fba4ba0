"""Nodes with rules of many hands, recorded together with what real requests met there (`seen.json`): the traces agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab_utils.snapshot import read_snapshot
from lab_utils.topology import NodeView, Topology
from lab_utils.trace import Destination, Packet, Trace

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
