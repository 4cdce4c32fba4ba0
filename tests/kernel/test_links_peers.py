"""The veth matcher against the kernel: wire namespaces at random, read what `ip` prints, compare with what was wired."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab_utils.links import AMBIGUOUS, FOUND, OUTSIDE, End, match_peers
from tests.kernel.wiring import Wiring, needs_root, wiring

pytestmark = [pytest.mark.kernel, needs_root]

Truth = dict[tuple[str, str], tuple[str, str]]


def wire_at_random(wires: Wiring, dice: random.Random) -> Truth:
    """Up to six namespaces, any of them joined by any number of cables, some of them up, in any order."""
    count = dice.randint(2, 6)
    for number in range(count):
        wires.add(f"n{number}")
    truth: Truth = {}
    for cable in range(dice.randint(1, 9)):
        one, other = dice.choices(wires.names, k=2)  # the same namespace twice is a cable too
        a, b = f"a{cable}", f"b{cable}"
        if one == other:
            wires.ip(one, f"link add {a} type veth peer name {b}")
        else:
            wires.veth(one, a, other, b)
        truth[one, a], truth[other, b] = (other, b), (one, a)
        for namespace, device in ((one, a), (other, b)):
            if dice.random() < 0.5:
                wires.ip(namespace, f"link set {device} up")
        if dice.random() < 0.3:
            wires.ip(dice.choice(wires.names), f"link add x{cable} type bridge")  # shifts the indexes that follow
    return truth


random_wirings = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@random_wirings
@given(st.integers(0, 2**32))
def test_with_known_netns_ids_every_peer_is_the_one_that_was_wired(seed: int) -> None:
    with wiring() as wires:
        truth = wire_at_random(wires, random.Random(seed))
        peers = match_peers([wires.read(name) for name in wires.names], wires.inodes)
        assert {(end.namespace, end.name): ends_at(peer.end) for end, peer in peers.items()} == truth
        assert all(peer.certain for peer in peers.values())


@random_wirings
@given(st.integers(0, 2**32))
def test_without_netns_ids_a_peer_is_right_or_called_ambiguous(seed: int) -> None:
    with wiring() as wires:
        truth = wire_at_random(wires, random.Random(seed))
        peers = match_peers([wires.read(name, with_ids=False) for name in wires.names])
        for end, peer in peers.items():
            right = truth[end.namespace, end.name]
            if peer.verdict == FOUND:
                assert ends_at(peer.end) == right
            else:
                assert peer.verdict == AMBIGUOUS
                assert right in [ends_at(candidate) for candidate in peer.candidates]


@random_wirings
@given(st.integers(0, 2**32))
def test_the_end_in_a_namespace_that_was_not_read_is_outside(seed: int) -> None:
    with wiring() as wires:
        truth = wire_at_random(wires, random.Random(seed))
        hidden = wires.names[0]
        peers = match_peers([wires.read(name) for name in wires.names[1:]], wires.inodes)
        for end, peer in peers.items():
            right = truth[end.namespace, end.name]
            if right[0] == hidden:
                assert peer.verdict == OUTSIDE
            else:
                assert ends_at(peer.end) == right


def test_equal_indexes_in_every_namespace_do_not_confuse() -> None:
    """Four Pods, each with its eth0 as device 2, on two nodes whose veth ends have equal indexes too."""
    with wiring() as wires:
        for name in ("n1", "n2", "p1", "p2", "p3", "p4"):
            wires.add(name)
        for node, first, second in (("n1", "p1", "p2"), ("n2", "p3", "p4")):
            wires.veth(node, "veth1", first, "eth0")
            wires.veth(node, "veth2", second, "eth0")
        everything = [wires.read(name) for name in wires.names]
        assert {device.index for ns in everything for device in ns.devices if device.name == "eth0"} == {2}
        peers = match_peers(everything, wires.inodes)
        found = {str(end): str(peer.end) for end, peer in peers.items() if end.name == "eth0"}
        assert found == {"p1:eth0": "n1:veth1", "p2:eth0": "n1:veth2", "p3:eth0": "n2:veth1", "p4:eth0": "n2:veth2"}
        # Without the ids it cannot be known which Pod belongs to which node, and that is what is said.
        blind = match_peers([wires.read(name, with_ids=False) for name in wires.names])
        assert {peer.verdict for peer in blind.values()} == {AMBIGUOUS}


def test_a_mac_address_that_a_bridge_learned_decides() -> None:
    with wiring() as wires:
        for name in ("n1", "n2", "p1", "p2"):
            wires.add(name)
        for node, pod, number in (("n1", "p1", 1), ("n2", "p2", 2)):
            wires.veth(node, "veth1", pod, "eth0")
            wires.ip(node, "link add cni0 type bridge")
            wires.ip(node, "link set cni0 up")
            wires.ip(node, "link set veth1 master cni0 up")
            wires.ip(node, f"addr add 10.99.{number}.1/24 dev cni0")
            wires.ip(pod, "link set eth0 up")
            wires.ip(pod, f"addr add 10.99.{number}.2/24 dev eth0")
            wires.say(pod, f"10.99.{number}.1")
        peers = match_peers([wires.read(name, with_ids=False) for name in wires.names])
        assert {str(end): str(peer.end) for end, peer in peers.items()} == {
            "n1:veth1": "p1:eth0",
            "n2:veth1": "p2:eth0",
            "p1:eth0": "n1:veth1",
            "p2:eth0": "n2:veth1",
        }
        assert all("MAC" in peer.evidence for peer in peers.values())


def ends_at(end: End | None) -> tuple[str, str] | None:
    return (end.namespace, end.name) if end else None
