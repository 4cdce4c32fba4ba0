"""Faults of an installation: what goes wrong on a machine between its packages and its place in a cluster."""

from __future__ import annotations

import re

from lab_utils.cluster import Node
from lab_utils.errors import BadInput
from lab_utils.faults import Fault, Plan
from lab_utils.faults.nodes import FileFault
from lab_utils.labs.workspace import Workspace

# Which of these names the runtime's socket depends on the version (KEP-4656). Beside them lies instance-config.yaml, which kubeadm keeps
# for itself: the kubelet never reads it.
KUBELET_FILES = ("/var/lib/kubelet/config.yaml", "/var/lib/kubelet/kubeadm-flags.env")
SOCKET = re.compile(r"(unix://)?/\S*containerd\.sock")
GONE = "unix:///var/run/dockershim.sock"  # of a runtime that Kubernetes speaks to no more


class CgroupDriverWrong(FileFault):
    """Of the runtime, not of the kubelet: since 1.34 kubelet asks the runtime for the driver (KEP-4033) and believes it."""

    name = "cgroup-driver-wrong"
    about = "containerd makes cgroups in the other way than this machine needs; the kubelet asks it, and follows"
    heals = "never; it is what the file says"
    # Neither unit is started where it does not run: on a bare machine that is the learner's work.
    after = ("systemctl", "--no-block", "try-restart", "containerd", "kubelet")

    def target(self, node: Node) -> str:
        return "/etc/containerd/config.toml"

    def broken(self, text: str) -> str:
        return re.sub(r"SystemdCgroup = (true|false)", lambda m: f"SystemdCgroup = {'false' if m[1] == 'true' else 'true'}", text)


class CriSocketWrong(FileFault):
    name = "cri-socket-wrong"
    about = "the kubelet looks for its runtime behind a socket that does not exist: it does not start"
    heals = "never; systemd tries again every few seconds, and fails"
    after = ("systemctl", "restart", "--no-block", "kubelet")

    def target(self, node: Node) -> str:
        for path in KUBELET_FILES:
            said = node.run(["cat", path])
            if said.ok and SOCKET.search(said.stdout):
                return path
        raise BadInput(f"no file of the kubelet on node {node.name} names containerd's socket", "Has the node joined a cluster?")

    def broken(self, text: str) -> str:
        return SOCKET.sub(GONE, text)


class MachineIdDoubled(Fault):
    """What a copied virtual machine brings along. product_uuid is the hypervisor's to give, and cannot be changed from inside."""

    name = "machine-id-doubled"
    about = "a node has the machine-id of another, as a copy of its disk would"
    heals = "never; the file is made once, at the first boot"
    path = "/etc/machine-id"

    def plan(self, lab: Workspace, *, node: str, of: str = "cp") -> Plan:
        before, after = self._read(lab.node(node)), self._read(lab.node(of))
        if before == after:
            raise BadInput(f"nodes {node} and {of} have the same machine-id already")
        return {"node": node, "before": before, "after": after}

    def do(self, lab: Workspace, plan: Plan) -> None:
        self._write(lab.node(plan["node"]), plan["after"])

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if self.holds(lab, plan):
            self._write(lab.node(plan["node"]), plan["before"])

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        return self._read(lab.node(plan["node"])) == str(plan["after"])

    def _read(self, node: Node) -> str:
        return node.run(["cat", self.path], check=True).stdout

    def _write(self, node: Node, text: str) -> None:
        node.put(text.encode(), self.path, 0o444)
        node.run("systemctl try-restart kubelet", check=True)  # it reads the file once


class ClockWrong(Fault):
    """Only on a machine of its own. The wall clock has no namespace (time_namespaces(7) has the other two): on an embedded
    node and in a container it is the host's, and setting it would set everybody's."""

    name = "clock-wrong"
    about = "a node's clock is wrong by some minutes: certificates and tokens seem not to be valid yet, or not any more"
    heals = "when a time service sets it; the fault stops systemd-timesyncd and chrony"

    def plan(self, lab: Workspace, *, node: str, minutes: int = -60) -> Plan:
        where = lab.node(node)
        if (kind := where.run("systemd-detect-virt --container").stdout.strip()) != "none":
            mend = "Use virtual machines: lab up --provider vagrant"
            raise BadInput(f"node {node} ({kind or 'of unknown kind'}) shares its clock with the machine that it runs on", mend)
        services = [unit for unit in ("systemd-timesyncd", "chrony") if where.run(["systemctl", "is-active", "--quiet", unit]).ok]
        return {"node": node, "minutes": minutes, "services": services}

    def do(self, lab: Workspace, plan: Plan) -> None:
        for unit in plan["services"]:
            lab.node(plan["node"]).run(["systemctl", "stop", unit], check=True)
        self._move(lab.node(plan["node"]), plan["minutes"])

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if self.holds(lab, plan):
            self._move(lab.node(plan["node"]), -plan["minutes"])
        for unit in plan["services"]:
            lab.node(plan["node"]).run(["systemctl", "start", unit], check=True)

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        """Compared with another node: what time it is here is not known to be what time it is there."""
        other = next(node for node in lab.nodes if node.name != plan["node"])
        here, there = (int(node.run(["date", "+%s"], check=True).stdout) for node in (lab.node(plan["node"]), other))
        return abs(here - there) > 30 * abs(int(plan["minutes"]))

    def _move(self, node: Node, minutes: int) -> None:
        node.run(f"date -u -s @$(( $(date +%s) + {60 * minutes} ))", check=True)


FAULTS: list[Fault] = [CgroupDriverWrong(), CriSocketWrong(), MachineIdDoubled(), ClockWrong()]
