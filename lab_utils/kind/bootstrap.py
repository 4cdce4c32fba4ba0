"""From kind's containers to a cluster like every other here: the Pod network, the course's images, the nodes' names."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lab_utils.artifacts.machine import arch
from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import ClusterRecord, Node
from lab_utils.embedded import kubeadm
from lab_utils.embedded.gate import Gate
from lab_utils.errors import HostLacks, LabError, Unhealthy
from lab_utils.kind import docker, ports
from lab_utils.kind.settings import busy_port, container_of, did_not_start, read_ports, why_kind_failed
from lab_utils.progress import Progress
from lab_utils.providers.common import cached_images
from lab_utils.run import Result, end_group, follow, last_line, run
from lab_utils.together import each

# What flannel's configuration calls; kind's own images hold all but the first.
PLUGINS = ("bridge", "host-local", "loopback", "portmap")
# Kubernetes' own: kind's images hold them in the versions that fit.
IN_EVERY_NODE_IMAGE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd", "coredns", "pause")
PID = "kind-create.pid"  # in a cluster's folder, while kind is at work
NETWORK = "network.tar"  # there, too, while nodes are made
PLUGINS_FOLDER = "/opt/cni/bin"
INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")


@dataclass
class Names:
    name: str
    nodes: list[str]


@dataclass
class ContainerGate(Gate):
    """The same conditions as on every provider, with the nodes reached by `docker exec`. Each node has a `since` of its own: one may
    have been started an hour ago, and another just now."""

    reach: dict[str, Node] = field(default_factory=dict)
    started: Mapping[str, float] = field(default_factory=dict)

    def on_node(self, node: str, words: list[str]) -> Result:
        return self.reach[node].run(words, timeout=60 * self.factor)

    def _since(self, node: str) -> float:
        return self.started.get(node, 0.0)


def gate(record: ClusterRecord, nodes: Sequence[Node], progress: Progress, *, started: Mapping[str, float] | None = None) -> ContainerGate:
    """`started`: when nodes were that are started again, in seconds of the epoch."""
    return ContainerGate(
        Names(record.name, [node.name for node in nodes]),
        record.kubectl,
        record.kubeconfig,
        progress,
        reach={node.name: node for node in nodes},
        started=started or {},
    )


def create(record: ClusterRecord, progress: Progress) -> None:
    """`kind create cluster`, with its steps as notes and all that it says in a log."""
    said: list[str] = []
    last = ""

    def line(text: str) -> None:
        nonlocal last
        said.append(text)
        step = text.encode("ascii", "ignore").decode().strip(" .")
        if step and step != last and text.lstrip().startswith("•"):
            progress.note(step)
            last = step

    words = ["kind", "create", "cluster", "--name", record.name, "--config", str(record.folder / "kind.yaml")]
    # --retain: what failed can be looked at before it is removed. The shell writes down its own number and becomes kind.
    noted = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(record.folder / PID)]
    code = follow([*noted, *words, "--kubeconfig", record.kubeconfig, "--retain"], line, env=docker.ENVIRONMENT, end=_end)
    (record.folder / PID).unlink(missing_ok=True)
    (record.folder / "kind-create.log").write_text("\n".join(said) + "\n")
    if code != 0:
        raise _failed(said, record.options["ports"])
    Path(record.kubeconfig).chmod(0o600)


def _failed(said: Sequence[str], asked: Sequence[str]) -> LabError:
    busy = busy_port(said)
    if busy and busy in [host for host, _ in read_ports(asked)]:  # it was free when we looked
        return ports.taken(busy)
    return Unhealthy(f"kind could not make the cluster: {why_kind_failed(said)}", _hint(said))


def end_creation(record: ClusterRecord) -> None:
    """A `kind create` outlives a `lab` that was killed, and would go on to make containers while we remove them."""
    try:
        pid = int((record.folder / PID).read_text())
    except (OSError, ValueError):
        return
    if f"create cluster --name {record.name} " in run(["ps", "-o", "args=", "-p", str(pid)], check=False).stdout:
        _end(pid)


def _end(group: int) -> None:
    """End kind, but not what it has asked of Docker: the daemon makes a container for a client that is gone, too, and after we looked.

    A client has its answer when the container runs. Then it is there to be removed, and nobody asks for another.
    """
    with suppress(ProcessLookupError):  # it has ended by itself just now
        os.kill(group, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while run(["pgrep", "-g", str(group), "-f", "^docker run "], check=False).ok and time.monotonic() < deadline:
        time.sleep(0.2)
    end_group(group)


def _hint(said: Sequence[str]) -> str:
    text = "\n".join(said)
    if "failed to pull image" in text or "No such image" in text:
        return "Name an image that can be had, of the release of your kind, in LAB_KIND_IMAGE"
    if busy_port(said):
        return "kind chooses a free port for the API server, and another program was quicker: try again"
    if did_not_start(said) and INSTANCES.exists() and int(INSTANCES.read_text()) <= 128:
        return "Perhaps for lack of inotify instances: sudo sysctl fs.inotify.max_user_instances=512"
    return "Its whole output is in kind-create.log"


def furnish(record: ClusterRecord, nodes: Sequence[Node], progress: Progress) -> None:
    """What our nodes have and kind's have not."""
    settle(nodes)
    missing = [node for node in nodes if not node.run(["test", "-x", f"{PLUGINS_FOLDER}/{PLUGINS[0]}"]).ok]
    if missing:
        from lab_utils.artifacts import programs

        if (theirs := architecture_of(record)) != arch():
            raise HostLacks(
                f"the node image lacks CNI plugins; Docker's containers are {theirs}, and programs for them cannot be made on {arch()}",
                f"Use a Docker for {arch()}, or name an image in LAB_KIND_IMAGE that has {PLUGINS_FOLDER}/{PLUGINS[0]}",
            )
        found = programs.ensure(PLUGINS, progress)
        with progress.step(f"Copying CNI plugins to {', '.join(node.name for node in missing)}"):
            for name, path in found.items():
                each(missing, partial(_put_plugin, name=name, path=path))
    load_cached_images(record, nodes, progress)
    load_network(record, nodes, progress)
    # By the container's name: Docker may give it another address when it starts it again.
    cp = container_of(record.name, nodes[0].name)
    network = kubeadm.flannel(api=cp, images=pinned().image_names(*kubeadm.FLANNEL_IMAGES))
    gate(record, nodes, progress).kubectl("apply", "-f", "-", input=network)


def _put_plugin(node: Node, name: str, path: Path) -> None:
    node.put(path, f"{PLUGINS_FOLDER}/{name}", 0o755)


def settle(nodes: Sequence[Node]) -> None:
    """What Docker sets anew whenever it starts a container.

    The prompt, `hostname` and the journal say cp, w1, w2, not the container's name. And a node forwards: a container does when the host's
    first network namespace does, which need not be the one that Docker lives in. CNI's bridge plugin switches it on, but only on a node
    with a Pod of its own address; on a control plane without one, a NodePort would answer for no Pod of another node.
    """
    script = 'hostname "$0" && echo "$0" > /etc/hostname && sysctl -qw net.ipv4.ip_forward=1'
    each(nodes, lambda node: node.run(["sh", "-c", script, node.name], check=True))


def architecture_of(record: ClusterRecord) -> str:
    """Of Docker's containers; a record of an older version does not say it."""
    return str(record.options.get("architecture") or arch())


def load_cached_images(record: ClusterRecord, nodes: Sequence[Node], progress: Progress) -> None:
    if (theirs := architecture_of(record)) != arch():
        progress.note(f"Docker's containers are {theirs}, and the images in the cache are {arch()}: nodes pull theirs from registries")
        return
    for image, archive in cached_images(nodes[0].images(), progress, but=IN_EVERY_NODE_IMAGE).items():
        with progress.step(f"Loading {image}"):
            load(nodes, archive)


def keep_network(record: ClusterRecord, progress: Progress) -> Path | None:
    """flannel's images as an archive in the cluster's folder, so that it can be made anew without a registry; None where they lie in
    this machine's cache. kind's node image has no flannel. Docker keeps it beside that image, for a node that is deleted takes its own
    along, and cannot be asked for it before: kind's containerd drops layers that it has unpacked (discard_unpacked_layers)."""
    from lab_utils.artifacts import images

    ours = architecture_of(record) == arch()
    wanted = [image.name for image in map(pinned().image, kubeadm.FLANNEL_IMAGES) if not (ours and images.find(image, progress))]
    if not wanted:
        return None
    for name in wanted:
        if not docker.has_image(name):
            with progress.step(f"docker pull {name}"):
                said = docker.docker("pull", "--quiet", name, check=False, timeout=3600)
            if not said.ok:
                why = f"the image {name}, without which there is no Pod network, cannot be had: {last_line(said.stderr)}"
                raise HostLacks(why, "Let Docker reach that registry, then try again")
    archive = record.folder / NETWORK
    docker.docker("save", "--output", str(archive), *wanted, timeout=600)
    return archive


def load_network(record: ClusterRecord, nodes: Sequence[Node], progress: Progress) -> None:
    """flannel, on nodes that lack it. What goes wrong here costs nothing but time where the nodes themselves reach a registry."""
    names = {pinned().image(key).name for key in kubeadm.FLANNEL_IMAGES}
    if names <= nodes[0].images():
        return
    archive = record.folder / NETWORK
    try:
        if archive.exists() or keep_network(record, progress):  # `reset` has looked for it before it deleted anything
            with progress.step(f"Loading {', '.join(sorted(names))}"):
                load(nodes, archive)
    except LabError as error:
        progress.note(f"{error.what}; the nodes have to pull it")
    finally:
        archive.unlink(missing_ok=True)


def load(nodes: Sequence[Node], archive: Path) -> None:
    """Not by `kind load`, which wants the layers of all platforms: Docker with containerd's image store, as Docker Desktop has it, saves
    an index of all and the layers of one (kind issue 3795). Unpacked when it is first used, by whatever keeps this node's snapshots."""

    data = archive.read_bytes()  # once for all nodes

    def load_on(node: Node) -> None:
        inbox = "/var/lib/containerd/lab-images.tar"
        try:
            node.put(data, inbox)
            node.run(["ctr", "-n", "k8s.io", "images", "import", "--local", "--no-unpack", inbox], timeout=600, check=True)
        finally:
            node.run(["rm", "-f", inbox])

    each(nodes, load_on)
