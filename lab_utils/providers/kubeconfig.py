"""The kubeconfig provider: a cluster that is there already and belongs to its user. It is never made, never reset, never removed.

`up` writes down how to reach it, and looks whether labs could work there. `reset` and `down` remove what labs made, and nothing else.
Nodes are reached only when the user says so (--node-access debug), through one privileged Pod on each, made when it is first asked for.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab_utils.artifacts.names import loaded
from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord, cluster_dir, connect, known_clusters, load_record
from lab_utils.errors import BadInput, CommandFailed, HostLacks, LabError, Unhealthy
from lab_utils.kubeconfig import access, config, objects
from lab_utils.labs.workspace import LABEL
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, NodeStatus, Usability
from lab_utils.providers.closed import ClosedNode
from lab_utils.providers.common import host_kubectl, locked, with_more
from lab_utils.providers.ssh import SshNode
from lab_utils.run import last_line, run

NEEDED = (("list", "nodes"), ("list", "pods"), ("create", "namespaces"), ("delete", "namespaces"), ("create", "deployments.apps"))


READY = ("get", "--raw=/readyz", "--request-timeout=10s")
DRAFT = "kubeconfig.asked"  # in a cluster's folder, until it was seen to work


class Kubeconfig:
    name = "kubeconfig"

    def usability(self) -> Usability:
        """Looks at the file alone: asking the server may start a login, or take long."""
        try:
            host_kubectl(look_only=True)
            found = config.load(config.find(""))
        except (LabError, OSError) as error:
            what, mend = (error.what, error.mend) if isinstance(error, LabError) else (str(error), "")
            return Usability(self.name, False, what, mend)
        return Usability(self.name, True, f"the cluster of context {found.context!r} ({found.server}), used as it is")

    def takes(self, workers: int) -> tuple[int, int]:
        return 0, 0  # it is there already

    def up(self, spec: ClusterSpec, progress: Progress) -> Cluster:
        if spec.bare:
            raise BadInput("a cluster that is there already has no bare nodes", "Use --provider embedded or vagrant for --bare")
        if spec.said:
            raise BadInput(
                f"a cluster that is there already keeps its nodes and its kube-proxy as they are, and {spec.said[0]} was given",
                "Leave it out, or use --provider embedded, kind or vagrant",
            )
        with locked(spec.name, progress):
            known = load_record(spec.name) if spec.name in known_clusters() else None
            node_access = _node_access(spec, known)
            if spec.network_policy and node_access != "debug":
                raise BadInput("an engine's image has to be loaded on the nodes, and they are out of reach", "Allow --node-access debug")
            if known and known.state == "up" and not spec.kubeconfig and not spec.context:
                record = _looked_at(known.but(options={**known.options, "node_access": node_access}))
                _give_up_nodes(record, known, progress)
                record.save()
            else:
                self._write(spec, known, progress)
        if node_access != "debug":
            progress.note("labs lose the steps that look at nodes, and say which; --node-access debug allows a privileged Pod on each node")
        cluster = connect(spec.name)
        if spec.metrics_server or spec.storage or spec.ingress or spec.images or spec.network_policy:
            from lab_utils.addons import give

            # Before it is given: nothing is given again from this record, and `down` has to know of what came only half-way.
            was = cluster.record.options
            engine = was.get("network_policy") or spec.network_policy  # one that is there has to be found, too; another is refused
            cluster.record = cluster.record.but(options={**with_more(was, spec), "network_policy": engine})
            cluster.record.save()
            wanted = {"metrics": spec.metrics_server, "storage": spec.storage, "ingress": spec.ingress}
            give(cluster, progress, **wanted, images=spec.images, network_policy=spec.network_policy)
        return cluster

    def _write(self, spec: ClusterSpec, known: ClusterRecord | None, progress: Progress) -> None:
        """A copy of what the kubeconfig says about one context, so that what its user does to the file later changes nothing here.

        It is a draft until the cluster was seen to work with it: an `up` that fails leaves what was there before. Of a cluster that is
        known, this takes over new credentials, and nothing else."""
        files = config.find(spec.kubeconfig)
        found = config.load(files, spec.context)
        if known:
            _same(known, found)
        if found.plugin and not shutil.which(found.plugin):
            raise BadInput(
                f"{os.pathsep.join(map(str, files))} gets its token from the program {found.plugin!r}, which is not on this machine",
                found.hint or "Install it",
            )
        folder, kubectl = cluster_dir(spec.name), host_kubectl(progress=progress)
        text = _flattened(kubectl, files, found)
        here = {"node_access": _node_access(spec, known), "context": found.context, "server": found.server}
        options = {**(known.options if known else {}), **here}
        draft = folder / DRAFT
        folder.mkdir(parents=True, exist_ok=True)
        try:
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(text)
            record = ClusterRecord(spec.name, self.name, "creating", str(draft), [], options=options, kubectl=kubectl)
            with progress.step(f"Asking {found.server}"):
                record = _looked_at(record)
            _give_up_nodes(record, known, progress)
            record = record.but(kubeconfig=str(folder / "kubeconfig"))
            draft.replace(record.kubeconfig)
            record.save()
        finally:
            _drop_draft(spec.name)

    def down(self, name: str, progress: Progress) -> None:
        with locked(name, progress):
            if name not in known_clusters():
                _drop_draft(name)  # of an `up` that was killed
                return
            try:
                record = load_record(name)
            except BadInput as error:
                if pods := access.made_in(cluster_dir(name)):
                    raise HostLacks(
                        f"{error.what}, and Pods that are root on nodes of some cluster may be left: {', '.join(pods)}",
                        f"Remove them (kubectl delete namespace {access.NAMESPACE}), then the folder {cluster_dir(name)}",
                    ) from None
                return
            if record.provider == self.name:
                self._clear(record, progress)
                shutil.rmtree(record.folder, ignore_errors=True)

    def _clear(self, record: ClusterRecord, progress: Progress) -> None:
        """Remove what was made there. Where that fails, the record must stay: nothing else knows of the Pods that are root on nodes."""
        server = record.options["server"]
        cluster = Cluster(record, [self.node(record, node) for node in record.nodes])
        answer = cluster.kubectl(*READY, check=False, timeout=30)
        if config.refused(answer.stderr) and not _given(record):
            why = config.why_no_answer(answer.stderr, server).what
            stay = f"if it is still there, so are the labs that were begun: kubectl delete namespaces -l {LABEL}"
            progress.note(f"the cluster was left as it is: {why}; {stay}")
            return
        try:
            with progress.step(f"Removing what was made on {server}"):
                objects.remove(cluster, addons=True)
            if (engine := record.options.get("network_policy")) not in (None, "", "own"):
                progress.note(f"{engine} is gone; the chains that it wrote stay on the nodes until they start anew")
        except LabError as error:
            said = (error.stderr if isinstance(error, CommandFailed) else "") if answer.ok else answer.stderr
            raise _kept(record, config.why_no_answer(said, server) if said else error) from None

    def reset(self, name: str, progress: Progress) -> Cluster:
        with locked(name, progress):
            record = load_record(name)
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
        old: set[str] = set()
        new: set[str] = set()
        for each in record.nodes:
            node = self.node(record, each)
            with progress.step(f"Loading {archive.name} on {each.name}"):
                list_all = ["ctr", "-n", "k8s.io", "images", "list", "-q"]
                old |= set(node.run(list_all, check=True).stdout.split())
                node.run(["ctr", "-n", "k8s.io", "images", "import", "-"], input=archive.read_bytes(), timeout=900, check=True)
                new |= set(node.run(list_all, check=True).stdout.split())
        return loaded(archive, old, new)

    def node(self, record: ClusterRecord, node: NodeRecord) -> Node:
        if "key" in node.access:  # a grader's sandbox reaches it by the grader's ssh
            return SshNode(node)
        return access.DebugNode(record, node) if record.options.get("node_access") == "debug" else access.closed(record, node)

    def enter(self, record: ClusterRecord, node: NodeRecord, words: list[str], terminal: bool) -> list[str]:
        """What `lab ssh` becomes."""
        found = self.node(record, node)
        if not isinstance(found, access.DebugNode):
            raise found.refused if isinstance(found, ClosedNode) else HostLacks("no way to this node")
        return found.enter(words, terminal)


def _look(record: ClusterRecord) -> None:
    """Does the server answer, and may this user do there what labs do? One line for each way in which it may not."""
    cluster = Cluster(record, [])
    said = cluster.kubectl(*READY, check=False, timeout=30)
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


def _looked_at(record: ClusterRecord) -> ClusterRecord:
    """The record with what the cluster itself says, once it was found good."""
    _look(record)
    version = json.loads(Cluster(record, []).kubectl("version", "-o", "json", timeout=20).stdout)["serverVersion"]["gitVersion"]
    return record.but(state="up", kubernetes=version, nodes=_nodes(record))


def _give_up_nodes(record: ClusterRecord, known: ClusterRecord | None, progress: Progress) -> None:
    """Where Pods on nodes were allowed and no longer are, they go. Before the new record is saved: until then the old one tells of them."""
    if known and known.options.get("node_access") == "debug" != record.options["node_access"]:
        objects.close_nodes(Cluster(record, []), progress)


def _node_access(spec: ClusterSpec, known: ClusterRecord | None) -> str:
    """What is asked now; else what was allowed before."""
    return spec.node_access or (known.options["node_access"] if known else "none")


def _same(known: ClusterRecord, found: config.Context) -> None:
    """A name stands for one cluster: its record holds what has to be removed there."""
    was, asked = [(each["context"], each["server"]) for each in (known.options, asdict(found))]
    if was != asked:
        raise BadInput(
            f"cluster {known.name!r} exists for context {was[0]!r} of server {was[1]}, and not for context {asked[0]!r} of {asked[1]}",
            f"Remove it first (`lab down --name {known.name}`), or give yours another --name",
        )


def _flattened(kubectl: str, files: list[Path], found: config.Context) -> str:
    """One context in one text that needs no file beside it but a token's, whose path is whole."""
    words = ["config", "view", "--raw", "--flatten", "--minify", f"--context={found.context}", "--output=json"]
    where = os.pathsep.join(map(str, files))
    # By the option a file's name may hold a colon; several are merged only where the variable names them.
    named = ["--kubeconfig", where] if len(files) == 1 else []
    said = run([kubectl, *named, *words], env={"KUBECONFIG": where}, check=False, timeout=20)
    if not said.ok:
        raise BadInput(f"kubectl cannot read {where}: {last_line(said.stderr)}")
    return config.settled(said.stdout, found.folder)


def _drop_draft(name: str) -> None:
    """And the folder, if that was all: a failed `up` leaves nothing."""
    (cluster_dir(name) / DRAFT).unlink(missing_ok=True)
    with suppress(OSError):
        cluster_dir(name).rmdir()


def _given(record: ClusterRecord) -> bool:
    """Whether more than labs may be left there: Pods that are root on nodes, or add-ons, which outlive the labs that asked for them."""
    addons = ("metrics_server", "storage", "ingress", "network_policy")
    return bool(access.made(record)) or any(record.options.get(name) for name in addons)


def _kept(record: ClusterRecord, error: LabError) -> LabError:
    again = f"`lab down --name {record.name}` again"
    context = shlex.quote(record.options["context"])
    pods = access.made(record)
    root = f" (Pods that are root on its nodes: {', '.join(pods)} in {access.NAMESPACE})" if pods else ""
    first = error.mend or "Mend that"
    return (Unhealthy if isinstance(error, Unhealthy) else HostLacks)(
        f"what was made there could not be removed{root}, so cluster {record.name!r} stays on record: {error.what}",
        f"{first}{' Then' if first.endswith('?') else ', then'} {again}. New credentials in a kubeconfig are taken over by "
        f"`lab up --provider kubeconfig --name {record.name} --context {context}`. If the cluster is gone for good, remove {record.folder}",
    )


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
