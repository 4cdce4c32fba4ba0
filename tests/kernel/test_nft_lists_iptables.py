"""iptables-nft keeps its rules in nft's tables, so `nft -j list ruleset` has them too, but not all that they say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab_utils import nft
from lab_utils.iptables import parse
from lab_utils.run import run
from lab_utils.trace import Packet, trace

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
DATA = Path(__file__).parent.parent / "data" / "iptables" / "kube-proxy"
CASES = {case["dump"]: case for case in json.loads((DATA / "flows.json").read_text())}
LISTED = ["clusterip-general", "no-endpoints-reject", "load-balancer", "trace-packet", "node-ports-ipv6-localhost-nodeports-enabled"]


@pytest.fixture
def namespace() -> Iterator[list[str]]:
    name = f"kxt{os.getpid()}"
    run(["ip", "netns", "add", name])
    try:
        yield ["nsenter", f"--net=/run/netns/{name}"]
    finally:
        run(["ip", "netns", "del", name])


def listed(namespace: list[str], tool: str, text: str) -> str:
    run([*namespace, f"{tool}-nft-restore"], input=text)
    return run([*namespace, "nft", "-j", "list", "ruleset"]).stdout


@pytest.mark.parametrize("dump", LISTED)
def test_what_nft_tells_of_iptables_rules_is_never_a_wrong_answer(namespace: list[str], dump: str) -> None:
    """Where its listing is enough, the trace is the same as of iptables-save; where it is not, the trace says so."""
    case: dict[str, Any] = CASES[dump]
    text = (DATA / f"{dump}.save.txt").read_text()
    whole = parse(text)
    part = nft.parse(listed(namespace, "ip6tables" if "ipv6" in dump else "iptables", text))
    assert not any("comment" in unknown.what for unknown in part.unknown)
    assert all("iptables-save does" in unknown.what for unknown in part.unknown)
    for flow in case["flows"]:
        packet = Packet(flow["from"], flow["to"], flow["port"], protocol=flow.get("protocol", "tcp"))
        ours, full = (trace(rules, packet, case["node"]) for rules in (part, whole))
        if not ours.undecided:
            assert (ours.verdict, ours.destinations, ours.masquerade) == (full.verdict, full.destinations, full.masquerade)


def test_comments_rejects_and_masquerade_are_known(namespace: list[str]) -> None:
    text = """*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --dport 81 -m comment --comment "no entry" -j REJECT
-A FORWARD -p tcp -m tcp --dport 82 -m comment --comment "seen" -j LOG
-A FORWARD -p tcp -m tcp --dport 83 -m addrtype --dst-type LOCAL -j DROP
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -m comment --comment "all of it" -j MASQUERADE
COMMIT
"""
    rules = nft.parse(listed(namespace, "iptables", text))
    found = {port: trace(rules, Packet("10.0.0.9", "10.0.1.9", port)) for port in (80, 81, 82, 83)}
    assert {port: (one.verdict, one.masquerade) for port, one in found.items()} == {
        80: ("ACCEPT", True),
        81: ("REJECT", False),
        82: ("ACCEPT", True),
        83: ("ACCEPT", True),
    }
    assert [bool(one.undecided) for one in found.values()] == [False, False, False, True]
    assert "addrtype" in found[83].undecided[0].why
