"""What only a Docker daemon can show. Runs where the suite's cluster is one of kind's: make test PROVIDER=kind, make test-kind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab_utils.cluster import Cluster, known_clusters
from lab_utils.errors import BadInput, Unhealthy
from lab_utils.kind import docker
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
