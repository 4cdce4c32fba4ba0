"""When a cluster is up: what its answers say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab_utils.embedded.gate import Gate, kept_free, proxy_has_synced, still_shunned
from lab_utils.embedded.state import State
from lab_utils.progress import Silent
from lab_utils.run import Result

TIMES = {"lastUpdated": "2026-11-29T08:00:00Z", "currentTime": "2026-11-29T08:00:00Z", "nodeEligible": True}
WRITTEN = {"lastUpdated": "2026-11-29T08:00:00Z", "healthy": True}


@pytest.mark.parametrize(
    ("said", "synced"),
    [
        ({**TIMES, "healthy": True, "status": {"IPv4": WRITTEN, "IPv6": WRITTEN}}, True),
        ({**TIMES, "healthy": True, "status": {"IPv6": WRITTEN}}, False),
        ({**TIMES, "healthy": True}, False),
        (TIMES, True),
        (None, False),
    ],
    ids=["rules are written", "not yet for IPv4", "it has only started", "an older release", "nothing"],
)
def test_kube_proxy_has_written_its_rules(said: dict[str, Any] | None, synced: bool) -> None:
    assert proxy_has_synced(json.dumps(said)) is synced


@pytest.mark.parametrize("said", ["", "404 page not found"], ids=["nobody answers", "somebody else answers"])
def test_no_answer_is_no_kube_proxy(said: str) -> None:
    assert not proxy_has_synced(said)


@pytest.mark.parametrize(
    ("spec", "shunned"),
    [
        ({}, False),
        ({"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}, False),
        ({"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}, False),
        ({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "timeAdded": "2026-11-29T16:49:55Z"}]}, True),
        ({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}]}, True),
    ],
    ids=["no taint", "a control plane", "cordoned by hand", "not yet looked at again", "unreachable until now"],
)
def test_a_ready_node_takes_no_pods_before_its_taint_is_off(spec: dict[str, Any], shunned: bool) -> None:
    assert still_shunned({"metadata": {"name": "w1"}, "spec": spec}) is shunned


@pytest.mark.parametrize(
    ("taints", "free"),
    [
        ([], False),
        ([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}], False),
        ([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}], False),
        ([{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}], True),
    ],
    ids=["no taint", "a control plane", "not yet looked at again", "out of service"],
)
def test_nobody_waits_for_the_pod_network_of_a_node_that_is_to_have_no_pods(taints: list[dict[str, str]], free: bool) -> None:
    assert kept_free({"metadata": {"name": "w1"}, "spec": {"taints": taints}}) is free


def test_only_coredns_pods_that_are_ready_are_asked_for_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    """One may have failed and been replaced, and one may not have an address yet."""
    running = {"state": {"running": {"startedAt": "2026-11-29T08:00:00Z"}}}
    ready = {"podIP": "10.244.0.2", "containerStatuses": [running], "conditions": [{"type": "Ready", "status": "True"}]}
    failed = {"phase": "Failed", "podIP": "10.244.0.9", "conditions": [{"type": "Ready", "status": "False"}]}
    pods = [{"metadata": {}, "spec": {"nodeName": "cp"}, "status": status} for status in (ready, failed, {"phase": "Pending"})]
    scripts = []

    def on_node(gate: Gate, name: str, words: list[str]) -> Result:
        scripts.append(words[-1])
        return Result("", "", 0)

    monkeypatch.setattr(Gate, "coredns_pods", lambda gate: pods)
    monkeypatch.setattr(Gate, "on_node", on_node)
    gate = Gate(State("lab", 0, "172.31.64.0/24", ["cp"], "", "", ""), "kubectl", "", Silent())
    assert gate.traffic_missing() == ""
    assert [script.count("curl") for script in scripts] == [1] and "10.244.0.2" in scripts[0]
