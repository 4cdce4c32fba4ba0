"""The vagrant provider: nodes are virtual machines. Vagrant makes them (vagrant/Vagrantfile); we reach them by ssh and run kubeadm.

In a cluster's folder lies vagrant/ with the settings as they were decided, Vagrant's own notes, and a log of all it said.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import yaml

from lab_utils.artifacts import store
from lab_utils.artifacts.machine import arch
from lab_utils.artifacts.names import loaded
from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord, cluster_dir, connect, known_clusters, load_record
from lab_utils.errors import BadInput, LabError, NoSuchCluster, Unhealthy
from lab_utils.paths import state_dir
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, NodeStatus, Usability
from lab_utils.providers.common import as_it_is, cached_images, host_kubectl, locked, ready_nodes, with_addons
from lab_utils.providers.ssh import SshNode
from lab_utils.together import each
from lab_utils.vagrant import hypervisors, leftovers, machines
from lab_utils.vagrant.bootstrap import Bootstrap
from lab_utils.vagrant.machines import Machines
from lab_utils.vagrant.plan import check_box, check_room, plan, read_settings, write_settings

MEGABYTES_OF_DISK = 6000  # of one machine


class Vagrant:
    name = "vagrant"

    def usability(self) -> Usability:
        if not shutil.which("vagrant"):
            return Usability(self.name, False, "Vagrant is not installed", machines.how_to_install())
        try:
            chosen = hypervisors.choose(read_settings().provider, os.environ, hypervisors.installed())
            host_kubectl(look_only=True)
        except LabError as error:  # as `lab up` would say it: none, several and nobody chose, or one was chosen that is not here
            return Usability(self.name, False, error.what, error.mend)
        which = f"virtual machines by {chosen}"
        if chosen == "virtualbox" and hypervisors.kvm_has_the_processor():
            which += "; KVM is loaded and may keep VirtualBox from starting machines"
        return Usability(self.name, True, which)

    def takes(self, workers: int) -> tuple[int, int]:
        return read_settings().memory(workers), (workers + 1) * MEGABYTES_OF_DISK

    def usual_workers(self) -> int:
        """How many are meant where nobody says it on the command line."""
        return read_settings().workers

    def up(self, spec: ClusterSpec, progress: Progress) -> Cluster:
        machines.need_vagrant()
        with locked(spec.name, progress):
            known = load_record(spec.name) if spec.name in known_clusters() else None
            if known and known.state == "up":
                return self._started(known, spec, progress)
            if known:
                self._remove(known, progress)
            return self._made(spec, progress)

    def _made(self, spec: ClusterSpec, progress: Progress) -> Cluster:
        chosen = read_settings()
        provider = hypervisors.choose(chosen.provider, os.environ, hypervisors.installed())
        progress.note(f"the machines are kept by {provider}")
        if provider == "virtualbox" and hypervisors.kvm_has_the_processor():
            progress.note("KVM is loaded, and may keep VirtualBox from starting machines: sudo modprobe -r kvm_intel kvm_amd kvm")
        box = chosen.box_for(arch(), provider)
        check_room(chosen.memory(spec.workers))
        with store.locked(state_dir() / "vagrant-networks", progress):  # two clusters that are planned at once take two networks
            record = plan(spec, chosen, provider, box, progress)
            record.save()
        made = Machines(record.folder / "vagrant", provider)
        try:
            check_box(made, box, arch())
        except BaseException as error:  # nothing was made yet, but what Vagrant said was written down
            if isinstance(error, machines.VagrantFailed):
                progress.note(f"its logs are in {_keep_logs(record)}")
            shutil.rmtree(record.folder, ignore_errors=True)
            raise
        try:
            write_settings(record, chosen, progress)
            made.remember()
            record = self._boot(record, made, progress)
            nodes = [self.node(record, each) for each in record.nodes]
            work = Bootstrap(record, nodes, record.options["patience"], progress)
            work.calm()
            for archive in cached_images(_images(nodes[0]), progress).values():
                self.load(record, archive, progress)
            if not spec.bare:
                work.init()
            record = self._snapshot(record, made, progress)
        except BaseException:
            # A failed or interrupted `up` leaves nothing, but for the logs that say why.
            logs = _keep_logs(record)
            self._remove(record, progress)
            progress.note(f"nothing of it is left; its logs are in {logs}")
            raise
        record.but(state="up").save()
        return with_addons(connect(spec.name), progress, spec)

    def _boot(self, record: ClusterRecord, made: Machines, progress: Progress) -> ClusterRecord:
        ready = []
        for node in record.nodes:
            with progress.step(f"Booting {node.name} ({made.provider})"):
                key = made.up(node.name, progress)
            if not key:
                raise Unhealthy(f"machine {node.name} did not say by which key it is recognised", f"All that was said is in {made.log}")
            access = {"user": "root", "port": 22, "key": str(record.folder / "id_ed25519"), "host_key": key}
            access["patience"] = record.options["patience"]
            ready.append(NodeRecord(node.name, node.ip, node.role, access))
        record = record.but(nodes=ready)
        record.save()
        (record.folder / "known_hosts").write_text("".join(f"{node.ip} {node.access['host_key']}\n" for node in ready))
        return record

    def _snapshot(self, record: ClusterRecord, made: Machines, progress: Progress) -> ClusterRecord:
        try:
            with progress.step("A snapshot of every machine for `lab reset`"):
                for node in record.nodes:
                    made.save(node.name, progress)
        except machines.VagrantFailed as error:
            # No reason to lose a cluster that works. Some have none by design, and libvirt has none of machines with UEFI (arm64).
            progress.note(f"{error.what}; `lab reset` will run kubeadm anew instead")
            return record.but(options={**record.options, "snapshots": False})
        return record.but(options={**record.options, "snapshots": True})

    def _started(self, record: ClusterRecord, spec: ClusterSpec, progress: Progress) -> Cluster:
        """Start what does not run of a finished cluster."""
        workers = len(record.nodes) - 1
        if workers != spec.workers:
            mend = f"Remove it first (`lab down --name {spec.name}`), or give yours another --name"
            raise BadInput(f"cluster {spec.name!r} exists with {workers} workers, not {spec.workers}", mend)
        spec = as_it_is(spec, record.options)
        made = _machines(record)
        since = time.time()
        stopped = self._boot_stopped(record, made, progress)
        cluster = connect(record.name)
        if stopped:
            work = Bootstrap(record, cluster.nodes, record.options["patience"], progress)
            work.set_clocks()  # of machines that were paused or saved
            if not record.options["bare"]:
                work.wait(since)
        return with_addons(cluster, progress, spec)

    def _boot_stopped(self, record: ClusterRecord, made: Machines, progress: Progress) -> list[str]:
        """Start the machines that do not run; their names."""
        states = made.states()
        if gone := [node.name for node in record.nodes if states.get(node.name, "not_created") == "not_created"]:
            raise NoSuchCluster(
                f"cluster {record.name!r} has lost its machines {', '.join(gone)}",
                f"Make it anew: lab down --name {record.name}; lab up --name {record.name}",
            )
        stopped = [name for name, state in states.items() if state != "running"]
        for name in stopped:
            with progress.step(f"Booting {name} ({made.provider})"):
                made.up(name, progress, provision=False)
        return stopped

    def down(self, name: str, progress: Progress) -> None:
        with locked(name, progress):
            record = _ours(name)
            if record:
                with progress.step(f"Removing cluster {name}"):
                    self._remove(record, progress)

    def _remove(self, record: ClusterRecord, progress: Progress) -> None:
        made = _machines(record)
        problem: LabError | None = None
        try:
            made.destroy(progress)
        except LabError as error:
            problem = error
        for found in leftovers.sweep(record.name, made.provider, record.options.get("networks_before", [])):
            progress.note(f"removed {found}, which Vagrant had forgotten")
        if problem and not (made.provider == "libvirt" and leftovers.answers()):  # there, the sweep has done all that Vagrant could not
            raise problem
        if made.provider == "libvirt" and (box := record.options.get("box")):
            leftovers.forget_box(box, record.options["pools_before"])
        shutil.rmtree(record.folder, ignore_errors=True)

    def reset(self, name: str, progress: Progress) -> Cluster:
        with locked(name, progress):
            record = load_record(name)
            if record.state != "up":
                raise NoSuchCluster(
                    f"cluster {name!r} was never finished, so there is nothing to go back to", f"Run `lab up --name {name}`"
                )
            made = _machines(record)
            nodes = [self.node(record, each) for each in record.nodes]
            work = Bootstrap(record, nodes, record.options["patience"], progress)
            # Restoring starts no networks, which a host that was restarted may have stopped, and `kubeadm reset` wants a machine that runs.
            self._boot_stopped(record, made, progress)
            if record.options["snapshots"]:
                with progress.step("Bringing every machine back to its snapshot"):
                    for node in record.nodes:
                        made.restore(node.name, progress)
                    work.set_clocks()
                if not record.options["bare"]:
                    work.wait(time.time())
            else:
                work.undo()
                if not record.options["bare"]:
                    work.init()
            return with_addons(connect(name), progress)

    def status(self, record: ClusterRecord) -> list[NodeStatus]:
        machines.need_vagrant()
        states = _machines(record).states()
        running = {name: state == "running" for name, state in states.items()}
        ready: dict[str, bool] = {}
        if any(running.values()) and not record.options.get("bare") and record.state == "up":
            ready = ready_nodes(record)
        return [
            NodeStatus(
                node.name,
                node.ip,
                node.role,
                running.get(node.name, False),
                ready.get(node.name, False),
                ""
                if running.get(node.name)
                else f"the machine is {states.get(node.name, 'unknown')}; `lab up --name {record.name}` starts it again",
            )
            for node in record.nodes
        ]

    def load(self, record: ClusterRecord, archive: Path, progress: Progress) -> list[str]:
        nodes = [self.node(record, each) for each in record.nodes]
        before = _images(nodes[0])

        def load_on(node: Node) -> None:
            inbox = "/var/tmp/lab-images.tar"
            try:
                node.put(archive, inbox)
                node.run(["ctr", "-n", "k8s.io", "images", "import", "--local", inbox], timeout=600, check=True)
            finally:
                node.run(["rm", "-f", inbox])

        with progress.step(f"Loading {archive.name} on {', '.join(node.name for node in nodes)}"):
            each(nodes, load_on, give_up=Node.close)  # a transfer ends with its connection
        return loaded(archive, before, _images(nodes[0]))

    def node(self, record: ClusterRecord, node: NodeRecord) -> Node:
        return SshNode(node)


def _machines(record: ClusterRecord) -> Machines:
    return Machines(record.folder / "vagrant", record.options.get("vm_provider", ""))


def _ours(name: str) -> ClusterRecord | None:
    """The record of a cluster of virtual machines; of an unreadable one, what its other files tell."""
    folder = cluster_dir(name) / "vagrant"
    try:
        record = load_record(name) if name in known_clusters() else None
    except BadInput:
        if not folder.is_dir():
            return None
        record = ClusterRecord(name, Vagrant.name, "creating", "", [], options={"vm_provider": _decided_provider(folder / "settings.yaml")})
    return record if record and record.provider == Vagrant.name else None


def _decided_provider(decided: Path) -> str:
    """What settings.yaml says of it, if that is not damaged as well."""
    try:
        said = yaml.safe_load(decided.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    return str(said.get("provider") or "") if isinstance(said, dict) else ""


def _images(node: Node) -> set[str]:
    """Full names, as containerd keeps them."""
    return set(node.run(["ctr", "-n", "k8s.io", "images", "list", "-q"], check=True).stdout.split())


def _keep_logs(record: ClusterRecord) -> Path:
    """What Vagrant and kubeadm said in a failed `up`, in a folder of the system's temporary files."""
    import tempfile

    target = Path(tempfile.mkdtemp(prefix=f"lab-up-{record.name}-"))
    for log in (record.folder / "vagrant").glob("*.log"):
        shutil.copyfile(log, target / log.name)
    for node in record.nodes:
        if node.access:
            try:
                reach = SshNode(node)
                said = reach.run("journalctl -q --no-pager -u kubelet -u containerd -n 400", timeout=60)
                (target / f"{node.name}-journal.log").write_text(said.stdout)
                reach.close()
            except (LabError, OSError):
                continue
    return target


PROVIDER = Vagrant()
