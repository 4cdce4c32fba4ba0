"""What dies comes back: kubelet and containerd by systemd, etcd by kubelet; a killed node by `lab up`."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from lab_utils.cluster import Cluster
from lab_utils.diagnose import walk
from lab_utils.embedded import state
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, provider
from lab_utils.run import run
from tests.conftest import OWN

pytestmark = [pytest.mark.cluster, OWN]


@pytest.mark.parametrize("unit", ["kubelet", "containerd"])
def test_a_killed_service_of_a_node_is_started_again(cluster: Cluster, unit: str) -> None:
    node = cluster.node("w1")
    before = node.run(f"systemctl show -p MainPID --value {unit}", check=True).stdout.strip()
    node.run(f"kill -9 {before}", check=True)

    def again() -> bool:
        now = node.run(f"systemctl show -p MainPID --value {unit}").stdout.strip()
        return now not in ("0", "", before) and node.run(f"systemctl is-active {unit}").stdout.strip() == "active"

    cluster.wait(again, timeout=60)
    assert node.run("crictl ps -q").stdout.strip(), "its containers went on"
    all_layers_work(cluster)


def test_a_killed_etcd_comes_back_with_its_data(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "remember", "-n", "default", "--from-literal=this=stays")
    node = cluster.node("cp")
    before = node.run("pgrep -x etcd", check=True).stdout.strip()
    node.run(f"kill -9 {before}", check=True)
    cluster.wait(lambda: node.run("pgrep -x etcd").stdout.strip() not in ("", before), timeout=90)
    cluster.wait(lambda: cluster.kubectl("get", "--raw=/readyz", check=False).ok, timeout=120)
    assert cluster.get("configmap", "remember", "-n", "default")["data"] == {"this": "stays"}
    cluster.kubectl("delete", "configmap", "remember", "-n", "default")
    all_layers_work(cluster)


def test_a_killed_node_is_named_and_started_again(cluster: Cluster, progress: Progress) -> None:
    if cluster.provider != "embedded":
        pytest.skip(f"only embedded nodes are killed this way, not those of {cluster.provider}")
    known = state.load(cluster.name)
    assert known
    cluster.node("w2").run("ip link add litter type bridge", check=True)
    os.kill(known.launchers["w2"][0], signal.SIGKILL)
    chosen = provider("embedded")
    cluster.wait(lambda: not next(node for node in chosen.status(cluster.record) if node.name == "w2").running, timeout=20)
    running = {node.name: node.running for node in chosen.status(cluster.record)}
    assert running == {"cp": True, "w1": True, "w2": False}
    for words in (["ssh", "w2", "--", "true"], ["logs", "w2"]):
        said = run([sys.executable, "-m", "lab_utils", words[0], "--name", cluster.name, *words[1:]], check=False)
        assert said.code == 1 and said.stderr.startswith(f"lab: node w2 of cluster '{cluster.name}' does not answer ("), said.stderr
        assert len(said.stderr.splitlines()) == 1
    run(["ip", "-n", known.plan.netns("w2"), "link", "delete", "eth0"])  # as if a start had been killed while it wired the node
    chosen.up(ClusterSpec(cluster.name, workers=2), progress)
    assert all(node.running and node.ready for node in chosen.status(cluster.record))
    cluster.close()
    assert not cluster.node("w2").run("ip link show litter").ok, "a machine that boots has none of the links of its life before"
    all_layers_work(cluster)


def test_a_broken_layer_is_named_with_its_evidence(cluster: Cluster) -> None:
    node = cluster.node("w1")
    node.run("mv /etc/cni/net.d/10-flannel.conflist /root/", check=True)
    try:
        assert broken(cluster) == ("CNI", [("w1", "no network configuration in /etc/cni/net.d")])
        cluster.wait("node/w1 condition=Ready=false", timeout=60)
    finally:
        node.run("mv /root/10-flannel.conflist /etc/cni/net.d/", check=True)
    # A file that is moved in is one that containerd passes over, so the node stays as it was.
    layer, seen = broken(cluster)
    assert layer == "CNI"
    assert seen[0][1].startswith("containerd has not taken up /etc/cni/net.d/10-flannel.conflist: ")
    node.run("systemctl restart containerd", check=True)
    cluster.wait("node/w1 condition=Ready", timeout=60)
    all_layers_work(cluster)


def test_a_dns_server_that_is_not_there_is_no_matter_of_routes_or_rules(cluster: Cluster) -> None:
    dns = ["deployment/coredns", "-n", "kube-system"]
    count = str(cluster.get(*dns)["spec"]["replicas"])
    cluster.kubectl("scale", *dns, "--replicas=0")
    try:
        cluster.wait(lambda: not cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"], timeout=90)
        layer, seen = broken(cluster)
        assert (layer, {what for _, what in seen}) == ("DNS", {"no Pod of CoreDNS is ready: there is none"})
    finally:
        cluster.kubectl("scale", *dns, f"--replicas={count}")
    all_layers_work(cluster)


def broken(cluster: Cluster) -> tuple[str, list[tuple[str, str]]]:
    """The first broken layer, and what was seen where."""
    *fine, last = list(walk(cluster))
    assert all(report.ok for report in fine)
    assert not last.ok, "every layer works"
    return last.layer, [(found.node, found.seen) for found in last.findings]


def all_layers_work(cluster: Cluster) -> None:
    def report() -> bool:
        return all(layer.ok for layer in walk(cluster))

    cluster.wait(report, timeout=120, every=1, why="\n".join(str(layer) for layer in walk(cluster) if not layer.ok))
