"""What only a Docker daemon can show. Runs where the suite's cluster is one of kind's: make test PROVIDER=kind, make test-kind."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from lab_utils import artifacts
from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster, known_clusters, load_record
from lab_utils.embedded import kubeadm
from lab_utils.errors import BadInput, Unhealthy
from lab_utils.kind import bootstrap, docker
from lab_utils.kind.settings import container_of
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, provider
from tests.conftest import PROVIDER

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(PROVIDER != "kind", reason="the suite's cluster is none of kind's")]


@pytest.fixture
def theirs(cluster: Cluster) -> Iterator[str]:
    """A container that kind would take for a node of a cluster of that name."""
    name = f"theirs-{os.getpid()}"
    label = f"io.x-k8s.kind.cluster={name}"
    docker.docker("create", "--name", container_of(name, "cp"), "--label", label, cluster.record.options["image"], "true")
    yield name
    docker.docker("rm", "--force", "--volumes", container_of(name, "cp"))


def test_a_cluster_that_lab_did_not_make_is_neither_used_nor_removed(theirs: str, progress: Progress) -> None:
    with pytest.raises(BadInput, match=r"`lab` did not make it.*kind delete cluster --name"):
        provider("kind").up(ClusterSpec(theirs, workers=0), progress)
    assert theirs not in known_clusters()
    provider("kind").down(theirs, progress)
    assert theirs in docker.clusters()


def test_a_stopped_node_is_named_says_so_and_is_started_again(cluster: Cluster, progress: Progress) -> None:
    makes, container = provider("kind"), container_of(cluster.name, "w2")
    docker.docker("stop", "--time", "5", container)
    status = {node.name: node for node in makes.status(cluster.record)}
    assert [node.running for node in status.values()] == [True, True, False]
    assert f"the container {container} does not run; `lab up --name {cluster.name}` starts it again" == status["w2"].detail
    with pytest.raises(Unhealthy, match=r"node w2 \(container .*-worker2\) does not run"):
        cluster.node("w2").run("true")
    again = makes.up(ClusterSpec(cluster.name, workers=2), progress)
    assert again.node("w2").run("hostname").stdout == "w2\n"
    cluster.wait(lambda: all(node.ready for node in makes.status(again.record)), timeout=60)


def test_a_port_that_somebody_takes_while_kind_works_is_named(
    cluster: Cluster, progress: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"busy-{os.getpid()}"
    monkeypatch.setattr("lab_utils.kind.ports.need_free", lambda ports: None)  # it was free when we looked
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the logs go
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        port = theirs.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port} of this host"):
            provider("kind").up(ClusterSpec(name, workers=0, ports=(f"{port}:30080",)), progress)
    assert name not in known_clusters() and name not in docker.clusters()


def test_nodes_get_their_pod_network_from_docker_where_no_cache_has_it(
    cluster: Cluster, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS. Docker is given here what it would have pulled; the nodes then start Pods of it."""
    flannel = {pinned().image(key).name: artifacts.image(key, progress) for key in kubeadm.FLANNEL_IMAGES}
    try:
        for name, archive in flannel.items():
            docker.docker("load", "--input", str(archive), timeout=600)
            assert docker.has_image(name)
        for node in cluster.nodes:
            node.run(["ctr", "-n", "k8s.io", "images", "rm", *flannel], check=True)
        cluster.wait(lambda: not cluster.nodes[0].images() & set(flannel), timeout=30)
        monkeypatch.setattr("lab_utils.artifacts.images.find", lambda image, progress: None)
        bootstrap.load_network(cluster.record, cluster.nodes, progress)
        assert not (cluster.record.folder / bootstrap.NETWORK).exists()
        for node in cluster.nodes:
            cluster.wait(partial(lambda node: set(flannel) <= node.images(), node), timeout=30)
        cluster.kubectl("-n", "kube-flannel", "delete", "pods", "--all", "--timeout=60s")
        cluster.kubectl("-n", "kube-flannel", "rollout", "status", "daemonset/kube-flannel-ds", "--timeout=120s", timeout=140)
    finally:
        docker.docker("image", "rm", "--force", *flannel, check=False)


def test_nodes_that_docker_started_again_are_found_where_they_are_and_settled(cluster: Cluster, progress: Progress) -> None:
    """As after a restart of the machine: all run again, in an order of Docker's own choosing, and so with other addresses."""
    makes, containers = provider("kind"), [container_of(cluster.name, node.name) for node in cluster.nodes]
    old = {node.name: node.ip for node in cluster.nodes}
    there = docker.containers(containers)
    docker.docker("stop", "--time", "5", *containers)
    # Docker gives addresses in the order of starts, so the one with the last of them now gets the first.
    docker.docker("start", *sorted(containers, key=lambda name: ip_address(there[name].ip), reverse=True))
    told = makes.status(load_record(cluster.name))
    assert all(node.running and "Docker has started the container" in node.detail for node in told)
    assert {node.name: node.ip for node in told} != old, "the test shows less than it should"
    again = makes.up(ClusterSpec(cluster.name, workers=2), progress)
    found = docker.containers(containers)
    assert [(node.ip, node.run("hostname").stdout) for node in again.nodes] == [
        (found[container].ip, f"{node.name}\n") for node, container in zip(cluster.nodes, containers, strict=True)
    ]
    assert [node.run("sysctl -n net.ipv4.ip_forward").stdout for node in again.nodes] == ["1\n"] * 3
    known = {item["metadata"]["name"]: item["status"]["addresses"][0]["address"] for item in again.get("nodes")["items"]}
    assert known == {node.name: node.ip for node in again.nodes}
    assert [node.detail for node in makes.status(again.record)] == ["", "", ""]
    # The suite goes on with the cluster as it is now.
    cluster.record, cluster.nodes = again.record, again.nodes
