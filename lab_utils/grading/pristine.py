"""A cluster as nobody has touched it: written down at the beginning, compared after each submission.

What is compared is what outlives a lab's own clean-up: nodes and their taints, namespaces, what people
wrote into them, objects outside of namespaces, and on each node the files and services that Kubernetes stands on.
A difference means that a submission reached beyond its lab. The cluster is then reset, and the run goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab_utils.cluster import Cluster, Node, connect
from lab_utils.errors import CommandFailed, LabError, Unhealthy
from lab_utils.grading import access
from lab_utils.grading.arena import Access
from lab_utils.grading.limits import Limits
from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.lifecycle import clean, leftovers, prepare
from lab_utils.labs.store import Store
from lab_utils.labs.workspace import Workspace
from lab_utils.progress import Silent

State = dict[str, Any]
Tell = Callable[[dict[str, Any]], None]
SETTLE_SECONDS = 120  # that a cluster may take to look as before, after a lab was cleaned up
FULL_DISK = 90  # percent
OWNED = "kubernetes-inside-out/"  # labels and names of ours are not compared

# One kubectl call sees all of this; each is compared by what a person wrote, not by what controllers keep changing.
CLUSTER_WIDE = (
    "customresourcedefinitions,validatingwebhookconfigurations,mutatingwebhookconfigurations,priorityclasses,storageclasses,"
    "clusterroles,clusterrolebindings,persistentvolumes,apiservices,ingressclasses,runtimeclasses,validatingadmissionpolicies"
)
IN_NAMESPACES = "deployments,daemonsets,statefulsets,cronjobs,jobs,pods,configmaps,services,serviceaccounts,roles,rolebindings"

# On a node: what kubelet, containerd and the network plugin stand on, and what should not be there.
# cni0 is left out: the bridge plugin makes it for the first Pod that a node ever gets, and nobody takes it away.
NODE_SCRIPT = r"""
for unit in kubelet containerd ssh; do echo "unit $unit $(systemctl is-active $unit 2>/dev/null)"; done
set -- /etc/kubernetes /etc/cni /etc/containerd /etc/systemd/system /etc/cron.d /etc/hosts /etc/passwd /etc/sysctl.d /root/.ssh \
  /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env
find "$@" -xdev -type f -size -1024k -print0 2>/dev/null | xargs -0 -r sha256sum 2>/dev/null \
  | sed -E 's/^([0-9a-f]{16})[0-9a-f]* +(.*)/file \2 \1/'
find /usr/local/bin /opt/cni/bin "$@" -xdev \( -type l -printf 'file %p %l\n' -o -type f -printf 'mode %p %m %s\n' \) 2>/dev/null
echo "file /usr/bin,/usr/sbin,/etc/ld.so.preload $(find /usr/bin /usr/sbin /etc/ld.so.preload -xdev \( -type f -o -type l \) \
  -printf '%p %m %s %C@ %l\n' 2>/dev/null | sort | sha256sum | cut -c1-16)"
echo "sysctl net.ipv4.ip_forward $(cat /proc/sys/net/ipv4/ip_forward)"
echo "disk $(df --output=pcent / | tail -1 | tr -dc 0-9)"
ip -o link show 2>/dev/null | sed -E 's/^[0-9]+: ([^:@]+).*/device \1/' | grep -vE 'device (veth|cali|lxc|cni0$)' | sort
for tool in iptables ip6tables; do
  $tool-save 2>/dev/null | grep -E '^-A' | grep -vE 'KUBE-|FLANNEL-|cali-|CNI-|CILIUM' | sort | sed "s/^/$tool /"; done
nft list tables 2>/dev/null | grep -vE ' (nat|filter|mangle|raw|kube-proxy)$' | sort | sed 's/^/nft /'
ip rule 2>/dev/null | sed 's/^/rule /'
"""


def begin(files: LabFiles, cluster: Cluster) -> State:
    """Before the first submission: nothing of the lab is there, access of an earlier grader is taken back, and this is how it looks."""
    with TemporaryDirectory(prefix="lab-grade-") as folder:
        lab = Workspace(files.spec, files.checks, cluster, "grader", Store(files.name, Path(folder)))
        access.revoke(cluster)
        clean(lab)
    return look_when_well(cluster)


def look_when_well(cluster: Cluster) -> State:
    """How it looks as soon as all of it works, or as it is if that takes too long. Looked at before, it never again looks the same."""
    deadline = time.monotonic() + SETTLE_SECONDS * cluster.patience
    while True:
        late = time.monotonic() > deadline
        try:
            if well(now := look(cluster)) or late:
                return now
        except LabError:  # a server that has just come back may leave a question unanswered
            if late:
                raise
        time.sleep(2)


def look(cluster: Cluster) -> State:
    """What is compared. Small: a hash where a text would be long."""
    state: State = {}
    for item in cluster.get("nodes")["items"]:
        name = item["metadata"]["name"]
        ready = next((each["status"] for each in item["status"]["conditions"] if each["type"] == "Ready"), "Unknown")
        taints = sorted(f"{taint['key']}:{taint['effect']}" for taint in item["spec"].get("taints", []))
        labels = {key: value for key, value in item["metadata"].get("labels", {}).items() if not key.startswith(OWNED)}
        state[f"node {name}"] = {
            "ready": ready,
            "taints": taints,
            "closed": bool(item["spec"].get("unschedulable")),
            "labels": _hash(labels),
        }
    for item in cluster.get("namespaces")["items"]:
        if access.LABEL not in item["metadata"].get("labels", {}):
            state[f"namespace {item['metadata']['name']}"] = item["status"].get("phase", "")
    for item in cluster.get(CLUSTER_WIDE)["items"]:
        if access.LABEL not in item["metadata"].get("labels", {}):
            state[f"{item['kind']} {item['metadata']['name']}"] = _hash(_written(item))
    for item in cluster.get(IN_NAMESPACES, "-A")["items"]:
        namespace = item["metadata"]["namespace"]
        if f"namespace {namespace}" in state and not item["metadata"].get("ownerReferences"):
            told: dict[str, Any] = {} if item["kind"] in ("Pod", "Job") else {"written": _hash(_written(item))}
            if item["kind"] in ("Deployment", "DaemonSet", "StatefulSet"):
                status = item["status"]
                wanted = status.get("desiredNumberScheduled", item["spec"].get("replicas", 0))
                told["healthy"] = status.get("numberReady", status.get("readyReplicas", 0)) >= wanted
            state[f"{item['kind']} {namespace}/{item['metadata']['name']}"] = told
    with ThreadPoolExecutor(max(1, len(cluster.nodes))) as pool:
        for seen in pool.map(look_at_node, cluster.nodes):
            state |= seen
    return state


def look_at_node(node: Node) -> State:
    try:
        said = node.run(NODE_SCRIPT, timeout=60, check=True).stdout
    except LabError as error:
        return {f"on {node.name}: ssh": str(error)}
    state: State = {}
    for line in said.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "disk":
            state[f"on {node.name}: disk"] = "full" if rest.isdigit() and int(rest) >= FULL_DISK else "not full"
        elif kind in ("unit", "file", "mode", "sysctl"):
            name, _, value = rest.partition(" ")
            state[f"on {node.name}: {kind} {name}"] = value
        else:
            state[f"on {node.name}: {line}"] = "there"
    return state


def differences(before: State, now: State) -> list[str]:
    told = [f"{name} is gone" for name in before if name not in now]
    told += [f"{name} is new" for name in now if name not in before]
    told += [f"{name} has changed" for name in before if name in now and before[name] != now[name]]
    return sorted(told)


class ClusterArena:
    """One cluster, brought back to its pristine state around each submission (an arena.Arena)."""

    def __init__(self, name: str, baseline: State, limits: Limits, tell: Tell, *, may_reset: bool, verified: bool) -> None:
        self.name = name
        self.baseline = baseline
        self.limits = limits
        self.tell = tell
        self.may_reset = may_reset
        self.verified = verified  # the submission before left it pristine, and nobody has been here since
        self.cluster = connect(name)

    def enter(self, lab: Workspace) -> Access:
        lab.cluster = self.cluster
        if not self.verified and self._untidy(lab):
            self._reset(lab)
            if left := self._untidy(lab):
                raise Unhealthy(f"cluster {self.name!r} does not come back to its pristine state: {'; '.join(left[:5])}")
        prepare(lab)
        return access.give(self.cluster, lab.spec)

    def leave(self, lab: Workspace) -> list[str]:
        """Clean up, at once if it goes; whatever is left then is harm, and is undone before anybody else comes."""
        harm = self._untidy(lab)
        if harm and self.may_reset:
            self._reset(lab)
        self.cluster.close()
        return harm[:20]

    def _untidy(self, lab: Workspace) -> list[str]:
        """Take access back, clean the lab, and tell what is still not as it was."""
        try:
            access.revoke(self.cluster)
            clean(lab)
            if left := leftovers(lab):
                return [f"{name} is left" for name in left]
            deadline = time.monotonic() + SETTLE_SECONDS * self.cluster.patience
            while (told := differences(self.baseline, look(self.cluster))) and time.monotonic() < deadline:
                if all(line.endswith("is new") for line in told):
                    break  # what is new does not go by itself; what is broken may heal
                time.sleep(2)
            return told
        except (LabError, CommandFailed, OSError, ValueError) as error:
            return [f"the cluster does not answer as it should: {error}"]

    def _reset(self, lab: Workspace) -> None:
        if not self.may_reset:
            raise Unhealthy(f"cluster {self.name!r} was harmed, and --no-reset forbids to reset it", f"Run `lab reset --name {self.name}`")
        from lab_utils.providers import provider

        self.cluster.close()
        self.cluster = provider(self.cluster.provider).reset(self.name, Silent())
        access.fence(self.cluster, True)  # which a reset takes down
        lab.cluster = self.cluster
        # A cluster made anew is the new measure: its provider may build it a little differently than it once did.
        self.baseline = look_when_well(self.cluster)
        self.tell({"event": "baseline", "baseline": self.baseline})


def well(state: State) -> bool:
    """Whether all nodes are Ready and all workloads healthy."""
    parts = [value for value in state.values() if isinstance(value, dict)]
    return all(part.get("ready", "True") == "True" and part.get("healthy", True) for part in parts)


def _written(item: dict[str, Any]) -> dict[str, Any]:
    """An object without what servers and controllers write into it."""
    labels = {key: value for key, value in item["metadata"].get("labels", {}).items() if not key.startswith(OWNED)}
    kept = {key: value for key, value in item.items() if key not in ("metadata", "status", "apiVersion")}
    if item["kind"] in ("ClusterRole", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "CustomResourceDefinition"):
        kept.pop("aggregationRule", None)
    return {"labels": labels, **kept}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
