"""Engines that keep NetworkPolicies: ours comes and goes without a trace, the packaged ones do what they are there for.

The two packaged engines are built from source when they are asked for the first time, some minutes each, and cannot be taken away
without making the cluster anew. So they are tried when LAB_TEST_ENGINES=all, each on a cluster of its own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from lab_utils import network_policy
from lab_utils.cluster import Cluster
from lab_utils.errors import BadInput, HostLacks
from lab_utils.labs.lifecycle import missing_needs
from lab_utils.labs.spec import LabSpec, Needs
from lab_utils.progress import Progress, Silent
from lab_utils.providers import ClusterSpec, provider
from tests.conftest import OWN, PROVIDER

pytestmark = [pytest.mark.cluster, OWN]

POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers:
  - name: netexec
    image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
    args: [netexec, --http-port=8080, --udp-port=-1]
    readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
"""
ONLY_FRIEND = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-friend}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
"""


class Shop:
    """Three Pods: web, a friend beside it and a stranger on another node, and a policy that lets the friend in."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.namespace, self.web = cluster, f"kept-{uuid.uuid4().hex[:6]}", ""

    def open(self) -> None:
        near, far = [node.name for node in self.cluster.workers][:2]
        self.cluster.kubectl("create", "namespace", self.namespace)
        account = ["-n", self.namespace, "get", "serviceaccount", "default", "--ignore-not-found", "-o", "name"]
        self.cluster.wait(lambda: self.cluster.kubectl(*account).stdout, timeout=60)  # a Pod is refused until it is there
        for name, node in (("web", near), ("friend", near), ("stranger", far)):
            self.cluster.apply(POD.replace("NAME", name).replace("NODE", node), self.namespace)
        for name in ("web", "friend", "stranger"):
            self.cluster.wait(f"pod/{name} condition=Ready -n {self.namespace}", timeout=180)
        self.web = self.cluster.get("pod", "web", "-n", self.namespace)["status"]["podIP"]
        self.cluster.apply(ONLY_FRIEND, self.namespace)

    def reaches(self, sender: str) -> bool:
        words = ["-n", self.namespace, "exec", sender, "--", "/agnhost", "connect", f"{self.web}:8080", "--timeout=2s"]
        return self.cluster.kubectl(*words, check=False).ok

    def close(self) -> None:
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=120s", timeout=130)


@pytest.fixture
def shop(cluster: Cluster) -> Iterator[Shop]:
    made = Shop(cluster)
    try:
        made.open()
        yield made
    finally:
        made.close()


def tables(cluster: Cluster) -> dict[str, str]:
    """What of our engine stands in each node's kernel."""
    return {node.name: node.run("nft list tables | grep -o 'policy-.*' || true", check=True).stdout for node in cluster.nodes}


def leftovers(cluster: Cluster) -> str:
    kinds = "daemonsets,configmaps,serviceaccounts,pods"
    words = ["-n", "kube-system", "get", kinds, "-o", "name"], ["get", "clusterroles,clusterrolebindings", "-o", "name"]
    return "\n".join(line for each in words for line in cluster.kubectl(*each).stdout.splitlines() if "policy-agent" in line)


def test_our_own_engine_keeps_a_policy_and_is_taken_away_without_a_trace(cluster: Cluster, shop: Shop) -> None:
    if there := network_policy.keeper_of(cluster):
        pytest.skip(f"in this cluster policies are kept by {there}")
    assert shop.reaches("stranger"), "nobody keeps the policy yet"
    try:
        network_policy.install(cluster, "own", Silent())
        assert network_policy.engine_of(cluster) == network_policy.keeper_of(cluster) == "own"
        cluster.wait(lambda: not shop.reaches("stranger"), timeout=15, why="the stranger still reaches web")
        assert shop.reaches("friend")
        assert all("policy-" in said for said in tables(cluster).values()), tables(cluster)
        network_policy.install(cluster, "own", Silent())  # once more changes nothing
        with pytest.raises(BadInput, match="are kept already, by own"):
            network_policy.install(cluster, "kube-router", Silent())
        lab = LabSpec("98-policies", "Policies", 5, ("Look",), Needs(access="none", network_policy="none"), ("lab-98",))
        assert "(here: own;" in " ".join(missing_needs(lab, cluster))
    finally:
        network_policy.remove(cluster)
    assert network_policy.keeper_of(cluster) == ""
    assert leftovers(cluster) == "" and not any(tables(cluster).values())
    assert shop.reaches("stranger")
    network_policy.remove(cluster)  # nor does that, twice


def test_what_an_engine_was_asked_for_is_forgotten_when_it_is_removed(cluster: Cluster) -> None:
    if there := network_policy.keeper_of(cluster):
        pytest.skip(f"in this cluster policies are kept by {there}")
    before = cluster.record
    try:
        cluster.record = before.but(options={**before.options, "network_policy": "own"})
        network_policy.remove(cluster)
        assert cluster.record.options["network_policy"] == "", "else the next `lab up` would bring it back"
    finally:
        cluster.record = before
        before.save()


def test_an_engine_that_does_not_exist_is_refused(cluster: Cluster) -> None:
    with pytest.raises(BadInput, match="there is no engine 'nonsense'"):
        network_policy.install(cluster, "nonsense", Silent())


@pytest.mark.skipif(os.environ.get("LAB_TEST_ENGINES") != "all", reason="set LAB_TEST_ENGINES=all: builds and a cluster for each engine")
@pytest.mark.parametrize("engine", ["kube-router", "kube-network-policies"])
@pytest.mark.timeout(1800)
def test_a_packaged_engine_keeps_a_policy_and_says_that_it_cannot_be_taken_away(engine: str, progress: Progress) -> None:
    chosen, name = provider(PROVIDER), f"kept-{os.getpid()}"
    try:
        try:
            cluster = chosen.up(ClusterSpec(name, network_policy=engine), progress)
        except HostLacks as error:
            pytest.skip(str(error))
        assert network_policy.engine_of(cluster) == engine
        shop = Shop(cluster)
        shop.open()
        cluster.wait(lambda: not shop.reaches("stranger"), timeout=30, why="the stranger still reaches web")
        assert shop.reaches("friend")
        with pytest.raises(BadInput, match="cannot be taken away cleanly"):
            network_policy.remove(cluster)
    finally:
        chosen.down(name, progress)
