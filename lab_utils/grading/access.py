"""What a student's code may do on a cluster: a ServiceAccount for the lab's namespaces, a key that only looks.

    in the lab's namespaces   everything a user does there, but nothing about the namespace itself; Pods that
                              reach for the node are refused by the Pod Security Standard "baseline"
    elsewhere                 reading, but no Secrets
    on nodes                  access: none → nothing; look → `look.pl` as the key's forced command;
                              change → root on throw-away nodes, and with it all of the cluster.
                              On embedded nodes that are not guarded (lab_utils.embedded.guard) such a root can
                              reach this machine: give it to students whom you would give that

Everything is made with one label and taken back in `revoke`; what a killed grader has left is taken back by the
next one, before it gives anything.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from lab_utils.cluster import Cluster, ClusterRecord, Node
from lab_utils.errors import BadInput, Unhealthy
from lab_utils.grading.arena import RECORD, Access
from lab_utils.grading.gateway import Gateway
from lab_utils.grading.sandbox import HOME, Door
from lab_utils.labs.spec import LabSpec
from lab_utils.together import each

NAMESPACE = "kubernetes-inside-out-grading"
NAME = "kubernetes-inside-out-student"
LABEL = "kubernetes-inside-out/grading"
KUBECTL = f"{HOME}/bin/kubectl"
KUBECTL_PROGRAM = "/opt/lab/kubectl"
KUBECTL_TEXT = f'#!/bin/sh\nexec {KUBECTL_PROGRAM} "$@"\n'
KEY = f"{HOME}/.lab/key"
LOOK = "/usr/local/lib/kubernetes-inside-out/look"
TOKEN_SECONDS = 4 * 3600
PODS = 200  # in each namespace of the lab
CLOSED = "this lab gives no access to nodes"
MARK = "kubernetes-inside-out-grading"  # the comment of our keys in authorized_keys

READ = ["get", "list", "watch"]
OWN = [
    {
        "apiGroups": [""],
        "resources": [
            *(
                "pods",
                "pods/log",
                "pods/exec",
                "pods/attach",
                "pods/portforward",
                "pods/proxy",
                "pods/ephemeralcontainers",
                "pods/eviction",
            ),
            *("services", "services/proxy", "endpoints", "configmaps", "secrets", "serviceaccounts", "serviceaccounts/token", "events"),
            *("persistentvolumeclaims", "replicationcontrollers", "replicationcontrollers/scale", "limitranges", "pods/resize"),
        ],
        "verbs": ["*"],
    },
    {
        "apiGroups": [
            *("apps", "batch", "autoscaling", "discovery.k8s.io", "networking.k8s.io", "policy", "coordination.k8s.io", "events.k8s.io"),
            *("gateway.networking.k8s.io", "metrics.k8s.io"),
        ],
        "resources": ["*"],
        "verbs": ["*"],
    },
    {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles", "rolebindings"],
        "verbs": [*READ, "create", "update", "patch", "delete"],
    },
]
LOOK_AROUND = [
    {
        "apiGroups": [""],
        "resources": [
            *("nodes", "nodes/status", "nodes/metrics", "nodes/stats", "namespaces", "pods", "pods/log", "services", "endpoints", "events"),
            *("configmaps", "serviceaccounts", "persistentvolumes", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas"),
            *("limitranges", "componentstatuses"),
        ],
        "verbs": READ,
    },
    {
        "apiGroups": [
            *("apps", "batch", "autoscaling", "discovery.k8s.io", "networking.k8s.io", "policy", "coordination.k8s.io", "events.k8s.io"),
            *("gateway.networking.k8s.io", "metrics.k8s.io", "storage.k8s.io", "scheduling.k8s.io", "apiextensions.k8s.io"),
            *(
                "apiregistration.k8s.io",
                "rbac.authorization.k8s.io",
                "admissionregistration.k8s.io",
                "node.k8s.io",
                "flowcontrol.apiserver.k8s.io",
            ),
        ],
        "resources": ["*"],
        "verbs": READ,
    },
    {"nonResourceURLs": ["/metrics", "/healthz", "/readyz", "/livez", "/readyz/*", "/livez/*"], "verbs": ["get"]},
]


def give(cluster: Cluster, spec: LabSpec) -> Access:
    """Make the account (and the key), and say what the sandbox gets. The lab's namespaces exist already."""
    revoke(cluster)
    everything = spec.needs.access == "change"
    cluster.apply(objects(spec, everything))
    if not everything:
        for name in spec.namespaces:
            said = cluster.get("namespace", name)["metadata"].get("labels", {})
            if not any(label.startswith("pod-security.kubernetes.io/") for label in said):
                cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=baseline", f"{LABEL}=")
    token = cluster.kubectl("-n", NAMESPACE, "create", "token", NAME, f"--duration={TOKEN_SECONDS}s").stdout.strip()
    server, authority = api_server(cluster)
    address, port = server.hostname or "", server.port or 443
    record = replace(cluster.record, kubeconfig=f"{HOME}/.kube/config", kubectl=KUBECTL, options={})
    access = give_nodes(cluster, record, everything) if spec.needs.access != "none" else no_nodes(record)
    access.shown[KUBECTL_PROGRAM] = kubectl(cluster)
    access.doors = list(dict.fromkeys([Door(address, port, (address, port)), *access.doors]))
    access.files |= {
        record.kubeconfig: kubeconfig(server.geturl(), authority, token, spec.namespace),
        KUBECTL: KUBECTL_TEXT,
    }
    return access


def no_nodes(record: ClusterRecord) -> Access:
    nodes = [replace(node, access={"closed": CLOSED, "patience": node.patience}) for node in record.nodes]
    return Access({RECORD: json.dumps(asdict(replace(record, nodes=nodes)))})


def give_nodes(cluster: Cluster, record: ClusterRecord, everything: bool) -> Access:
    """A key of this submission's own for every node, and the record of the cluster that says where it is."""
    access = Access()
    key, public = new_key()
    sshd = {node.name: "key" in node.access for node in record.nodes}
    each(cluster.nodes, lambda node: allow(node, public, everything, sshd[node.name]))
    nodes, doors = [], []
    for node in record.nodes:
        way: dict[str, Any] = node.access
        if "key" not in way:  # no sshd there: the grader answers in its place
            gateway = Gateway(cluster.node(node.name), public, "" if everything else LOOK)
            access.gateways.append(gateway)
            way = gateway.access
        ssh = int(str(way.get("port", 22)))
        door = str(way.get("address", node.ip))
        doors.append(Door(door, ssh, (door, ssh)))
        nodes.append(replace(node, access={**way, "key": KEY}))
    access.doors = list(dict.fromkeys(doors))
    access.files = {RECORD: json.dumps(asdict(replace(record, nodes=nodes))), KEY: key}
    return access


def objects(spec: LabSpec, everything: bool) -> list[dict[str, Any]]:
    """The account, what it may do, and how many Pods a lab may have."""
    labels = {LABEL: "yes"}
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}

    def made(kind: str, version: str, name: str, namespace: str = "", **rest: Any) -> dict[str, Any]:
        place = {"namespace": namespace} if namespace else {}
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels, **place}, **rest}

    rbac = "rbac.authorization.k8s.io/v1"

    def role(name: str) -> dict[str, str]:
        return {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}

    found = [made("Namespace", "v1", NAMESPACE), made("ServiceAccount", "v1", NAME, NAMESPACE)]
    if everything:
        return [*found, made("ClusterRoleBinding", rbac, NAME, subjects=[account], roleRef=role("cluster-admin"))]
    found += [
        made("ClusterRole", rbac, f"{NAME}-own", rules=OWN),
        made("ClusterRole", rbac, f"{NAME}-look", rules=LOOK_AROUND),
        made("ClusterRoleBinding", rbac, NAME, subjects=[account], roleRef=role(f"{NAME}-look")),
    ]
    for name in spec.namespaces:
        found.append(made("RoleBinding", rbac, NAME, name, subjects=[account], roleRef=role(f"{NAME}-own")))
        found.append(made("ResourceQuota", "v1", NAME, name, spec={"hard": {"count/pods": str(PODS)}}))
    return found


def revoke(cluster: Cluster) -> None:
    """Take everything back, whoever made it and however far that came."""
    # Every token of a ServiceAccount ends with it.
    cluster.kubectl("delete", "clusterrolebindings,clusterroles,serviceaccounts", "-A", "-l", LABEL, "--ignore-not-found", "--wait=false")
    each([node for node in cluster.nodes if node.reachable], forbid)


def end(cluster: Cluster) -> None:
    """After the last submission: nothing of the grader is left on the cluster."""
    revoke(cluster)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=180)


def fence(cluster: Cluster, closed: bool) -> bool:
    """Let Pods and nodes reach nothing beyond their cluster, or let them again; False when its provider cannot."""
    from lab_utils.providers import Fences, provider

    chosen = provider(cluster.provider)
    if isinstance(chosen, Fences):
        chosen.fence(cluster.name, closed)
    return isinstance(chosen, Fences)


def api_server(cluster: Cluster) -> tuple[Any, str]:
    config = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--flatten", "--minify").stdout)
    entry = config["clusters"][0]["cluster"]
    server = urlsplit(entry["server"])
    if not server.hostname or not server.hostname.replace(".", "").replace(":", "").isalnum() or server.hostname[0].isalpha():
        raise BadInput(
            f"the API server of cluster {cluster.name!r} is named by {entry['server']!r}", "Grading needs one that is named by an address"
        )
    return server, entry.get("certificate-authority-data", "")


def kubectl(cluster: Cluster) -> Path:
    import shutil

    found = shutil.which(cluster.record.kubectl)
    if not found:
        raise Unhealthy(f"kubectl of cluster {cluster.name!r} is not there ({cluster.record.kubectl})")
    return Path(found).resolve()


def kubeconfig(server: str, authority: str, token: str, namespace: str) -> str:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": "student", "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "student", "namespace": namespace}}],
        "current-context": "lab",
    }
    return yaml.safe_dump(config)


def new_key() -> tuple[str, str]:
    """A key for this submission: the private one for the sandbox, the public one for the nodes."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


def forbid(node: Node) -> None:
    node.run(f"test -e {LOOK} && {{ sed -i '/ {MARK}$/d' /root/.ssh/authorized_keys 2>/dev/null; rm -f {LOOK}; }}; true", check=False)


def allow(node: Node, public: str, everything: bool, sshd: bool = True) -> None:
    """`restrict` forbids forwarding, terminals and agents; the forced command decides what runs: sshd(8)."""
    node.put(Path(__file__).resolve().parent / "look.pl", LOOK, 0o755)
    if not sshd:
        return  # a gateway holds the key, and forces the command
    options = "restrict" if everything else f'restrict,command="{LOOK}"'
    line = f"{options} {public} {MARK}\n"
    node.run("umask 077; mkdir -p /root/.ssh; cat >> /root/.ssh/authorized_keys", input=line, check=True)
