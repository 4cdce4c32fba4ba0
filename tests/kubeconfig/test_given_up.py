"""What is forgotten of somebody's own cluster, and when: never a Pod that is root there, or an add-on. kubectl here is a stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab_utils.cluster import Cluster, ClusterRecord, NodeRecord, cluster_dir, known_clusters, load_record
from lab_utils.errors import BadInput, CommandFailed, HostLacks, Unhealthy
from lab_utils.kubeconfig import objects
from lab_utils.kubeconfig.access import NAMESPACE, made, note_made
from lab_utils.labs.workspace import LABEL
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, provider
from lab_utils.run import Result

REFUSED = "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?"
SILENT = {
    "a name that only its VPN knows": "Unable to connect to the server: dial tcp: lookup k8s.intern on 10.0.0.1:53: no such host",
    "an address that only its VPN leads to": "Unable to connect to the server: dial tcp 10.0.0.1:6443: connect: no route to host",
    "no answer": "Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout",
}


class Told(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, what: str) -> None:
        self.notes.append(what)


class World:
    """An API server that knows of namespaces with labels and of one engine; `silence` is what kubectl says in its stead."""

    def __init__(self) -> None:
        self.silence = ""
        self.labs: list[str] = []
        self.engine = ""
        self.stuck = False
        self.deleted: list[str] = []

    def kubectl(self, cluster: Cluster, *words: str, check: bool = True, **rest: Any) -> Result:
        if self.silence:
            if check:
                raise CommandFailed(["kubectl", *words], 1, "", self.silence)
            return Result("", self.silence, 1)
        if words[0] == "delete":
            if self.stuck:
                raise Unhealthy("the namespace does not end")
            self.deleted.append(" ".join(words[1:3]))
        return Result(json.dumps(self.answer(words)) if words[0] != "auth" else "yes", "", 0)

    def answer(self, words: tuple[str, ...]) -> Any:
        if words[0] == "version":
            return {"serverVersion": {"gitVersion": "v1.36.3"}}
        if words[:2] == ("get", "nodes"):
            addresses = [{"type": "InternalIP", "address": "10.0.0.2"}]
            return {"items": [{"metadata": {"name": "w1"}, "status": {"addresses": addresses}}]}
        if words[:2] == ("get", "daemonsets"):
            labels = {"kubernetes-inside-out/engine": self.engine}
            return {"items": [{"metadata": {"name": "x", "labels": labels}}] if self.engine else []}
        return {"items": [{"metadata": {"name": lab, "labels": {LABEL: lab}}} for lab in self.labs]}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    made = World()
    monkeypatch.setattr(Cluster, "kubectl", lambda cluster, *words, **options: made.kubectl(cluster, *words, **options))
    return made


def recorded(**options: object) -> ClusterRecord:
    usual = {"node_access": "debug", "context": "here", "server": "https://10.0.0.1:6443"}
    record = ClusterRecord("theirs", "kubeconfig", "up", "/nowhere", [NodeRecord("w1", "10.0.0.2", "worker")], options={**usual, **options})
    record.save()
    return record


class TestDown:
    @pytest.mark.parametrize("case", SILENT)
    def test_a_cluster_that_may_be_behind_a_vpn_stays_on_record_and_it_is_said_how_to_forget_it(self, case: str, world: World) -> None:
        record = recorded()
        world.silence = SILENT[case]
        with pytest.raises(HostLacks, match=rf"stays on record: .*If the cluster is gone for good, remove {record.folder}$"):
            provider("kubeconfig").down("theirs", Silent())
        assert known_clusters() == ["theirs"]

    def test_a_question_is_not_run_into_the_next_sentence(self, world: World) -> None:
        recorded()
        world.silence = SILENT["a name that only its VPN knows"]
        with pytest.raises(HostLacks, match=r"Are you on its network\? Then `lab down --name theirs` again\. New credentials"):
            provider("kubeconfig").down("theirs", Silent())

    def test_one_that_refuses_is_forgotten_aloud_where_only_labs_can_be_left(self, world: World) -> None:
        recorded()
        world.silence, told = REFUSED, Told()
        provider("kubeconfig").down("theirs", told)
        assert not cluster_dir("theirs").exists()
        assert "nothing listens there" in told.notes[0] and told.notes[0].endswith(f"kubectl delete namespaces -l {LABEL}")

    def test_but_not_with_pods_that_are_root_on_its_nodes(self, world: World) -> None:
        note_made(recorded(), "node-w1")
        world.silence = REFUSED
        with pytest.raises(HostLacks, match=rf"\(Pods that are root on its nodes: node-w1 in {NAMESPACE}\).*stays on record"):
            provider("kubeconfig").down("theirs", Silent())
        assert known_clusters() == ["theirs"] and made(load_record("theirs")) == ["node-w1"]

    @pytest.mark.parametrize("addon", [{"storage": True}, {"metrics_server": True}, {"ingress": True}, {"network_policy": "kube-router"}])
    def test_nor_with_add_ons(self, addon: dict[str, object], world: World) -> None:
        recorded(**addon)
        world.silence = REFUSED
        with pytest.raises(HostLacks, match=r"stays on record: .*nothing listens there"):
            provider("kubeconfig").down("theirs", Silent())
        assert known_clusters() == ["theirs"]


def none(world: World) -> str:
    provider("kubeconfig").up(ClusterSpec("theirs", node_access="none"), Silent())
    return str(load_record("theirs").options["node_access"])


class TestNoAccessAnyMore:
    def test_the_pods_go_and_are_forgotten(self, world: World) -> None:
        note_made(recorded(), "node-w1")
        assert none(world) == "none"
        assert world.deleted == [f"namespace {NAMESPACE}"] and made(load_record("theirs")) == []

    def test_where_there_was_none_nothing_is_removed(self, world: World) -> None:
        recorded(node_access="none")
        assert (none(world), world.deleted) == ("none", [])

    def test_while_they_do_not_go_the_record_tells_of_them(self, world: World) -> None:
        note_made(recorded(), "node-w1")
        world.stuck = True
        with pytest.raises(Unhealthy, match="does not end"):
            none(world)
        assert load_record("theirs").options["node_access"] == "debug" and made(load_record("theirs")) == ["node-w1"]

    def test_refused_while_our_engine_has_rules_on_the_nodes(self, world: World) -> None:
        recorded(network_policy="own")
        world.engine = "own"
        with pytest.raises(BadInput, match=r"the engine own, .* has rules on its nodes.*`lab down --name theirs` removes the engine"):
            none(world)
        assert world.deleted == [] and load_record("theirs").options["node_access"] == "debug"
        world.engine = ""  # somebody removed it (lab 11 does)
        assert none(world) == "none"

    def test_refused_while_a_lab_that_changes_nodes_is_there(self, world: World) -> None:
        recorded()
        world.labs = ["05-statefulset", "08-services"]
        with pytest.raises(BadInput, match=r"the lab 08-services is on cluster 'theirs'.*lab reset --name theirs 08-services$"):
            none(world)
        assert world.deleted == []
        world.labs = ["05-statefulset", "99-of-somebody-else"]
        assert none(world) == "none"


@pytest.mark.parametrize("option", ["--workers", "--proxy-mode"])
def test_what_only_a_cluster_of_ours_can_be_made_as_is_refused(option: str, world: World) -> None:
    with pytest.raises(BadInput, match=rf"keeps its nodes and its kube-proxy as they are, and {option} was given\. Leave it out"):
        provider("kubeconfig").up(ClusterSpec("theirs", said=(option,)), Silent())
    assert not known_clusters()


def test_labs_on_it_are_each_named_once(world: World) -> None:
    world.labs = ["08-services", "05-statefulset", "08-services"]
    assert objects.labs_on(Cluster(recorded(), [])) == ["05-statefulset", "08-services"]
