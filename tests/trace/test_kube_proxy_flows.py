"""kube-proxy's own expectations hold: where each packet of its tests goes, and whether it is masqueraded."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from lab_utils import nft
from lab_utils.iptables import parse
from lab_utils.trace import Packet, Trace, trace

DATA = Path(__file__).parent.parent / "data"


def cases(folder: str) -> list[Any]:
    recorded = json.loads((DATA / folder / "kube-proxy" / "flows.json").read_text())
    return [pytest.param(case, flow, id=f"{case['dump']}: {flow['name']}") for case in recorded for flow in case["flows"]]


def origins(case: dict[str, Any], flow: dict[str, Any]) -> list[str]:
    """kube-proxy's tracer has one way for all packets. A packet of the node itself must fare the same on its own way."""
    mine = flow["from"] in case["node"] or flow["from"] in ("127.0.0.1", "::1")
    return ["external", "pod", "local"] if mine else ["external", "pod"]


def judge(ruleset: Any, case: dict[str, Any], flow: dict[str, Any]) -> None:
    for origin in origins(case, flow):
        packet = Packet(flow["from"], flow["to"], flow["port"], protocol=flow.get("protocol", "tcp"))
        found: Trace = trace(ruleset, packet, local_addresses=case["node"], origin=origin)  # type: ignore[arg-type]
        expected = flow["expected"]
        if expected in ("", "ACCEPT", "DROP", "REJECT"):
            assert (found.verdict, found.destinations) == (expected or "ACCEPT", ()), str(found)
        else:
            listed = expected.split(", ")
            assert found.verdict == "ACCEPT", str(found)
            assert [destination.address for destination in found.destinations] == listed, str(found)
            assert {destination.probability for destination in found.destinations} == {Fraction(1, len(listed))}
        assert found.masquerade == flow["masquerade"], str(found)
        assert not found.undecided, str(found)


@pytest.mark.parametrize(("case", "flow"), cases("iptables"))
def test_iptables_rules_as_kube_proxy_writes_them(case: dict[str, Any], flow: dict[str, Any]) -> None:
    judge(parse((DATA / "iptables" / "kube-proxy" / f"{case['dump']}.restore.txt").read_text()), case, flow)


@pytest.mark.parametrize(("case", "flow"), cases("iptables"))
def test_iptables_rules_as_the_kernel_gives_them_back(case: dict[str, Any], flow: dict[str, Any]) -> None:
    judge(parse((DATA / "iptables" / "kube-proxy" / f"{case['dump']}.save.txt").read_text()), case, flow)


@pytest.mark.parametrize(("case", "flow"), cases("nft"))
def test_nftables_rules_as_nft_lists_them(case: dict[str, Any], flow: dict[str, Any]) -> None:
    judge(nft.parse((DATA / "nft" / "kube-proxy" / f"{case['dump']}.json").read_text()), case, flow)
