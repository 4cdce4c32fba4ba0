"""Faults in a Service's chains, in the real nat table of a throw-away network namespace."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab_utils.checks import CheckSet
from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord
from lab_utils.errors import BadInput
from lab_utils.faults import inject, undo_all
from lab_utils.faults.rules import read_nat, write_chain
from lab_utils.labs.spec import LabSpec, Needs
from lab_utils.labs.store import Store
from lab_utils.labs.workspace import Workspace
from lab_utils.run import Result, run

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")]

# What kube-proxy 1.36 writes for a Service with three endpoints, and its top chain.
RULES = """*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ABCDEFGHIJKLMNOP - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
:KUBE-SEP-CCCCCCCCCCCCCCCC - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.20/32 -p tcp -m comment --comment "lab-99/web:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-ABCDEFGHIJKLMNOP
-A KUBE-SVC-ABCDEFGHIJKLMNOP ! -s 10.244.0.0/16 -d 10.96.0.20/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-ABCDEFGHIJKLMNOP -m comment --comment "lab-99/web:http -> 10.244.1.5:80" -m statistic --mode random --probability 0.33333333349 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SVC-ABCDEFGHIJKLMNOP -m comment --comment "lab-99/web:http -> 10.244.2.6:80" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SVC-ABCDEFGHIJKLMNOP -m comment --comment "lab-99/web:http -> 10.244.2.7:80" -j KUBE-SEP-CCCCCCCCCCCCCCCC
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 10.244.1.5:80
-A KUBE-SEP-BBBBBBBBBBBBBBBB -p tcp -m tcp -j DNAT --to-destination 10.244.2.6:80
-A KUBE-SEP-CCCCCCCCCCCCCCCC -p tcp -m tcp -j DNAT --to-destination 10.244.2.7:80
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
COMMIT
"""  # noqa: E501 (rules are one line each)
CHAIN = "KUBE-SVC-ABCDEFGHIJKLMNOP"


class NamespaceNode(Node):
    """A node that is only a network namespace: enough for what lives in its kernel tables."""

    def __init__(self, netns: str) -> None:
        super().__init__(NodeRecord("w1", "10.0.0.1", "worker"))
        self.netns = netns

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        words = ["sh", "-c", cmd] if isinstance(cmd, str) else list(cmd)
        return run(["ip", "netns", "exec", self.netns, *words], timeout=timeout, input=input, check=check)

    def put(self, source: Path | bytes, target: str, mode: int = 0o644) -> None:
        raise NotImplementedError

    def get(self, source: str) -> bytes:
        raise NotImplementedError


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Workspace]:
    netns = f"kio-fault-{secrets.token_hex(3)}"
    run(["ip", "netns", "add", netns])
    try:
        node = NamespaceNode(netns)
        node.run(["iptables-restore"], input=RULES, check=True)
        cluster = Cluster(ClusterRecord("test", "none", "up", "/dev/null", []), [node])
        spec = LabSpec("99-example", "Example", 5, ("Learn",), Needs(), ("lab-99",), params={"service": {"choice": ["web", "web"]}})
        yield Workspace(spec, CheckSet(tmp_path / "checks.py"), cluster, "ada", Store("99-example", tmp_path))
    finally:
        run(["ip", "netns", "del", netns])


def nat(lab: Workspace) -> dict[str, list[str]]:
    return read_nat(lab.node("w1"))


def write(lab: Workspace, chain: str, rules: list[str]) -> None:
    write_chain(lab.node("w1"), chain, rules)


@pytest.mark.parametrize("fault", ["rule-lost", "rule-doubled", "endpoint-rule-wrong"])
def test_a_fault_is_undone_to_the_very_same_rules(lab: Workspace, fault: str) -> None:
    before = nat(lab)
    inject(lab, fault, service="web", node="w1")
    assert nat(lab) != before
    assert undo_all(lab) == [fault]
    assert nat(lab) == before
    assert lab.store.faults() == []


def test_the_lost_rule_is_the_last_one(lab: Workspace) -> None:
    inject(lab, "rule-lost", service="$service")
    rules = nat(lab)[CHAIN]
    assert len(rules) == 3
    assert not any("KUBE-SEP-CCCC" in rule for rule in rules)


def test_the_doubled_rule_makes_the_split_uneven(lab: Workspace) -> None:
    inject(lab, "rule-doubled", service="web")
    assert sum("KUBE-SEP-AAAA" in rule for rule in nat(lab)[CHAIN]) == 2


def test_the_wrong_endpoint_leads_to_the_next_port(lab: Workspace) -> None:
    inject(lab, "endpoint-rule-wrong", service="web")
    assert "10.244.1.5:81" in nat(lab)["KUBE-SEP-AAAAAAAAAAAAAAAA"][0]


def test_injecting_twice_is_injecting_once(lab: Workspace) -> None:
    before = nat(lab)
    for _ in range(2):
        inject(lab, "rule-lost", service="web")
    assert len(nat(lab)[CHAIN]) == 3
    assert len(lab.store.faults()) == 1
    undo_all(lab)
    assert nat(lab) == before


def test_several_faults_are_undone_the_latest_first(lab: Workspace) -> None:
    before = nat(lab)
    inject(lab, "rule-lost", service="web")
    inject(lab, "rule-doubled", service="web")
    assert undo_all(lab) == ["rule-doubled", "rule-lost"]
    assert nat(lab) == before


def test_what_kube_proxy_or_a_learner_rewrote_since_is_left_alone(lab: Workspace) -> None:
    inject(lab, "rule-lost", service="web")
    rewritten = [rule for rule in nat(lab)[CHAIN] if "KUBE-SEP-BBBB" in rule]
    write(lab, CHAIN, rewritten)
    undo_all(lab)
    assert nat(lab)[CHAIN] == rewritten


def test_a_fault_is_written_down_before_anything_is_broken(lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab_utils.faults import rules

    seen: list[Any] = []

    def write_and_die(*words: Any) -> None:
        seen.append(lab.store.faults()[0]["plan"]["changes"][0]["before"])
        write_chain(*words)
        raise KeyboardInterrupt

    before = nat(lab)
    monkeypatch.setattr(rules, "write_chain", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        inject(lab, "rule-lost", service="web")
    assert seen[0] == before[CHAIN]
    monkeypatch.undo()
    again = Workspace(lab.spec, lab.checkset, lab.cluster, lab.learner, Store(lab.name, lab.store.folder))
    undo_all(again)
    assert nat(lab) == before


def test_a_service_without_rules_is_refused_before_anything_is_broken(lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab_utils.faults.rules._when_written.__defaults__", (0,))
    with pytest.raises(BadInput, match="lab-99/none has no chain in the nat table of node w1"):
        inject(lab, "rule-lost", service="none")
    assert lab.store.faults() == []


def test_unknown_faults_and_options_are_refused(lab: Workspace) -> None:
    with pytest.raises(BadInput, match=r"There are: .*rule-lost"):
        inject(lab, "rule-lots")
    with pytest.raises(BadInput, match=r"does not take these options .* It takes: service, node='', namespace=''"):
        inject(lab, "rule-lost", servce="web")
    with pytest.raises(BadInput, match="does not take these options"):
        inject(lab, "rule-lost")
    with pytest.raises(BadInput, match="asks for the parameter 'port'"):
        inject(lab, "rule-lost", service="$port")
