"""`lab diagnose`: walk up through the layers and name the first one that is broken, with the evidence.

    node → runtime → kubelet → API server → CNI → route → kube-proxy → DNS

A mistake low down shows itself high up ("DNS is broken"); asking from the bottom finds it where it is. Each layer is
a function that looks at one node and returns what it saw wrong, or nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lab_utils.cluster import Cluster, Node
from lab_utils.errors import CommandFailed, Unhealthy


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, what was seen, and where to look next."""

    node: str
    seen: str
    look: str


@dataclass(frozen=True)
class LayerReport:
    layer: str
    asks: str
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        return not self.findings


Look = Callable[[Cluster, Node], Finding | None]


def walk(cluster: Cluster) -> Iterator[LayerReport]:
    """Each layer's report, from the bottom up; ends with the first that is broken."""
    for layer, asks, look in LAYERS:
        findings = [found for node in cluster.nodes if (found := _looked(look, cluster, node))]
        yield LayerReport(layer, asks, findings)
        if findings:
            return


def _looked(look: Look, cluster: Cluster, node: Node) -> Finding | None:
    try:
        return look(cluster, node)
    except (CommandFailed, Unhealthy) as error:
        return Finding(node.name, str(error), f"lab logs {node.name}")


def node_answers(cluster: Cluster, node: Node) -> Finding | None:
    said = node.run("true", timeout=15)
    return None if said.ok else Finding(node.name, f"a shell answers with code {said.code}: {said.stderr.strip()}", "lab status")


def runtime_answers(cluster: Cluster, node: Node) -> Finding | None:
    unit = node.run("systemctl is-active containerd").stdout.strip()
    if unit != "active":
        return Finding(node.name, f"the unit containerd is {unit}", f"lab logs {node.name} containerd")
    said = node.run("timeout 10 crictl version")
    return (
        None
        if said.ok
        else Finding(node.name, f"containerd's CRI socket does not answer: {_last(said.stderr)}", f"lab logs {node.name} containerd")
    )


def kubelet_runs(cluster: Cluster, node: Node) -> Finding | None:
    unit = node.run("systemctl is-active kubelet").stdout.strip()
    if unit == "active":
        return None
    why = _last(node.run("journalctl -u kubelet -n 30 --no-pager -o cat | grep -E '^(E|F)|error|failed' | tail -1").stdout)
    return Finding(node.name, f"the unit kubelet is {unit}{f': {why}' if why else ''}", f"lab logs {node.name} kubelet")


def api_server_is_ready(cluster: Cluster, node: Node) -> Finding | None:
    if node.role != "control-plane":
        return None
    said = node.run("timeout 10 curl -sk https://localhost:6443/readyz")
    if said.stdout.strip() == "ok":
        return None
    missing = sorted({"etcd", "kube-apiserver"} - {container["metadata"]["name"] for container in node.containers()})
    seen = f"no running container is called {' or '.join(missing)}" if missing else f"/readyz says {said.stdout.strip() or 'nothing'}"
    return Finding(node.name, seen, f"lab ssh {node.name} -- crictl ps -a; lab ssh {node.name} -- ls /etc/kubernetes/manifests")


def network_is_configured(cluster: Cluster, node: Node) -> Finding | None:
    """What keeps a node NotReady most often: no configuration for the runtime, or a plugin that it names and that is not there."""
    files = node.run("ls /etc/cni/net.d 2>/dev/null").stdout.split()
    wanted = sorted(file for file in files if file.endswith((".conflist", ".conf", ".json")))
    if not wanted:
        return Finding(node.name, "no network configuration in /etc/cni/net.d", "lab kubectl -- get pods -n kube-flannel -o wide")
    text = node.run(["cat", f"/etc/cni/net.d/{wanted[0]}"]).stdout
    try:
        config = json.loads(text)
        kinds = [plugin["type"] for plugin in config.get("plugins", [config])]
    except (ValueError, KeyError, TypeError) as error:
        return Finding(
            node.name,
            f"/etc/cni/net.d/{wanted[0]} is no CNI configuration: {error}",
            f"lab ssh {node.name} -- cat /etc/cni/net.d/{wanted[0]}",
        )
    absent = [kind for kind in kinds if not node.run(["test", "-x", f"/opt/cni/bin/{kind}"]).ok]
    if absent:
        return Finding(
            node.name, f"{wanted[0]} names the plugin {absent[0]!r}, and /opt/cni/bin has none", f"lab ssh {node.name} -- ls /opt/cni/bin"
        )
    if network := _runtime_says(node, "NetworkReady"):
        # It reads the folder when a file there is written, deleted or renamed; one that is moved in from elsewhere it passes over
        # (containerd, internal/cri/server/cni_conf_syncer.go).
        return Finding(
            node.name,
            f"containerd has not taken up /etc/cni/net.d/{wanted[0]}: {network}",
            f"lab ssh {node.name} -- systemctl restart containerd",
        )
    api = cluster.get("node", node.name)
    ready: dict[str, Any] = next((c for c in api["status"].get("conditions", []) if c["type"] == "Ready"), {})
    if ready.get("status") != "True":
        return Finding(
            node.name, f"the node is not Ready: {ready.get('message', 'it said nothing yet')}", f"lab kubectl -- describe node {node.name}"
        )
    return None


def routes_lead_to_every_node(cluster: Cluster, node: Node) -> Finding | None:
    routes = {route["dst"]: route for route in json.loads(node.run("ip -j -4 route", check=True).stdout)}
    for other in cluster.get("nodes")["items"]:
        cidr, name = other["spec"].get("podCIDR"), other["metadata"]["name"]
        if not cidr or name == node.name:
            continue
        if cidr not in routes:
            return Finding(
                node.name, f"no route to {cidr}, the Pods of {name}", "lab kubectl -- logs -n kube-flannel -l app=flannel --tail=20"
            )
    for pod in filter(_is_ready, _dns_pods(cluster)):  # that others do not answer is no matter of routes
        address = pod["status"].get("podIP", "")
        if not node.run(f"curl -sf -o /dev/null --max-time 3 http://{address}:8181/ready").ok:
            place = pod["spec"].get("nodeName")
            return Finding(
                node.name,
                f"the Pod {pod['metadata']['name']} ({address} on {place}) does not answer",
                f"lab ssh {node.name} -- ip route get {address}",
            )
    return None


# Two that every cluster has: without the first no Pod reaches the API, without the second none finds a name.
SERVICES = (("default", "kubernetes", 443, "tcp"), ("kube-system", "kube-dns", 53, "udp"))


def proxy_has_rules(cluster: Cluster, node: Node) -> Finding | None:
    """Do the node's own rules turn a Service's address into one of its endpoints? The tracer reads them as the kernel would."""
    from lab_utils.trace import Packet, trace

    if cluster.record.options.get("proxy_mode") == "nftables":
        from lab_utils.nft import parse

        said = node.run("nft -j list table ip kube-proxy")
        if not said.ok:
            return Finding(node.name, "there is no table kube-proxy", _PROXY_LOGS)
        rules: Any = parse(said.stdout)
    else:
        rules = node.iptables()
    for namespace, name, port, protocol in SERVICES:
        address = cluster.get("service", name, "-n", namespace)["spec"]["clusterIP"]
        endpoints = _ready_endpoints(cluster, namespace, name)
        found = trace(rules, Packet(node.ip, address, port, protocol=protocol), local_addresses=[node.ip], origin="local")
        reached = {destination.address.rpartition(":")[0] for destination in found.destinations}
        if endpoints and not (reached and reached <= endpoints):  # where there is none, there is nowhere to lead to
            where = ", ".join(sorted(reached)) or "nowhere"
            return Finding(node.name, f"its rules send {address} ({name}) to {where}, not to {', '.join(sorted(endpoints))}", _PROXY_LOGS)
    return None


def names_are_resolved(cluster: Cluster, node: Node) -> Finding | None:
    servers = _dns_pods(cluster)
    if not any(map(_is_ready, servers)):
        states = "; ".join(f"{pod['metadata']['name']} is {_state(pod)}" for pod in servers)
        return Finding(node.name, f"no Pod of CoreDNS is ready: {states or 'there is none'}", _DNS_LOGS)
    server = cluster.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"]
    said = node.run(f"dig +short +time=2 +tries=2 @{server} kubernetes.default.svc.cluster.local")
    answer = said.stdout.strip()
    expected = cluster.get("service", "kubernetes")["spec"]["clusterIP"]
    if answer == expected:
        return None
    return Finding(
        node.name,
        f"{server} answers {answer or 'nothing'} for kubernetes.default, not {expected}",
        _DNS_LOGS,
    )


def _runtime_says(node: Node, condition: str) -> str:
    """Why the runtime's own condition does not hold; "" where it does."""
    status = json.loads(node.run("crictl info", check=True).stdout)["status"]["conditions"]
    found: dict[str, Any] = next((each for each in status if each["type"] == condition), {})
    return "" if found.get("status") else str(found.get("message") or "it does not say why")


_DNS_LOGS = "lab kubectl -- describe pods -n kube-system -l k8s-app=kube-dns; lab kubectl -- logs -n kube-system -l k8s-app=kube-dns"
_PROXY_LOGS = "lab kubectl -- logs -n kube-system -l k8s-app=kube-proxy --tail=20"

LAYERS: list[tuple[str, str, Look]] = [
    ("node", "does it answer?", node_answers),
    ("runtime", "does containerd answer on its socket?", runtime_answers),
    ("kubelet", "does it run?", kubelet_runs),
    ("API server", "is it ready?", api_server_is_ready),
    ("CNI", "is a Pod network configured, and is the node Ready?", network_is_configured),
    ("route", "do packets reach the Pods of every node?", routes_lead_to_every_node),
    ("kube-proxy", "do the rules lead a Service to its Pods?", proxy_has_rules),
    ("DNS", "is a name answered?", names_are_resolved),
]


def _dns_pods(cluster: Cluster) -> list[dict[str, Any]]:
    items = cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]
    return [pod for pod in items if not pod["metadata"].get("deletionTimestamp")]


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))


def _state(pod: dict[str, Any]) -> str:
    """What keeps it from being ready, in Kubernetes' own word."""
    for each in pod["status"].get("containerStatuses", []):
        if reason := each.get("state", {}).get("waiting", {}).get("reason"):
            return str(reason)
    return str(pod["status"].get("phase", "Unknown"))


def _ready_endpoints(cluster: Cluster, namespace: str, service: str) -> set[str]:
    slices = cluster.get("endpointslices", "-n", namespace, "-l", f"kubernetes.io/service-name={service}")["items"]
    endpoints = [each for one in slices if one["addressType"] == "IPv4" for each in one.get("endpoints") or []]
    return {address for each in endpoints if each.get("conditions", {}).get("ready", True) for address in each["addresses"]}


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
