"""Ingress: requests per second and the slowest in a hundred, through the controller of lab 10, through the same NGINX configured by hand,
and through Envoy as Contour has configured it. Everything is on one worker; `wrk` asks, on connections that are kept open. All three have
two threads or processes that carry requests (Envoy: as many as there are processors), and none writes a log of requests.
"""

from __future__ import annotations

import json
import re
import statistics

from lab_utils.cluster import Cluster
from lab_utils.embedded.kubeadm import manifest
from lab_utils.labs.parts import solved
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, provider
from tests.bench.report import Row

NAME = SPACE = "bench-ingress"
IMAGE = "docker.io/kio/ingress:1"
ROUNDS, SECONDS = 5, 5
POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  nodeName: w1
  containers: [{name: main, image: IMAGE, command: [sh, -c, LINE]}]
"""
BEHIND = "events {} http { access_log off; server { listen 8080; return 200 hello; } }"
PLAIN = """
worker_processes 2;
events { worker_connections 4096; }
http {
  access_log off;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  upstream behind { server ADDRESS:8080; keepalive 32; }
  server { listen 80; location / { proxy_pass http://behind; } }
}
"""
WISH = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME}
spec:
  ingressClassName: NAME
  rules: [{host: bench.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: behind, port: {number: 80}}}}]}}]
"""

# As the manifest has it, but for the log of requests, which Contour has Envoy write.
NO_LOG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: contour, namespace: projectcontour}
data:
  contour.yaml: |
    accesslog-level: disabled
    gateway:
      gatewayRef: {name: contour, namespace: projectcontour}
"""


def rows() -> list[Row]:
    chosen = provider("embedded")
    try:
        cluster = chosen.up(ClusterSpec(NAME, workers=1, ingress=True, images=(IMAGE,)), Silent())
        found = measured(cluster, prepared(cluster))
        cluster.close()
    finally:
        chosen.down(NAME, Silent())
    return found


def prepared(cluster: Cluster) -> dict[str, str]:
    """Three ways to the same server; each by where it listens."""
    cluster.kubectl("create", "namespace", SPACE)
    cluster.apply(NO_LOG)
    cluster.kubectl("-n", "projectcontour", "rollout", "restart", "deployment/contour")
    cluster.kubectl("-n", "projectcontour", "rollout", "status", "deployment/contour", "--timeout=120s", timeout=130)
    # A Pod is refused until the namespace's ServiceAccount is there.
    cluster.wait(lambda: cluster.kubectl("-n", SPACE, "get", "serviceaccount", "default", check=False).ok, timeout=60)
    behind = pod(cluster, "behind", BEHIND)
    cluster.kubectl("-n", SPACE, "label", "pod", "behind", "app=behind")
    cluster.kubectl("-n", SPACE, "create", "service", "clusterip", "behind", "--tcp=80:8080")
    plain = pod(cluster, "plain", PLAIN.replace("ADDRESS", behind))
    pod(cluster, "client", "")
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ingress", "namespace": SPACE}, "data": solved("10")})
    cluster.apply(manifest("own-ingress", NAMESPACE=SPACE))
    for name in (SPACE, "contour"):
        cluster.apply(WISH.replace("NAME", name), SPACE)
    cluster.wait(f"deployment/ingress condition=Available -n {SPACE}", timeout=180)
    own = address(cluster, SPACE, "app=ingress")
    envoy = f"{address(cluster, 'projectcontour', 'app=envoy')}:8080"
    found = {"own": own, "plain": plain, "contour": envoy}
    for where in found.values():
        cluster.wait(lambda where=where: "hello" in inside(cluster, f"curl -s -H 'Host: bench.example' http://{where}/"), timeout=60)  # type: ignore[misc]
    return found


def pod(cluster: Cluster, name: str, config: str) -> str:
    """A Pod with the image's NGINX and this configuration; without one it only waits. Its address."""
    line = f"echo '{config}' > /tmp/nginx.conf; exec nginx -c /tmp/nginx.conf -g 'daemon off;'" if config else "exec sleep infinity"
    cluster.apply(POD.replace("NAME", name).replace("IMAGE", IMAGE).replace("LINE", json.dumps(line)), SPACE)
    cluster.wait(f"pod/{name} condition=Ready -n {SPACE}", timeout=120)
    return str(cluster.get("pod", name, "-n", SPACE)["status"]["podIP"])


def address(cluster: Cluster, namespace: str, label: str) -> str:
    return str(cluster.get("pods", "-n", namespace, "-l", label, "--field-selector=spec.nodeName=w1")["items"][0]["status"]["podIP"])


def inside(cluster: Cluster, command: str) -> str:
    return cluster.kubectl("-n", SPACE, "exec", "client", "--", "sh", "-c", command, check=False).stdout


def asked(cluster: Cluster, where: str) -> tuple[float, float]:
    """Requests per second, and milliseconds that one in a hundred takes at least."""
    said = inside(cluster, f"wrk -t1 -c32 -d{SECONDS}s --latency -H 'Host: bench.example' http://{where}/")
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]), float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]  # type: ignore[index]


def measured(cluster: Cluster, ways: dict[str, str]) -> list[Row]:
    for where in ways.values():
        asked(cluster, where)  # a round that does not count
    rounds = [{name: asked(cluster, where) for name, where in ways.items()} for _ in range(ROUNDS)]
    found = []
    for other, name in (("plain", "the same NGINX by hand"), ("contour", "Contour's Envoy")):
        for number, what, unit in ((0, "requests per second", "/s"), (1, "99th percentile", " ms")):
            ours, theirs = (statistics.median(each[who][number] for each in rounds) for who in ("own", other))
            ratio = statistics.median(each["own"][number] / each[other][number] for each in rounds)
            found.append(Row(f"{what}: own controller / {name}", f"{ours:.3g}{unit}", f"{theirs:.3g}{unit}", f"{ratio:.2f}"))
    return found
