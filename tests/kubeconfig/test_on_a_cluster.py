"""The kubeconfig provider on a real cluster: the suite's own, used as if it were somebody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab_utils.checks import run_checks
from lab_utils.cluster import Cluster, cluster_dir, known_clusters
from lab_utils.errors import BadInput, NoNodeAccess
from lab_utils.kubeconfig.access import NAMESPACE
from lab_utils.kubeconfig.objects import ours
from lab_utils.labs.catalog import find_lab
from lab_utils.labs.context import CheckContext
from lab_utils.labs.lifecycle import clean, missing_needs, prepare
from lab_utils.labs.store import Store
from lab_utils.labs.workspace import LABEL
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, provider
from tests.providers.test_conformance import everything

pytestmark = pytest.mark.cluster


@pytest.fixture
def name(cluster: Cluster, progress: Progress) -> Iterator[str]:
    name = f"theirs-{os.getpid()}"
    yield name
    provider("kubeconfig").down(name, progress)


@pytest.fixture
def looking(cluster: Cluster, name: str, progress: Progress) -> Cluster:
    """Without access to the nodes."""
    return provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(cluster.kubeconfig)), progress)


@pytest.fixture
def inside(cluster: Cluster, name: str, progress: Progress) -> Cluster:
    """With the Pods that reach them."""
    return provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(cluster.kubeconfig), node_access="debug"), progress)


def test_it_is_seen_as_it_is_and_nothing_is_made_on_it(cluster: Cluster, looking: Cluster) -> None:
    assert [(node.name, node.role, node.ip) for node in looking.nodes] == [(node.name, node.role, node.ip) for node in cluster.nodes]
    assert looking.record.kubernetes == cluster.record.kubernetes
    assert all(node.running and node.ready for node in provider("kubeconfig").status(looking.record))
    assert ours(looking) == []
    assert looking.kubeconfig != cluster.kubeconfig and looking.kubeconfig.stat().st_mode & 0o077 == 0


def test_without_access_every_way_onto_a_node_says_what_would_give_it(looking: Cluster, tmp_path: Path) -> None:
    node = looking.nodes[0]
    for attempt in (lambda: node.run("true"), lambda: node.put(b"", "/root/x"), lambda: node.get("/etc/hosts"), node.iptables):
        with pytest.raises(NoNodeAccess, match=r"gives no access to its nodes.*--node-access debug"):
            attempt()
    with pytest.raises(BadInput, match="images cannot be loaded"):
        provider("kubeconfig").load(looking.record, tmp_path / "image.tar", _quiet())


def test_a_lab_says_which_steps_it_loses_without_access(looking: Cluster) -> None:
    lab = find_lab("08")
    told = missing_needs(lab.spec, looking, lab.checks)
    assert len(told) == 1 and told[0].startswith("access to its nodes: without it these steps are skipped: ")
    assert "chains" in told[0]


def test_with_access_commands_run_on_the_nodes_themselves(cluster: Cluster, inside: Cluster) -> None:
    assert ours(inside) == [], "a Pod was made before anybody asked for a node"
    for theirs, node in zip(cluster.nodes, inside.nodes, strict=True):
        said = node.run("hostname; id -u; echo err >&2; exit 5")
        assert (said.stdout, said.stderr, said.code) == (theirs.run("hostname").stdout + "0\n", "err\n", 5)
        assert node.run("cat /proc/self/mountinfo | wc -l").code == 0
        assert {link["ifname"] for link in node.links()} >= {"eth0", "flannel.1"}
    assert ours(inside) == [NAMESPACE]
    assert len(inside.get("pods", "-n", NAMESPACE)["items"]) == len(inside.nodes)


def test_reset_and_down_remove_what_labs_made_and_nothing_else(cluster: Cluster, inside: Cluster, name: str, progress: Progress) -> None:
    cluster.kubectl("create", "namespace", "somebodys-own")
    before = everything(cluster)
    try:
        for _ in range(2):
            inside.nodes[0].run("true", check=True)
            labels = {"labels": {LABEL: "99-example"}}
            inside.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab-99", **labels}})
            role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "lab-99", **labels}}
            inside.apply({**role, "rules": []})
            assert ours(inside) == [NAMESPACE, "lab-99"]
            inside = provider("kubeconfig").reset(name, progress)
            assert everything(cluster) == before
        inside.nodes[0].run("true", check=True)
        provider("kubeconfig").down(name, progress)
        assert everything(cluster) == before
        assert name not in known_clusters() and not cluster_dir(name).exists()
        provider("kubeconfig").down(name, progress)  # once more does no harm
    finally:
        cluster.kubectl("delete", "namespace", "somebodys-own")


def test_what_a_lab_did_to_nodes_is_undone_too(inside: Cluster, name: str, progress: Progress) -> None:
    node = inside.nodes[-1]
    inside.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab-08", "labels": {LABEL: "08-services"}}})
    node.run("iptables -w -t mangle -A POSTROUTING -d 192.0.2.1 -m comment --comment 'lab-08: a rule of the lab' -j DROP", check=True)
    inside = provider("kubeconfig").reset(name, progress)
    assert ours(inside) == []
    assert "lab-08" not in inside.nodes[-1].run("iptables-save -t mangle", check=True).stdout


def test_without_access_a_lab_is_prepared_and_its_other_steps_can_be_checked(looking: Cluster, tmp_path: Path) -> None:
    lab = find_lab("08")
    context = CheckContext(lab.spec, lab.checks, looking, "somebody", Store(lab.name, tmp_path))
    try:
        assert prepare(context)
        lost, kept = (run_checks(lab.checks, context, only=step)[0] for step in ("chains", "diagnose"))
        assert (lost.status, lost.counts) == ("skipped", False)
        assert kept.status == "failed", "it is checked: nothing was answered"
    finally:
        clean(context)
    assert ours(looking) == []


def test_a_user_who_may_only_look_is_refused_with_what_is_missing(cluster: Cluster, name: str, progress: Progress, tmp_path: Path) -> None:
    cluster.kubectl("create", "serviceaccount", name, "-n", "default")
    cluster.kubectl("create", "clusterrolebinding", name, "--clusterrole=view", f"--serviceaccount=default:{name}")
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    cluster.apply({**role, "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]})
    cluster.kubectl("create", "clusterrolebinding", f"{name}-nodes", f"--clusterrole={name}", f"--serviceaccount=default:{name}")
    try:
        token = cluster.kubectl("create", "token", name, "-n", "default").stdout.strip()
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        with pytest.raises(BadInput, match=r"may not create namespaces on https://.*cluster-admin"):
            provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(path)), progress)
        assert name not in known_clusters() and not cluster_dir(name).exists()
    finally:
        cluster.kubectl("delete", "clusterrolebinding", name, f"{name}-nodes")
        cluster.kubectl("delete", "clusterrole", name)
        cluster.kubectl("delete", "serviceaccount", name, "-n", "default")


def test_a_cluster_that_went_away_can_still_be_forgotten(looking: Cluster, name: str, progress: Progress) -> None:
    text = looking.kubeconfig.read_text()
    looking.kubeconfig.write_text(text.replace(str(looking.record.options["server"]), "https://127.0.0.1:1"))
    assert not any(node.running for node in provider("kubeconfig").status(looking.record))
    provider("kubeconfig").down(name, progress)
    assert name not in known_clusters()


def _quiet() -> Progress:
    from lab_utils.progress import Silent

    return Silent()
