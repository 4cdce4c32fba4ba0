"""Docker starts kind's nodes again by itself, after a restart of its own or of the machine: which are not as they were left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab_utils.cluster import Cluster, ClusterRecord, NodeRecord
from lab_utils.errors import BadInput
from lab_utils.kind import bootstrap
from lab_utils.kind.docker import Container
from lab_utils.progress import Progress, Silent
from lab_utils.providers import ClusterSpec, kind

THEN, NOW = "2026-11-29T08:00:00.123456789Z", "2026-11-29T09:30:00.5Z"
FOUND = {
    "lab-control-plane": Container("lab-control-plane", True, "172.18.0.2", THEN),
    "lab-worker": Container("lab-worker", True, "172.18.0.3", THEN),
}
BARE = [
    NodeRecord("cp", "172.18.0.2", "control-plane", {"container": "lab-control-plane"}),
    NodeRecord("w1", "172.18.0.3", "worker", {"container": "lab-worker"}),
]
NODES = kind._settled(BARE, FOUND)


def names(found: dict[str, Container], nodes: list[NodeRecord] = NODES) -> list[str]:
    return [node.name for node in kind.not_as_left(nodes, found)]


def test_nodes_that_run_on_are_as_they_were_left() -> None:
    assert [node.access["started"] for node in NODES] == [THEN, THEN]
    assert names(FOUND) == []


def test_a_node_that_was_started_since_is_not() -> None:
    assert names({**FOUND, "lab-worker": replace(FOUND["lab-worker"], started=NOW)}) == ["w1"]


def test_a_node_with_another_address_is_not() -> None:
    assert names({**FOUND, "lab-control-plane": replace(FOUND["lab-control-plane"], ip="172.18.0.9")}) == ["cp"]


def test_a_node_that_was_never_settled_is_not() -> None:
    """So what is interrupted before it is settled is done again; so is a record of an older version looked at once."""
    assert names(FOUND, BARE) == ["cp", "w1"]


def test_stopped_and_lost_ones_are_somebody_elses_question() -> None:
    assert names({"lab-worker": replace(FOUND["lab-worker"], running=False, ip="")}) == []


def test_each_node_has_the_time_of_its_own_start() -> None:
    found = {**FOUND, "lab-worker": replace(FOUND["lab-worker"], started=NOW)}
    began = kind.started({"cp", "w1"}, NODES, found)
    assert began["w1"] - began["cp"] == pytest.approx(5400.38, abs=0.01)
    gate = bootstrap.gate(ClusterRecord("lab", "kind", "up", "", NODES), [], Silent(), started={"w1": began["w1"]})
    assert (gate._since("w1"), gate._since("cp")) == (began["w1"], 0.0)


def test_a_cluster_that_runs_is_given_what_is_asked_for_besides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    monkeypatch.setattr("lab_utils.kind.docker.containers", lambda names: FOUND)
    asked = []

    def given_nothing(cluster: Cluster, progress: Progress, spec: ClusterSpec) -> Cluster:
        asked.append(spec)
        return cluster

    monkeypatch.setattr(kind, "with_addons", given_nothing)
    options = {"workers": 1, "ports": ["8080:30080"], "storage": True}
    record = ClusterRecord("lab", "kind", "up", "", NODES, options=options)
    spec = ClusterSpec("lab", workers=1, network_policy="own", images=("bird",), ports=("8080:30080",))
    given = kind.PROVIDER._started(record, spec, Silent()).record.options
    assert (asked, given) == ([spec], options), "what was given is written down when it is there"
    with pytest.raises(BadInput, match=r"was not made with --port 8443:30443, which takes new containers\. Remove it first"):
        kind.PROVIDER._started(record, replace(spec, ports=("8443:30443",)), Silent())


def test_status_tells_of_a_node_that_docker_started_again_and_where_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {**FOUND, "lab-worker": replace(FOUND["lab-worker"], started=NOW, ip="172.18.0.7")}
    record = ClusterRecord("lab", "kind", "up", "", NODES, options={"workers": 1})
    monkeypatch.setattr("lab_utils.kind.docker.containers", lambda names: found)
    monkeypatch.setattr(kind, "ready_nodes", lambda record: {"cp": True, "w1": True})
    cp, w1 = kind.PROVIDER.status(record)
    assert (cp.ip, cp.detail) == ("172.18.0.2", "")
    assert (w1.ip, w1.running, w1.ready) == ("172.18.0.7", True, True)
    assert w1.detail.startswith("Docker has started the container lab-worker again; `lab up --name lab`")
