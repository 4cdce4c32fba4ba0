"""`lab up` (embedded) beside `kind create cluster`: the same Kubernetes, two nodes each, the same images on them before they start.

Both run in turn in the namespaces of `make test-kind`, and both are stopped at the same line: all Pods are Ready, and from each node
every CoreDNS Pod answers, which crosses the nodes. kind is stock: its own defaults, its node image with flannel as the Pod network.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord
from lab_utils.errors import LabError
from lab_utils.kind.node import KindNode
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, provider
from lab_utils.providers.common import host_kubectl
from lab_utils.run import run
from tests.bench.report import Row, seconds

NAME = "race"
ROUNDS = 3
PATIENCE = 300


def rows() -> list[Row]:
    from tests.kind.__main__ import check_host

    with tempfile.TemporaryDirectory() as folder:
        try:
            check_host(Path(folder))
        except LabError as error:
            return [Row(f"skipped: Docker cannot run here ({error.what})", "-", "-", "-")]
        result = Path(folder) / "rows.json"
        done = subprocess.run([sys.executable, "-m", "tests.kind", "--bench", str(result)], stdout=sys.stderr)
        if done.returncode != 0 or not result.exists():
            return [Row("skipped: Docker did not start here; the lines above say why", "-", "-", "-")]
        return [Row(*row) for row in json.loads(result.read_text())]


def race(image: str) -> list[Row]:
    """Run by tests.kind.inside, where there is a Docker daemon."""
    pairs = [(lab_up(), kind_create(image)) for _ in range(ROUNDS)]
    found = []
    for index, what in enumerate(("to the command's end", "to all Pods Ready and traffic between the nodes")):
        ours, other = statistics.median(a[index] for a, _ in pairs), statistics.median(b[index] for _, b in pairs)
        ratio = statistics.median(a[index] / b[index] for a, b in pairs)
        found.append(Row(f"lab up / kind create cluster, 2 nodes, {what}", f"{ours:.1f} s", f"{other:.1f} s", f"{ratio:.2f}"))
    return found


def lab_up() -> tuple[float, float]:
    embedded = provider("embedded")
    try:
        begun = time.perf_counter()
        cluster = embedded.up(ClusterSpec(NAME, workers=1), Silent())
        command = time.perf_counter() - begun
        return command, command + seconds(lambda: finish(cluster, cluster.nodes))
    finally:
        embedded.down(NAME, Silent())


def kind_create(image: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig, config = Path(folder) / "kubeconfig", Path(folder) / "kind.yaml"
        # What kind itself needs on a host with cgroup v1; everything else is its default.
        patch = "kubeadmConfigPatches:\n- |\n  kind: KubeletConfiguration\n  failCgroupV1: false\n"
        config.write_text(
            f"kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n{patch}nodes:\n- {{role: control-plane}}\n- {{role: worker}}\n"
        )
        words: list[str | Path] = [
            "kind",
            "create",
            "cluster",
            "--name",
            NAME,
            "--image",
            image,
            "--config",
            config,
            "--kubeconfig",
            kubeconfig,
        ]
        try:
            command = seconds(lambda: run(words, timeout=900))
            nodes = [KindNode(NodeRecord(name, "", "", {"container": f"{NAME}-{name}"})) for name in ("control-plane", "worker")]
            cluster = Cluster(ClusterRecord(NAME, "kind", "up", str(kubeconfig), [], kubectl=host_kubectl()), nodes)
            return command, command + seconds(lambda: finish(cluster, nodes))
        finally:
            run(["kind", "delete", "cluster", "--name", NAME, "--kubeconfig", kubeconfig])


def finish(cluster: Cluster, nodes: Sequence[Node]) -> None:
    until(lambda: all_ready(cluster), "all Pods Ready")
    pods = cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]
    addresses = [pod["status"]["podIP"] for pod in pods]
    curl = "curl -sf -o /dev/null --max-time 2"
    for node in nodes:
        until(lambda node=node: all(node.run(f"{curl} http://{ip}:8181/ready").ok for ip in addresses), f"traffic from {node.name}")  # type: ignore[misc]


def all_ready(cluster: Cluster) -> bool:
    pods = cluster.get("pods", "-A")["items"]
    ready = [any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", [])) for pod in pods]
    return len(pods) >= 8 and all(ready)


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come about")
        time.sleep(0.2)
