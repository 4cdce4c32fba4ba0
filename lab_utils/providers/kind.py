"""The kind provider: nodes are Docker containers, for whoever has Docker, be it on Linux, macOS or Windows."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lab_utils.artifacts.machine import debian_name
from lab_utils.artifacts.names import loaded
from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord, cluster_dir, connect, known_clusters, load_record, readable_records
from lab_utils.errors import BadInput, HostLacks, LabError, NoSuchCluster, Unhealthy
from lab_utils.kind import bootstrap, docker, netfilter, ports, settings
from lab_utils.kind.docker import Container
from lab_utils.kind.node import KindNode
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, NodeStatus, Usability
from lab_utils.providers.common import as_it_is, host_kubectl, locked, ready_nodes, with_addons
from lab_utils.providers.ssh import SshNode
from lab_utils.run import last_line

MEGABYTES_PER_NODE = 700
MEGABYTES_OF_DISK = 6000
CONFIG = "kind.yaml"  # in a cluster's folder: it says that the containers of this name are ours


class Kind:
    name = "kind"

    def usability(self) -> Usability:
        try:
            docker.need_kind()
            info = docker.daemon(patience=5)
            host_kubectl(look_only=True)
        except LabError as error:
            return Usability(self.name, False, error.what, error.mend)
        return Usability(self.name, True, f"Docker containers ({info.get('OperatingSystem', 'Docker')} {info['ServerVersion']})")

    def takes(self, workers: int) -> tuple[int, int]:
        return (workers + 1) * MEGABYTES_PER_NODE, MEGABYTES_OF_DISK

    def up(self, spec: ClusterSpec, progress: Progress) -> Cluster:
        docker.need_kind()
        info = docker.daemon()
        if spec.bare:
            raise BadInput("kind has no bare nodes: it makes a cluster of them at once", "Use --provider embedded or vagrant for --bare")
        wanted = [host for host, _ in settings.read_ports(spec.ports)]
        with locked(spec.name, progress):
            known = load_record(spec.name) if spec.name in known_clusters() else None
            if known and known.state == "up":
                return self._started(known, spec, progress)
            if known:
                self._remove(known, progress)
            elif spec.name in docker.clusters():
                raise BadInput(
                    f"a kind cluster named {spec.name!r} is there, and `lab` did not make it",
                    f"Choose another --name, or remove that one: kind delete cluster --name {spec.name}",
                )
            check_room(spec.workers + 1, info)
            ports.need_free(wanted)
            return self._made(_plan(spec, info, progress), progress, spec)

    def _made(self, record: ClusterRecord, progress: Progress, spec: ClusterSpec | None = None) -> Cluster:
        """Make what the record says, and give it what is asked for besides. Left half-way, for whatever reason, nothing of it remains."""
        options = record.options
        text = settings.config(
            record.name, workers=options["workers"], image=options["image"], proxy_mode=options["proxy_mode"], ports=options["ports"]
        )
        record.save()
        (record.folder / CONFIG).write_text(text)
        try:
            self._pull(options["image"], progress)
            with progress.step(f"kind create cluster ({options['workers'] + 1} nodes)"):
                bootstrap.create(record, progress)
            found = _found(record)
            record = _with_nodes(record, found)
            record.save()
            nodes = [self.node(record, each) for each in record.nodes]
            record = netfilter.ensure(record, nodes[0])
            bootstrap.furnish(record, nodes, progress)
            gate = bootstrap.gate(record, nodes, progress)
            with progress.step("Waiting until Pods reach each other on every node"):
                gate.everything()
            version = gate.get("nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"]
        except BaseException:
            logs = _keep_logs(record)
            self._remove(record, progress)
            progress.note(f"nothing of it is left; its logs are in {logs}")
            raise
        record.but(state="up", kubernetes=version, nodes=_settled(record.nodes, found)).save()
        return with_addons(connect(record.name), progress, spec)

    def _pull(self, image: str, progress: Progress) -> None:
        """kind would pull it itself, without a word about how long that takes."""
        if docker.has_image(image):
            return
        with progress.step(f"docker pull {image.partition('@')[0]}"):
            said = docker.docker("pull", "--quiet", image, check=False, timeout=3600)
        if not said.ok:
            why = last_line(said.stderr)
            raise HostLacks(f"the node image {image} cannot be had: {why}", "Name one that your kind release lists in LAB_KIND_IMAGE")

    def _started(self, record: ClusterRecord, spec: ClusterSpec, progress: Progress) -> Cluster:
        """Start the stopped containers of a finished cluster, and wait until it works again.

        Docker starts them itself after a restart of its own or of the machine, and gives them addresses and names as it likes: those that
        run, but are not as they were left, are waited for and settled just as well.
        """
        workers = len(record.nodes) - 1
        if workers != spec.workers:
            mend = f"Remove it first (`lab down --name {spec.name}`), or give yours another --name"
            raise BadInput(f"cluster {spec.name!r} exists with {workers} workers, not {spec.workers}", mend)
        spec = as_it_is(spec, record.options)
        if new := set(settings.read_ports(spec.ports)) - set(settings.read_ports(record.options["ports"])):
            host, node = min(new)
            raise BadInput(
                f"cluster {spec.name!r} exists, and was not made with --port {host}:{node}, which takes new containers",
                f"Remove it first (`lab down --name {spec.name}`), or use `lab kubectl -- port-forward`",
            )
        found = _found(record)
        names = [settings.container_of(record.name, node.name) for node in record.nodes]
        if gone := [name for name in names if name not in found]:
            raise NoSuchCluster(
                f"cluster {record.name!r} has lost its containers {', '.join(gone)}",
                f"Make it anew: lab down --name {record.name}; lab up --name {record.name}",
            )
        stopped = [name for name in names if not found[name].running]
        if stopped:
            with progress.step(f"docker start {' '.join(stopped)}"):
                docker.docker("start", *stopped)
            found = _found(record)
            if dead := [name for name in stopped if name not in found or not found[name].running]:
                raise Unhealthy(f"the container {dead[0]} ended as soon as it was started", f"What it said: docker logs {dead[0]}")
        if again := not_as_left(record.nodes, found):
            if by_docker := [node.access["container"] for node in again if node.access["container"] not in stopped]:
                progress.note(f"Docker has started {', '.join(by_docker)} again")
            # With their new addresses, and as not settled yet: what is interrupted here is done again by the next `up`.
            record = _with_nodes(record, found)
            record.save()
            nodes = [self.node(record, each) for each in record.nodes]
            record = netfilter.ensure(record, nodes[0])
            gate = bootstrap.gate(record, nodes, progress, started=started({node.name for node in again}, record.nodes, found))
            with progress.step("Waiting until Pods reach each other on every node"):
                gate.api()
                gate.everything()
            bootstrap.settle(nodes)  # last: a container that starts takes the name that Docker gave it
            record = record.but(nodes=_settled(record.nodes, found))
        record.save()
        return with_addons(connect(record.name), progress, spec)

    def down(self, name: str, progress: Progress) -> None:
        """Only what carries our record: a kind cluster of the same name may be somebody's own."""
        with locked(name, progress):
            if not (cluster_dir(name) / CONFIG).exists() and not _is_ours(name):
                return
            try:
                record = load_record(name)
            except LabError:  # unreadable: the name is enough
                record = ClusterRecord(name, self.name, "creating", str(cluster_dir(name) / "kubeconfig"), [])
            with progress.step(f"Removing cluster {name}"):
                self._remove(record, progress)

    def _remove(self, record: ClusterRecord, progress: Progress) -> None:
        # Before its configuration was written nothing can have been made, and there may be no Docker to ask.
        if (record.folder / CONFIG).exists():
            docker.need_kind()
            docker.daemon()
            bootstrap.end_creation(record)
            docker.kind("delete", "cluster", "--name", record.name, "--kubeconfig", record.kubeconfig)
            netfilter.unload(record, readable_records()[0], progress)
            if record.options.get("network_made") and not docker.clusters():
                docker.docker("network", "rm", docker.NETWORK, check=False)  # others may use it
        shutil.rmtree(record.folder, ignore_errors=True)

    def reset(self, name: str, progress: Progress) -> Cluster:
        """Deleted and made anew: containers have no snapshots that hold /var, which is where all of Kubernetes' state is."""
        docker.need_kind()
        docker.daemon()
        with locked(name, progress):
            record = load_record(name)
            if record.state != "up":
                mend = f"Run `lab up --name {name}`"
                raise NoSuchCluster(f"cluster {name!r} was never finished, so there is nothing to go back to", mend)
            # While they still work: what new ones need and no registry may be there to give.
            self._pull(record.options["image"], progress)
            bootstrap.keep_network(record, progress)
            with progress.step(f"Removing the nodes of {name}"):
                record.but(state="creating").save()
                docker.kind("delete", "cluster", "--name", name, "--kubeconfig", record.kubeconfig)
            return self._made(record.but(state="creating", nodes=[]), progress)

    def status(self, record: ClusterRecord) -> list[NodeStatus]:
        found = _found(record) if record.nodes else {}
        ready = ready_nodes(record) if any(container.running for container in found.values()) else {}
        moved = {node.name for node in not_as_left(record.nodes, found)} if record.state == "up" else set()

        def of(node: NodeRecord) -> NodeStatus:
            name = str(node.access["container"])
            container = found.get(name)
            if not container or not container.running:
                mend = f"the container {name} does not run; `lab up --name {record.name}` starts it again"
                return NodeStatus(node.name, node.ip, node.role, False, False, mend)
            mend = f"Docker has started the container {name} again; `lab up --name {record.name}` gives it its name and finds its address"
            return NodeStatus(node.name, container.ip, node.role, True, ready.get(node.name, False), mend if node.name in moved else "")

        return [of(node) for node in record.nodes]

    def load(self, record: ClusterRecord, archive: Path, progress: Progress) -> list[str]:
        nodes = [self.node(record, node) for node in record.nodes]
        before = nodes[0].images()
        with progress.step(f"Loading {archive.name} on {', '.join(node.name for node in nodes)}"):
            bootstrap.load(nodes, archive)
        return loaded(archive, before, nodes[0].images())

    def node(self, record: ClusterRecord, node: NodeRecord) -> Node:
        return SshNode(node) if "key" in node.access else KindNode(node)  # a grader's sandbox reaches it by the grader's ssh

    def enter(self, record: ClusterRecord, node: NodeRecord, words: list[str], terminal: bool) -> list[str]:
        """What `lab ssh` becomes."""
        streams = ["--interactive", *(["--tty"] if terminal else [])]
        return [
            "docker",
            "exec",
            *streams,
            str(node.access["container"]),
            *(["bash", "-c", *words] if len(words) == 1 else words or ["bash", "-l"]),
        ]


def _plan(spec: ClusterSpec, info: dict[str, Any], progress: Progress) -> ClusterRecord:
    """What is about to be made, before it is made."""
    folder = cluster_dir(spec.name)
    others, _ = readable_records()
    options: dict[str, Any] = {
        "workers": spec.workers,
        "proxy_mode": spec.proxy_mode,
        "ports": list(spec.ports),
        "image": os.environ.get("LAB_KIND_IMAGE") or settings.IMAGE,
        # The last of our clusters removes them, also when that is not the one that made them.
        "network_made": not docker.network_exists() or any(one.options.get("network_made") for one in others),
        netfilter.LOADED: any(one.options.get(netfilter.LOADED) for one in others),
        "architecture": debian_name(str(info.get("Architecture") or platform.machine())),
    }
    kubectl = host_kubectl(progress=progress)
    return ClusterRecord(spec.name, Kind.name, "creating", str(folder / "kubeconfig"), [], options=options, kubectl=kubectl)


def _found(record: ClusterRecord) -> dict[str, Container]:
    return docker.containers([settings.container_of(record.name, node) for node in settings.node_names(record.options["workers"])])


def _with_nodes(record: ClusterRecord, found: Mapping[str, Container]) -> ClusterRecord:
    names = {node: settings.container_of(record.name, node) for node in settings.node_names(record.options["workers"])}
    nodes = [
        NodeRecord(node, found[name].ip, "control-plane" if node == "cp" else "worker", {"container": name}) for node, name in names.items()
    ]
    return record.but(nodes=nodes)


def _settled(nodes: list[NodeRecord], found: Mapping[str, Container]) -> list[NodeRecord]:
    """The same nodes, with the start of their containers after which they were waited for and settled."""
    return [replace(node, access={**node.access, "started": found[node.access["container"]].started}) for node in nodes]


def not_as_left(nodes: list[NodeRecord], found: Mapping[str, Container]) -> list[NodeRecord]:
    """Those whose containers run, but were started, or got another address, since they were settled."""
    running = [(node, found[node.access["container"]]) for node in nodes if node.access["container"] in found]
    return [node for node, one in running if one.running and (one.started, one.ip) != (node.access.get("started"), node.ip)]


def started(names: set[str], nodes: list[NodeRecord], found: Mapping[str, Container]) -> dict[str, float]:
    """When their containers were started, in seconds of the epoch. Kubernetes' own stamps are whole seconds."""
    stamps = {node.name: found[node.access["container"]].started for node in nodes if node.name in names}
    return {name: datetime.fromisoformat(stamp).timestamp() - 1 for name, stamp in stamps.items()}


def _is_ours(name: str) -> bool:
    try:
        return name in known_clusters() and load_record(name).provider == Kind.name
    except LabError:
        return False


def check_room(nodes: int, info: dict[str, Any]) -> None:
    """Docker Desktop's machine is often smaller than the computer that it runs on."""
    has = int(info.get("MemTotal", 0)) // 2**20
    needed = nodes * MEGABYTES_PER_NODE
    if 0 < has < needed:
        raise HostLacks(
            f"{nodes} nodes need about {needed} MB of memory, and Docker has {has} MB in all",
            "Give Docker more (Docker Desktop: Settings, Resources), or ask for fewer nodes: --workers 0",
        )


def _keep_logs(record: ClusterRecord) -> Path:
    """What kind and the nodes said in a failed `up`, in a folder of the system's temporary files."""
    target = Path(tempfile.mkdtemp(prefix=f"lab-up-{record.name}-"))
    for log in record.folder.glob("*.log"):
        shutil.copyfile(log, target / log.name)
    try:
        docker.kind("export", "logs", str(target), "--name", record.name, check=False, timeout=60)
    except LabError:
        pass
    return target


PROVIDER = Kind()
