"""The cluster is a genuine one: it carries traffic, answers names, and its nodes look like machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lab_utils.cluster import Cluster
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, Fences, provider
from lab_utils.run import run
from lab_utils.stage import Stage

pytestmark = pytest.mark.cluster

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: client, image: "docker.io/library/busybox:1.37", command: [sleep, "3600"]}]
"""


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[str]:
    """A namespace with three web Pods behind a Service, and a client; gone afterwards."""
    namespace = f"up-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", namespace)
    cluster.apply(WEB, namespace)
    cluster.wait(f"deployment/web condition=Available -n {namespace}", timeout=180)
    cluster.wait(f"pod/client condition=Ready -n {namespace}", timeout=180)
    address = cluster.get("service", "web", "-n", namespace)["spec"]["clusterIP"]
    visits = f"for i in $(seq 24); do curl -s --max-time 3 http://{address}/hostname; echo; done"
    for node in cluster.nodes:  # each node's kube-proxy hears of endpoints by itself, of one after the other, and refuses until it has
        cluster.wait(lambda node=node: len(set(node.run(visits).stdout.split())) == 3, timeout=60)  # type: ignore[misc]
    yield namespace
    cluster.kubectl("delete", "namespace", namespace, "--wait=true")


def test_every_node_is_ready_and_was_made_by_kubeadm(cluster: Cluster) -> None:
    nodes = cluster.get("nodes")["items"]
    assert [node["metadata"]["name"] for node in nodes] == [node.name for node in cluster.nodes]
    for node in nodes:
        assert any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
        assert node["status"]["nodeInfo"]["kubeletVersion"] == cluster.record.kubernetes
        assert node["metadata"]["annotations"]["node.alpha.kubernetes.io/ttl"] == "0"
    assert "kubeadm-config" in cluster.kubectl("get", "configmaps", "-n", "kube-system", "-o", "name").stdout


def test_a_cluster_ip_answers_from_every_node(cluster: Cluster, web: str) -> None:
    address = cluster.get("service", "web", "-n", web)["spec"]["clusterIP"]
    pods = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in cluster.get("pods", "-n", web, "-l", "app=web")["items"]}
    assert len(set(pods.values())) > 1, "the Pods sit on one node, so nothing would cross"
    for node in cluster.nodes:
        answers = {node.run(f"curl -s --max-time 5 http://{address}/hostname", check=True).stdout for _ in range(30)}
        assert answers == set(pods), f"from {node.name}"


def test_a_fence_keeps_everybody_in_and_the_cluster_working(cluster: Cluster, web: str) -> None:
    """A server on the host's side of the cluster's own link stands for everything that lies beyond the cluster."""
    chosen = provider(cluster.provider)
    if not isinstance(chosen, Fences):
        pytest.skip(f"provider {cluster.provider} has no fence")
    gateway = json.loads(cluster.node("cp").run("ip -j route show default", check=True).stdout)[0]["gateway"]
    service = cluster.get("service", "web", "-n", web)["spec"]["clusterIP"]
    with ThreadingHTTPServer((gateway, 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()

        def answers() -> set[str]:
            places = {"out": f"{gateway}:{server.server_port}", "in": service}
            said = {name: pod(f"wget -qSO /dev/null -T 3 http://{place}/ 2>&1") for name, place in places.items()}
            return {name for name in said if "HTTP/" in said[name]}

        def pod(words: str) -> str:
            return cluster.kubectl("exec", "-n", web, "client", "--", "sh", "-c", words, check=False).stdout

        assert answers() == {"out", "in"}
        chosen.fence(cluster.name, True)
        try:
            assert answers() == {"in"}
            assert cluster.node("w1").run("true").ok, "the host still reaches the nodes"
        finally:
            chosen.fence(cluster.name, False)
        assert answers() == {"out", "in"}
        server.shutdown()


SAYS_WHO_ASKS = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.client_address[0].encode())
    def log_message(self, *_):
        pass
HTTPServer(("198.51.100.2", 8000), Handler).serve_forever()
"""


@pytest.fixture
def second_network(cluster: Cluster) -> Iterator[None]:
    """This machine gets a link into another network (RFC 5737's TEST-NET-2, in a namespace), where a server says who asks."""
    if cluster.provider != "embedded" or os.geteuid() != 0:
        pytest.skip("only root may give this machine another link, and only the embedded provider's nodes go out by it")
    place = "lab-test-elsewhere"
    run(["ip", "netns", "add", place])
    try:
        for words in (
            f"ip link add lab-test type veth peer name eth0 netns {place}",
            "ip address add 198.51.100.1/24 dev lab-test",
            "ip link set lab-test up",
            f"ip -n {place} address add 198.51.100.2/24 dev eth0",
            f"ip -n {place} link set eth0 up",
        ):
            run(words.split())
        with subprocess.Popen(["ip", "netns", "exec", place, sys.executable, "-c", SAYS_WHO_ASKS]) as server:
            yield
            server.terminate()
    finally:
        run(["ip", "netns", "delete", place])


def test_pods_go_out_by_every_device_of_the_host(cluster: Cluster, web: str, second_network: None, progress: Progress) -> None:
    """Not only by that of the default route: a VPN for a part of the addresses, or a LAN with a mirror of images in it, is another."""
    out = "wget -qO- -T 3 http://198.51.100.2:8000/"
    provider(cluster.provider).up(ClusterSpec(cluster.name, workers=len(cluster.workers)), progress)
    cluster.wait(lambda: cluster.kubectl("exec", "-n", web, "client", "--", "sh", "-c", out, check=False).stdout == "198.51.100.1")


def test_a_chapter_ends_when_nothing_of_it_is_left_on_the_nodes(cluster: Cluster) -> None:
    """Chapter 06 compares a node with what it was at the chapter's beginning: nothing may go while it is looking."""
    stage = Stage("book-up-test", cluster)
    stage.apply(WEB)
    stage.ready("client")

    def left() -> list[str]:
        looks = f"crictl pods -q --state ready --namespace {stage.namespace}; iptables-save -t nat | grep {stage.namespace}/"
        return [node.name for node in cluster.nodes if node.run(looks).stdout]

    cluster.wait(lambda: left() == [node.name for node in cluster.nodes], why="kube-proxy has not written its rules")
    stage.close()
    assert left() == []


def test_a_pod_resolves_names_and_reaches_the_service_by_name(cluster: Cluster, web: str) -> None:
    said = cluster.kubectl("exec", "-n", web, "client", "--", "wget", "-qO-", f"http://web.{web}.svc.cluster.local/hostname")
    assert said.stdout.startswith("web-")
    looked_up = cluster.kubectl("exec", "-n", web, "client", "--", "nslookup", "kubernetes.default.svc.cluster.local")
    assert "10.96.0.1" in looked_up.stdout


def test_a_node_looks_like_a_machine(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert node.run("cat /proc/1/comm").stdout.strip() == "systemd"
        assert "Active: active (running)" in node.run("systemctl status kubelet --no-pager").stdout
        assert "kubelet" in node.run("journalctl -u kubelet -n 3 --no-pager").stdout
        assert node.run("hostname").stdout.strip() == node.name
        assert not node.run("systemctl --failed --no-legend --plain").stdout.strip()


def test_every_node_is_its_own_machine(cluster: Cluster) -> None:
    for what in ("cat /etc/machine-id", "cat /sys/class/net/eth0/address", "cat /sys/class/dmi/id/product_uuid 2>/dev/null || hostname"):
        seen = [node.run(what).stdout.strip() for node in cluster.nodes]
        assert len(set(seen)) == len(cluster.nodes), f"{what}: {seen}"


def test_crictl_shows_the_containers_of_the_control_plane(cluster: Cluster) -> None:
    names = {container["metadata"]["name"] for container in cluster.node("cp").containers()}
    assert {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kube-flannel"} <= names
    assert {"kubelet", "containerd"}.isdisjoint(names)
    running = {process.args.split()[0].rpartition("/")[2] for process in cluster.node("cp").processes()}
    assert {"kubelet", "containerd", "etcd", "kube-apiserver"} <= running


def test_a_nodes_root_is_its_own_and_the_hosts_sysctls_are_out_of_reach(cluster: Cluster) -> None:
    if cluster.provider != "embedded":
        pytest.skip("kind's containers are privileged and share these sysctls; a virtual machine has its own")
    said = cluster.node("w1").run("sysctl -w vm.overcommit_memory=1; sysctl -w kernel.panic=10; sysctl -w vm.swappiness=1")
    assert "vm.swappiness" not in said.stdout
    cluster.node("w1").run("touch /root/only-here", check=True)
    assert not cluster.node("w2").run("test -e /root/only-here").ok
    cluster.node("w1").run("rm /root/only-here", check=True)


def test_files_go_to_a_node_and_come_back(cluster: Cluster) -> None:
    node = cluster.node("w2")
    data = bytes(range(256)) * 4000
    node.put(data, "/root/a folder/blob", mode=0o640)
    assert node.get("/root/a folder/blob") == data
    assert node.run(["stat", "-c", "%a", "/root/a folder/blob"]).stdout.strip() == "640"
    node.run(["rm", "-r", "/root/a folder"], check=True)


def test_a_command_on_a_node_keeps_its_streams_its_code_and_its_limit(cluster: Cluster) -> None:
    node = cluster.node("w1")
    said = node.run("echo out; echo err >&2; exit 7")
    assert (said.stdout, said.stderr, said.code) == ("out\n", "err\n", 7)
    assert node.run("cat", input="through\n").stdout == "through\n"
    assert node.run("sleep 30", timeout=1).code == 124
    assert len(node.run("head -c 3000000 /dev/zero | tr '\\0' x").stdout) == 3_000_000
