"""The embedded provider: nodes are namespaces of this Linux machine. The user's half; root's is lab_utils.embedded."""

from __future__ import annotations

import grp
import os
import platform
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord, cluster_dir, connect, known_clusters, load_record, readable_records
from lab_utils.embedded.host import seems_to_lack
from lab_utils.embedded.patience import patience
from lab_utils.embedded.privileged import perform
from lab_utils.errors import HostLacks, LabError
from lab_utils.host.packages import family, how_to_install, packages
from lab_utils.paths import root_state_dir
from lab_utils.progress import Progress, Silent
from lab_utils.providers import ClusterSpec, NodeStatus, Usability
from lab_utils.providers.common import as_it_is, cluster_keys, locked, ready_nodes, with_addons
from lab_utils.providers.ssh import SshNode
from lab_utils.run import run

# Program → what lab_utils/host/packages.txt calls it.
NEEDED = {"ip": "ip", "nft": "nft", "nsenter": "util-linux", "unshare": "util-linux", "mount": "mount"}
ADMINISTRATORS = {"sudo", "wheel", "admin"}  # groups whose members sudo lets do everything: Debian, most others, older Ubuntus
MEGABYTES_PER_NODE = 700
MEGABYTES_OF_DISK = 6000


class Embedded:
    name = "embedded"

    def usability(self) -> Usability:
        if platform.system() != "Linux":
            return Usability(
                self.name, False, f"it makes Linux namespaces, and this is {platform.system()}", "Use --provider kind or vagrant"
            )
        from lab_utils.artifacts import debian  # what builds: `lab ssh` and notebooks need none of it

        missing = {what for program, what in NEEDED.items() if not shutil.which(program)}
        for_the_root = debian.lacking()
        if missing or for_the_root:
            named = [*packages(missing, family()), *for_the_root.values()]
            return Usability(self.name, False, f"missing: {', '.join(named)}", how_to_install({*missing, *for_the_root}))
        if os.geteuid() != 0 and not shutil.which("sudo"):
            return Usability(self.name, False, "it needs root, and there is no sudo", "Run `lab` as root")
        try:
            # Without root it is not asked for a password here: `up` looks again.
            lacks = perform("kernel_lacks", {}, Silent())["lacks"] if os.geteuid() == 0 else seems_to_lack()
        except LabError as error:
            return Usability(self.name, False, error.what, error.mend)
        if lacks:
            return self._lacking(lacks)
        why = "Linux namespaces, a kubeadm cluster in well under a minute"
        if not seems_to_have_root():
            why += "; but it needs root, and sudo may not let this user: in none of the groups " + ", ".join(sorted(ADMINISTRATORS))
            return Usability(self.name, True, why, "Try `sudo true`, or ask whoever administers this machine", doubtful=True)
        return Usability(self.name, True, why)

    def _lacking(self, what: list[str]) -> Usability:
        mend = "Load the modules (modprobe vxlan overlay), or use --provider vagrant"
        return Usability(self.name, False, f"this kernel has no {', no '.join(what)}", mend)

    def takes(self, workers: int) -> tuple[int, int]:
        return (workers + 1) * MEGABYTES_PER_NODE, MEGABYTES_OF_DISK

    def up(self, spec: ClusterSpec, progress: Progress) -> Cluster:
        _need(self.usability())
        with locked(spec.name, progress):
            return self._up(spec, progress)

    def _up(self, spec: ClusterSpec, progress: Progress) -> Cluster:
        from lab_utils.artifacts import store

        folder = cluster_dir(spec.name)
        known = load_record(spec.name) if (folder / "cluster.json").exists() else None
        there = perform("status", {"name": spec.name}, progress)
        # What was added once stays. How it was made root's side knows best: this record may be lost, or of an `up` that was killed.
        before = {**(known.options if known and (known.state == "up" or there["made"]) else {}), **there["made"]}
        if before:
            spec = as_it_is(spec, before)
        stopped = spec.workers + 1 - sum(node["running"] for node in there["nodes"])
        if stopped > 0:
            if os.geteuid() != 0 and (lacks := perform("kernel_lacks", {}, progress)["lacks"]):
                _need(self._lacking(lacks))
            check_room(stopped, disk=not known or known.state != "up")
        made = perform("prepare", {}, progress)
        keys = cluster_keys(folder)
        record = ClusterRecord(
            name=spec.name,
            provider=self.name,
            state="creating",
            kubeconfig=str(folder / "kubeconfig"),
            nodes=[],
            kubernetes=there["made"].get("kubernetes", made["kubernetes"]),
            options={**before, "proxy_mode": spec.proxy_mode, "bare": spec.bare, "guarded": spec.guarded},
            kubectl=made["kubectl"],
        )
        if not (folder / "cluster.json").exists():
            record.save()
        try:
            answer = perform("up", {**asdict(spec), **made, **keys}, progress)  # `images` is what `made` says
        except BaseException:
            if load_record(spec.name).state == "creating":
                shutil.rmtree(folder, ignore_errors=True)
            raise
        _finish(record, answer, keys)
        cluster = with_addons(connect(spec.name), progress, spec)
        store.give_back(folder)  # under `sudo -E` its home is a user's
        return cluster

    def down(self, name: str, progress: Progress) -> None:
        with locked(name, progress):
            # kind's nodes share this machine's kernel, and Services on them need the module that an embedded cluster may have loaded.
            beside = any(record.provider == "kind" for record in readable_records()[0])
            perform("down", {"name": name, "kind_beside": beside}, progress)
            shutil.rmtree(cluster_dir(name), ignore_errors=True)

    def forgotten(self) -> list[str]:
        """Clusters of this user that only root's side knows any more. It is asked only where there may be one: it may take a password."""
        there = {path.parent.name for path in root_state_dir().glob("*/state.json")}
        if there <= set(known_clusters()) or not self.usability().usable:
            return []
        try:
            return list(perform("names", {}, Silent())["names"])
        except HostLacks:
            return []  # who may not become root has made none

    def reset(self, name: str, progress: Progress) -> Cluster:
        with locked(name, progress):
            record = load_record(name)
            perform("reset", {"name": name, "kubectl": record.kubectl}, progress)
            return with_addons(connect(name), progress)

    def status(self, record: ClusterRecord) -> list[NodeStatus]:
        running = {node["name"]: node["running"] for node in perform("status", {"name": record.name}, Silent())["nodes"]}
        ready = ready_nodes(record) if any(running.values()) and not record.options.get("bare") else {}
        return [
            NodeStatus(
                node.name,
                node.ip,
                node.role,
                running.get(node.name, False),
                ready.get(node.name, False),
                "" if running.get(node.name) else f"stopped; `lab up --name {record.name}` starts it again",
            )
            for node in record.nodes
        ]

    def load(self, record: ClusterRecord, archive: Path, progress: Progress) -> list[str]:
        return list(perform("load", {"name": record.name, "archive": str(archive.absolute())}, progress)["images"])

    def fence(self, name: str, closed: bool) -> None:
        perform("fence", {"name": name, "closed": closed}, Silent())

    def node(self, record: ClusterRecord, node: NodeRecord) -> Node:
        return SshNode(node)


def seems_to_have_root() -> bool:
    """As far as it can be told without asking for a password."""
    return os.geteuid() == 0 or bool(groups() & ADMINISTRATORS) or run(["sudo", "-n", "true"], check=False, timeout=5).ok


def groups() -> set[str]:
    """The names of this user's groups. One without a name is not meant."""
    found = set()
    for number in {os.getegid(), *os.getgroups()}:  # getgroups(2) need not tell the first one
        with suppress(KeyError):
            found.add(grp.getgrgid(number).gr_name)
    return found


def _finish(record: ClusterRecord, answer: dict[str, Any], keys: dict[str, str]) -> None:
    folder = record.folder
    config = Path(record.kubeconfig)
    config.touch(mode=0o600)
    config.write_text(answer["kubeconfig"])
    access: dict[str, Any] = {"user": "root", "port": 22, "key": str(folder / "id_ed25519"), "host_key": keys["host_key_public"]}
    access["patience"] = patience()  # labs and their checks wait as long as `lab up` did
    nodes = [NodeRecord(node["name"], node["ip"], node["role"], access) for node in answer["nodes"]]
    (folder / "known_hosts").write_text("".join(f"{node.ip} {keys['host_key_public']}\n" for node in nodes))
    record.but(nodes=nodes, state="up").save()


def _need(usable: Usability) -> None:
    if not usable.usable:
        raise HostLacks(f"the embedded provider cannot run here: {usable.why}", usable.mend)


def check_room(nodes: int, *, disk: bool = True) -> None:
    """Refuse before any of these nodes is made or started when memory or disk would not suffice."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) // 1024
    needed = nodes * MEGABYTES_PER_NODE
    if available < needed:
        raise HostLacks(
            f"{nodes} nodes need about {needed} MB of memory, and {available} MB are free", "Close something, or ask for fewer: --workers 0"
        )
    place = next(folder for folder in (root_state_dir(), *root_state_dir().parents) if folder.exists())
    free = shutil.disk_usage(place).free // 2**20
    if disk and free < MEGABYTES_OF_DISK:
        raise HostLacks(
            f"about {MEGABYTES_OF_DISK} MB of disk are needed below {place}, and {free} MB are free", "Make room, or `lab down --all`"
        )


PROVIDER = Embedded()
