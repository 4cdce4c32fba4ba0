"""The kubeconfig provider: a cluster that is there already and belongs to its user. It is never made, never reset, never removed.

`up` writes down how to reach it, and looks whether labs could work there. `reset` and `down` remove what labs made, and nothing else.
Nodes are reached only when the user says so (--node-access debug), through one privileged Pod on each, made when it is first asked for.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord, cluster_dir, connect, known_clusters, load_record
from lab_utils.errors import BadInput, HostLacks, LabError, Unhealthy
from lab_utils.kubeconfig import access, config, objects
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, NodeStatus, Usability
from lab_utils.providers.common import locked
from lab_utils.providers.kind import host_kubectl
from lab_utils.providers.ssh import SshNode

NEEDED = (("list", "nodes"), ("list", "pods"), ("create", "namespaces"), ("delete", "namespaces"), ("create", "deployments.apps"))


class Kubeconfig:
    name = "kubeconfig"

    def usability(self) -> Usability:
        """Looks at the file alone: asking the server may start a login, or take long."""
        try:
            host_kubectl(look_only=True)
            path = config.find("")
            found = config.read(path.read_text(), str(path))
        except (LabError, OSError) as error:
            what, mend = (error.what, error.mend) if isinstance(error, LabError) else (str(error), "")
            return Usability(self.name, False, what, mend)
        return Usability(self.name, True, f"the cluster of context {found.context!r} ({found.server}), used as it is")

    def up(self, spec: ClusterSpec, progress: Progress) -> Cluster:
        if spec.bare:
            raise BadInput("a cluster that is there already has no bare nodes", "Use --provider embedded or vagrant for --bare")
        with locked(spec.name, progress):
            known = load_record(spec.name) if spec.name in known_clusters() else None
            if known and not spec.kubeconfig and not spec.context:
                record = known.but(options={**known.options, "node_access": spec.node_access or known.options["node_access"]})
                _look(record)
            else:
                record = self._written(spec, progress)
            record = record.but(state="up", nodes=_nodes(record))
            record.save()
        if record.options["node_access"] != "debug":
            progress.note("labs lose the steps that look at nodes, and say which; --node-access debug allows a privileged Pod on each node")
        if spec.network_policy and record.options["node_access"] != "debug":
            raise BadInput("an engine's image has to be loaded on the nodes, and they are out of reach", "Allow --node-access debug")
        cluster = connect(spec.name)
        if spec.metrics_server or spec.storage or spec.ingress or spec.images or spec.network_policy:
            from lab_utils.addons import give

            wanted = {"metrics": spec.metrics_server, "storage": spec.storage, "ingress": spec.ingress}
            give(cluster, progress, **wanted, images=spec.images, network_policy=spec.network_policy)
        return cluster

    def _written(self, spec: ClusterSpec, progress: Progress) -> ClusterRecord:
        """A copy of what the kubeconfig says about one context, so that what its user does to the file later changes nothing here."""
        path = config.find(spec.kubeconfig)
        try:
            found = config.read(path.read_text(), str(path), spec.context)
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror})") from None
        if found.plugin and not shutil.which(found.plugin):
            raise BadInput(
                f"{path} gets its token from the program {found.plugin!r}, which is not on this machine", found.hint or "Install it"
            )
        folder = cluster_dir(spec.name)
        fresh = not (folder / "cluster.json").exists()
        options = {
            "node_access": spec.node_access or "none",
            "context": found.context,
            "server": found.server,
            "metrics_server": spec.metrics_server,
            "storage": spec.storage,
            "ingress": spec.ingress,
            "images": sorted(spec.images),
        }
        record = ClusterRecord(spec.name, self.name, "creating", str(folder / "kubeconfig"), [], options=options, kubectl=host_kubectl())
        words = ["config", "view", "--raw", "--flatten", "--minify", f"--context={found.context}"]
        said = Cluster(record.but(kubeconfig=str(path)), []).kubectl(*words, check=False, timeout=20)
        if not said.ok:
            raise BadInput(f"kubectl cannot read {path}: {config.last_line(said.stderr)}")
        record.save()
        try:
            copy = Path(record.kubeconfig)
            copy.touch(mode=0o600)
            copy.write_text(said.stdout)
            with progress.step(f"Asking {found.server}"):
                _look(record)
        except BaseException:
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        version = json.loads(Cluster(record, []).kubectl("version", "-o", "json", timeout=20).stdout)["serverVersion"]["gitVersion"]
        return record.but(kubernetes=version)

    def down(self, name: str, progress: Progress) -> None:
        with locked(name, progress):
            if name not in known_clusters() or load_record(name).provider != self.name:
                return
            record = load_record(name)
            try:
                with progress.step(f"Removing what was made on {record.options['server']}"):
                    objects.remove(Cluster(record, [self.node(record, node) for node in record.nodes]))
            except LabError as error:
                progress.note(f"the cluster was left as it is, for it does not answer: {error.what}")
            shutil.rmtree(record.folder, ignore_errors=True)

    def reset(self, name: str, progress: Progress) -> Cluster:
        record = load_record(name)
        with locked(name, progress):
            _look(record)
            with progress.step(f"Removing what labs made on {record.options['server']}"):
                objects.remove(Cluster(record, [self.node(record, node) for node in record.nodes]))
        return connect(name)

    def status(self, record: ClusterRecord) -> list[NodeStatus]:
        try:
            now = {item["metadata"]["name"]: item for item in Cluster(record, []).get("nodes", "--request-timeout=5s")["items"]}
        except LabError as error:
            return [NodeStatus(node.name, node.ip, node.role, False, False, f"no answer: {error.what}") for node in record.nodes]
        return [
            NodeStatus(
                node.name,
                node.ip,
                node.role,
                node.name in now,
                node.name in now and _ready(now[node.name]),
                "" if node.name in now else "the cluster has no such node any more",
            )
            for node in record.nodes
        ]

    def load(self, record: ClusterRecord, archive: Path, progress: Progress) -> list[str]:
        if record.options["node_access"] != "debug":
            raise BadInput(
                f"images cannot be loaded into cluster {record.name!r} without access to its nodes",
                "Push them to a registry that it pulls from, or allow --node-access debug",
            )
        found: set[str] = set()
        for each in record.nodes:
            node = self.node(record, each)
            with progress.step(f"Loading {archive.name} on {each.name}"):
                list_all = ["ctr", "-n", "k8s.io", "images", "list", "-q"]
                before = set(node.run(list_all, check=True).stdout.split())
                node.run(["ctr", "-n", "k8s.io", "images", "import", "-"], input=archive.read_bytes(), timeout=900, check=True)
                found |= set(node.run(list_all, check=True).stdout.split()) - before
        return sorted(found)

    def node(self, record: ClusterRecord, node: NodeRecord) -> Node:
        if "key" in node.access:  # a grader's sandbox reaches it by the grader's ssh
            return SshNode(node)
        return access.DebugNode(record, node) if record.options.get("node_access") == "debug" else access.NoNode(record, node)

    def enter(self, record: ClusterRecord, node: NodeRecord, words: list[str], terminal: bool) -> list[str]:
        """What `lab ssh` becomes."""
        found = self.node(record, node)
        if not isinstance(found, access.DebugNode):
            raise found.refused() if isinstance(found, access.NoNode) else HostLacks("no way to this node")
        return found.enter(words, terminal)


def _look(record: ClusterRecord) -> None:
    """Does the server answer, and may this user do there what labs do? One line for each way in which it may not."""
    cluster = Cluster(record, [])
    said = cluster.kubectl("get", "--raw=/readyz", "--request-timeout=10s", check=False, timeout=30)
    server = record.options["server"]
    if not said.ok:
        raise config.why_no_answer(said.stderr, server)
    for verb, what in NEEDED:
        scope = ["--all-namespaces"] if what != "nodes" and what != "namespaces" else []
        may = cluster.kubectl("auth", "can-i", verb, what, *scope, check=False, timeout=30)
        if may.stdout.strip() != "yes":
            raise BadInput(
                f"the user of context {record.options['context']!r} may not {verb} {what.partition('.')[0]} on {server}",
                "Labs make namespaces and look at everything: use a context with cluster-admin rights",
            )
    if record.options["node_access"] == "debug" and not cluster.kubectl("auth", "can-i", "create", "pods/exec", "-A", check=False).ok:
        raise BadInput("this user may not start commands in Pods, which --node-access debug needs", "Leave it out, or ask for more rights")


def _nodes(record: ClusterRecord) -> list[NodeRecord]:
    """The nodes under the names that Kubernetes knows them by, the control plane first."""
    items = Cluster(record, []).get("nodes")["items"]
    if not items:
        raise Unhealthy(f"the cluster at {record.options['server']} has no nodes")
    nodes = [NodeRecord(item["metadata"]["name"], _ip(item), _role(item)) for item in items]
    return sorted(nodes, key=lambda node: (node.role != "control-plane", node.name))


def _role(item: dict[str, Any]) -> str:
    return "control-plane" if "node-role.kubernetes.io/control-plane" in item["metadata"].get("labels", {}) else "worker"


def _ip(item: dict[str, Any]) -> str:
    found = {each["type"]: each["address"] for each in item["status"].get("addresses", [])}
    return str(found.get("InternalIP") or found.get("ExternalIP") or "")


def _ready(item: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", []))


PROVIDER = Kubeconfig()
