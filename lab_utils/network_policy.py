"""Engines that keep NetworkPolicies: flannel carries packets and enforces none, so a cluster gets one when somebody asks.

kube-router             iptables and IP sets; here with its firewall only
kube-network-policies   the Kubernetes network group's own: nftables hands the first packet of a connection to a program (NFQUEUE)
own                     lab 11's solution: nftables, some three hundred lines of Python

Each is a DaemonSet in kube-system with the label kubernetes-inside-out/engine. One at a time: two would both be asked.
"""

from __future__ import annotations

from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster, manifest_text
from lab_utils.embedded.kubeadm import manifest
from lab_utils.errors import BadInput, HostLacks
from lab_utils.given import put
from lab_utils.imagepull import pull
from lab_utils.progress import Progress

# Whose DaemonSets keep NetworkPolicies, among those that come with other people's clusters.
OTHERS = frozenset({"antrea-agent", "aws-node", "azure-npm", "calico-node", "canal", "cilium", "kindnet", "weave-net"})
ENGINES = {"kube-router": "kube-router", "kube-network-policies": "kube-network-policies", "own": "policy-agent"}  # → its DaemonSet
LABEL = "kubernetes-inside-out/engine"
# CONFIG_NFT_QUEUE is not in every kernel, and kube-network-policies only writes into its log that it lacks it.
TRY_QUEUE = "unshare --net sh -c 'nft add table inet t; nft add chain inet t c; nft add rule inet t c queue num 98'"


def engine_of(cluster: Cluster) -> str:
    """Which of ours is there, or ""."""
    found = cluster.get("daemonsets", "-n", "kube-system", "-l", LABEL)["items"]
    return str(found[0]["metadata"]["labels"][LABEL]) if found else ""


def keeper_of(cluster: Cluster) -> str:
    """Who keeps policies, ours or somebody whose name is known; "" where nobody does, as far as names tell."""
    names = {each["metadata"]["name"] for each in cluster.get("daemonsets", "-A")["items"]}
    return engine_of(cluster) or ", ".join(sorted(names & (OTHERS | set(ENGINES))))


def install(cluster: Cluster, engine: str, progress: Progress) -> None:
    if engine not in ENGINES:
        raise BadInput(f"there is no engine {engine!r}", f"There are: {', '.join(ENGINES)}")
    if (there := keeper_of(cluster)) not in ("", engine):
        raise BadInput(
            f"in cluster {cluster.name!r} NetworkPolicies are kept already, by {there}",
            f"Two would both be asked. Make another cluster: lab up --name other --network-policy {engine}",
        )
    if engine == "kube-network-policies" and "Could not process rule" in cluster.nodes[0].run(TRY_QUEUE).stderr:
        raise HostLacks(
            f"the kernel of {cluster.nodes[0].name} cannot hand packets to a program by nftables (CONFIG_NFT_QUEUE)",
            "Choose another engine: own or kube-router",
        )
    name = ENGINES[engine]
    pull(cluster, name, progress)
    image = pinned().image(name).name
    with progress.step(f"Installing {name}, which keeps NetworkPolicies"):
        if engine == "own":
            from lab_utils.labs.parts import solved

            data = solved("11-network-policy")
            metadata = {"name": name, "namespace": "kube-system"}
            put(cluster, manifest_text({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}))
        services = cluster.get("servicecidr", "kubernetes")["spec"]["cidrs"][0]
        put(cluster, manifest(name, **{name.upper().replace("-", "_"): image, "SERVICES": services}))
        cluster.kubectl("-n", "kube-system", "rollout", "status", f"daemonset/{name}", "--timeout=180s", timeout=200)


def remove(cluster: Cluster) -> None:
    """Take our own away again, rules and all. The others leave chains behind that only they know."""
    if (there := engine_of(cluster)) not in ("", "own"):
        raise BadInput(f"the engine {there} cannot be taken away cleanly", "lab reset --cluster brings the cluster back to its beginning")
    mine = ["daemonset/policy-agent", "configmap/policy-agent", "serviceaccount/policy-agent"]
    cluster.kubectl("-n", "kube-system", "delete", *mine, "--ignore-not-found")
    cluster.kubectl("delete", "clusterrole/policy-agent", "clusterrolebinding/policy-agent", "--ignore-not-found")
    pods = ["-n", "kube-system", "get", "pods", "-l", "k8s-app=policy-agent", "-o", "name"]
    cluster.wait(lambda: not cluster.kubectl(*pods).stdout.strip(), timeout=60, why="the agent's Pods do not end")
    for node in cluster.nodes:  # the rules stay when an agent ends, so that nothing opens meanwhile
        node.run("nft list tables | awk '$3 ~ /^policy-/ {print \"delete table\", $2, $3}' | nft -f -", check=True)
    if cluster.record.options.get("network_policy"):  # else the next `lab up` would bring it back
        cluster.record = cluster.record.but(options={**cluster.record.options, "network_policy": ""})
        cluster.record.save()
