"""A cluster's whole life on its own: side by side with another, reset, killed half-way, and gone without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab_utils.cluster import Cluster, cluster_dir, known_clusters
from lab_utils.diagnose import walk
from lab_utils.embedded import pristine, state
from lab_utils.embedded.gate import proxy_has_synced
from lab_utils.paths import root_state_dir
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, provider
from lab_utils.run import run
from tests.cluster.leaks import difference, look
from tests.conftest import EMBEDDED
from tests.providers.pristine import everything

pytestmark = [pytest.mark.cluster, EMBEDDED]  # of every provider: tests/providers/test_conformance.py


@pytest.fixture
def second(cluster: Cluster, progress: Progress) -> Iterator[str]:
    """A name for a cluster beside the suite's own; whatever a test makes of it is removed."""
    name = "second"
    yield name
    provider("embedded").down(name, progress)


def test_reset_brings_back_exactly_the_pristine_objects(cluster: Cluster, progress: Progress) -> None:
    chosen = provider(cluster.provider)
    chosen.reset(cluster.name, progress)
    cluster.close()
    pristine = everything(cluster, exactly=True)
    cluster.kubectl("create", "namespace", "litter")
    cluster.kubectl("create", "configmap", "litter", "-n", "kube-system")
    cluster.kubectl("delete", "deployment", "coredns", "-n", "kube-system")
    cluster.kubectl("taint", "node", "w1", "litter=here:NoSchedule")
    cluster.node("w1").run("touch /root/litter; rm -rf /opt/cni/bin/flannel", check=True)
    cluster.node("w1").run("ip link add litter type bridge; ip route del default; iptables -I INPUT -p icmp -j DROP", check=True)
    chosen.reset(cluster.name, progress)
    cluster.close()
    assert everything(cluster, exactly=True) == pristine
    assert not cluster.get("node", "w1")["spec"].get("taints")
    assert not cluster.node("w1").run("test -e /root/litter").ok
    assert cluster.node("w1").run("test -x /opt/cni/bin/flannel").ok
    assert not cluster.node("w1").run("ip link show litter").ok
    assert cluster.node("w1").run("ip route show default").stdout.startswith("default via ")
    for node in cluster.nodes:
        assert proxy_has_synced(node.run("curl -s http://127.0.0.1:10256/healthz").stdout), f"a Service made now is unknown to {node}"
    assert cluster.node("cp").run(f"ping -c 1 -W 5 {cluster.node('w1').ip}").ok


def test_a_reset_that_was_killed_half_way_is_finished_by_the_next_up(cluster: Cluster, progress: Progress) -> None:
    def restoring() -> bool:
        known = state.load(cluster.name)
        return bool(known and known.restoring)

    cluster.kubectl("create", "namespace", "litter")
    cluster.node("w1").run("touch /root/litter", check=True)
    process = start("reset", "--name", cluster.name)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not restoring():
        time.sleep(0.02)
    time.sleep(0.5)
    assert process.poll() is None and restoring()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    provider(cluster.provider).up(ClusterSpec(cluster.name, workers=len(cluster.workers)), progress)
    cluster.close()
    assert not restoring()
    assert not cluster.node("w1").run("test -e /root/litter").ok
    assert "litter" not in cluster.kubectl("get", "namespaces", "-o", "name").stdout


def test_a_fresh_network_takes_the_rules_that_reset_gives_it(cluster: Cluster) -> None:
    known = state.load(cluster.name)
    assert known
    text = (known.folder / "pristine" / "w1.iptables-save").read_text()
    run(["ip", "netns", "add", "takes-rules"])
    try:
        done = pristine.load_rules("iptables-restore", text, netns="takes-rules", root=known.lower)
        there = run(["nsenter", "--net=/run/netns/takes-rules", "chroot", known.lower, "iptables-save"]).stdout
    finally:
        run(["ip", "netns", "delete", "takes-rules"])
    assert done.ok, done.stderr
    assert "default/kubernetes:https cluster IP" in there


def test_two_clusters_side_by_side_and_nothing_left_of_the_second(cluster: Cluster, second: str, progress: Progress) -> None:
    before = look()
    made = provider("embedded").up(ClusterSpec(second, workers=1, proxy_mode="nftables"), progress)
    try:
        assert {node.ip for node in made.nodes}.isdisjoint({node.ip for node in cluster.nodes})
        made.kubectl("create", "namespace", "only-here")
        assert "only-here" not in cluster.kubectl("get", "namespaces", "-o", "name").stdout
        assert "table ip kube-proxy" in made.node("w1").run("nft list tables").stdout
        dns = made.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
        assert made.node("cp").run(f"dig +short @{dns} kubernetes.default.svc.cluster.local").stdout.strip() == "10.96.0.1"
        assert all(layer.ok for layer in walk(made))
        made.node("w1").run("nft delete element ip kube-proxy service-ips '{ 10.96.0.10 . udp . 53 }'", check=True)
        *_, last = walk(made)
        seen = [found.seen for found in last.findings]
        assert last.layer == "kube-proxy" and seen[0].startswith("its rules send 10.96.0.10 (kube-dns) to nowhere, not to 10.244."), seen
        # The same command again finds it made, and makes nothing.
        again = provider("embedded").up(ClusterSpec(second, workers=1), progress)
        assert [node.ip for node in again.nodes] == [node.ip for node in made.nodes]
    finally:
        made.close()
        provider("embedded").down(second, progress)
    assert difference(before, look()) == []
    assert not (root_state_dir() / second).exists() and not cluster_dir(second).exists()
    provider("embedded").down(second, progress)  # once more does no harm


@pytest.mark.parametrize(
    ("how", "after"), [(signal.SIGKILL, 3.0), (signal.SIGKILL, 6.0), (signal.SIGINT, 3.0)], ids=["killed early", "killed later", "Ctrl-C"]
)
def test_an_up_that_ends_half_way_leaves_nothing_that_down_does_not_remove(
    cluster: Cluster, second: str, progress: Progress, how: signal.Signals, after: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the logs go
    before = look()
    process = start("up", "--name", second, "--workers", "1")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not state.load(second):
        time.sleep(0.05)
    time.sleep(after)
    assert process.poll() is None, "it had already ended"
    os.killpg(process.pid, how)
    process.wait(60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert second not in known_clusters() and not (root_state_dir() / second).exists()
    provider("embedded").down(second, progress)
    assert difference(before, look()) == []


def start(*words: str) -> subprocess.Popen[Any]:
    return subprocess.Popen(
        [sys.executable, "-m", "lab_utils", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_a_folder_that_lost_its_record_is_still_removed(cluster: Cluster, second: str, progress: Progress) -> None:
    folder = root_state_dir() / second
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{ half of a rec")
    provider("embedded").down(second, progress)
    assert not Path(folder).exists()
