"""How long a new policy is only a wish: from the moment when the API server is told to the first connection that fails.

Two Pods on two nodes; one connects to the other without pause, and notes when it began to. So it does not matter whether an engine
refuses or drops. There are 10, 100 or 1,000 other policies meanwhile, for a third Pod.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kubernetes.client import NetworkingV1Api

from lab_utils.cluster import Cluster
from lab_utils.progress import Progress
from lab_utils.stage import Stage

TIMES = 5
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
KNOCK = "while began=$EPOCHREALTIME; timeout 1 bash -c ': <>/dev/tcp/ADDRESS/8080' 2>/dev/null; do :; done; echo $began"
SHUT: Any = {"metadata": {"name": "shut"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}}}}


def table(cluster: Cluster, engine: str, progress: Progress) -> Iterator[str]:
    yield "| engine | other policies | median | longest |"
    yield "|---|---:|---:|---:|"
    stage = Stage("book-netpol-clock", cluster)
    try:
        near, far = [node.name for node in cluster.workers][:2]
        for name, node in (("web", near), ("other", near), ("guest", far)):
            cluster.apply(POD.replace("NAME", name).replace("NODE", node), stage.namespace)
        stage.ready("web", "other", "guest")
        there = 0
        for count in (10, 100, 1000):
            with progress.step(f"{count} other policies"):
                for first in range(there, count, 100):
                    cluster.apply([other(number) for number in range(first, min(first + 100, count))], stage.namespace)
                there = count
                time.sleep(10)
                seconds = [once(stage) for _ in range(TIMES)]
            yield f"| {engine} | {count:,} | {statistics.median(seconds):.2f} s | {max(seconds):.2f} s |"
    finally:
        stage.close()


def other(number: int) -> dict[str, Any]:
    """A policy for the third Pod, which lets the guest in on one port more."""
    guest, port = {"podSelector": {"matchLabels": {"app": "guest"}}}, {"port": 10000 + number}
    spec = {"podSelector": {"matchLabels": {"app": "other"}}, "ingress": [{"from": [guest], "ports": [port]}]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": f"other-{number}"}, "spec": spec}


def once(stage: Stage) -> float:
    address = stage.get("pod web")["status"]["podIP"]
    api = NetworkingV1Api(stage.cluster.client)
    knock = KNOCK.replace("ADDRESS", address)
    stage.cluster.wait(lambda: answers(stage, address), timeout=60, why="web does not answer")
    with ThreadPoolExecutor(1) as pool:
        words = ["-n", stage.namespace, "exec", "guest", "--", "timeout", "60", "bash", "-c", knock]
        knocking = pool.submit(stage.cluster.kubectl, *words, timeout=90)
        time.sleep(2)
        told = time.time()
        api.create_namespaced_network_policy(stage.namespace, SHUT)
        failed = float(knocking.result().stdout)
    stage.quietly("delete networkpolicy shut")
    return failed - told


def answers(stage: Stage, address: str) -> bool:
    words = ["-n", stage.namespace, "exec", "guest", "--", "/agnhost", "connect", f"{address}:8080", "--timeout=2s"]
    return stage.cluster.kubectl(*words, check=False).ok
