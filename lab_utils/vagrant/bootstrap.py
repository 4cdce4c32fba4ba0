"""kubeadm on the machines, by ssh; the rest of the way from booted machines to a cluster that carries traffic.

The token is made here and handed to every machine in its own configuration: nothing needs a folder that they share.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import ClusterRecord, Node
from lab_utils.embedded import kubeadm, slow
from lab_utils.embedded.attempt import kubeadm_on
from lab_utils.embedded.gate import Gate
from lab_utils.progress import Progress
from lab_utils.run import Result
from lab_utils.together import each

# A machine of one's own choosing may be smaller than kubeadm likes; all else that its preflight looks at must hold on a real machine.
IGNORED = "NumCPU,Mem"
CONFIG = "/root/kubeadm.yaml"
MONITOR_SECONDS = 6  # kube-controller-manager's --node-monitor-period is five


@dataclass
class MachineGate(Gate):
    """The same conditions as on every provider, with the nodes reached by ssh."""

    reach: dict[str, Node] = field(default_factory=dict)

    def on_node(self, node: str, words: list[str]) -> Result:
        return self.reach[node].run(words, timeout=120)


@dataclass
class Named:
    name: str
    nodes: list[str]


@dataclass
class Bootstrap:
    """One cluster's nodes, and how patient to be with them."""

    record: ClusterRecord
    nodes: Sequence[Node]
    patience: float
    progress: Progress

    @property
    def control_plane(self) -> Node:
        return self.nodes[0]

    @property
    def workers(self) -> Sequence[Node]:
        return self.nodes[1:]

    def calm(self) -> None:
        """What emulated machines are told before anything of Kubernetes runs there."""
        if files := slow.units(self.patience):

            def tell(node: Node) -> None:
                for path, text in files.items():
                    node.put(text.encode(), path)
                node.run("systemctl daemon-reexec && systemctl try-restart containerd kubelet", timeout=120, check=True)

            each(self.nodes, tell)

    def init(self) -> None:
        """From machines with the packages to a cluster whose Pods reach each other."""
        cp = self.control_plane
        token = f"{secrets.token_hex(3)}.{secrets.token_hex(8)}"
        config = kubeadm.init_config(
            ip=cp.ip,
            node=cp.name,
            token=token,
            kubernetes=self.record.kubernetes,
            cgroup="v2",
            proxy_mode=self.record.options["proxy_mode"],
            alone=not self.workers,
            etcd_sync=True,  # a machine can lose its power, unlike a process of the host
            patience=self.patience,
        )
        with self.progress.step(f"kubeadm init on {cp.name}"):
            for name, text in slow.patches(self.patience).items():
                cp.put(text.encode(), f"{slow.PATCHES}/{name}")
            self._kubeadm(cp, "init", config, "--skip-token-print")
            cp.run("mkdir -p /root/.kube && ln -sf /etc/kubernetes/admin.conf /root/.kube/config", check=True)
            admin = cp.run(["cat", "/etc/kubernetes/admin.conf"], check=True).stdout
            write_kubeconfig(Path(self.record.kubeconfig), kubeadm.user_kubeconfig(admin, self.record.name))
        gate = self.gate()
        images = pinned().image_names(*kubeadm.FLANNEL_IMAGES)
        network = kubeadm.flannel(api=cp.ip, images=images, iface=kubeadm.DEVICE_OF_NODE_IP, patience=self.patience)
        gate.kubectl("apply", "-f", "-", input=network)
        if self.workers:
            ca = kubeadm.ca_hash(kubeadm.ca_of(admin))
            with self.progress.step(f"kubeadm join on {', '.join(node.name for node in self.workers)}"):
                gate.token(token)
                each(self.workers, lambda node: self._join(node, token, f"{cp.ip}:6443", ca))
        with self.progress.step("Waiting until Pods reach each other on every node"):
            gate.everything()

    def _join(self, node: Node, token: str, endpoint: str, ca: str) -> None:
        config = kubeadm.join_config(ip=node.ip, node=node.name, token=token, endpoint=endpoint, ca_hash=ca, patience=self.patience)
        self._kubeadm(node, "join", config)

    def _kubeadm(self, node: Node, verb: str, config: str, *words: str) -> None:
        node.put(config.encode(), CONFIG, 0o600)
        line = ["kubeadm", verb, f"--config={CONFIG}", *words, f"--ignore-preflight-errors={IGNORED}"]
        log = self.record.folder / "vagrant" / f"{node.name}-kubeadm-{verb}.log"
        kubeadm_on(node.name, verb, log, lambda: node.run(line, timeout=600))

    def gate(self) -> MachineGate:
        return MachineGate(
            Named(self.record.name, [node.name for node in self.nodes]),
            self.record.kubectl,
            self.record.kubeconfig,
            self.progress,
            factor=self.patience,
            reach={node.name: node for node in self.nodes},
        )

    def wait(self, since: float) -> None:
        """After machines came back: what etcd says of them may be of the life before, so every kubelet must have spoken `since`.

        A kubelet renews its lease every ten seconds, and the controller that calls nodes Ready looks every five.
        """
        with self.progress.step("Waiting until Pods reach each other on every node"):
            gate = self.gate()
            gate.api()
            gate.until(
                "a word of every kubelet", lambda: silent(gate.get("leases", "-n", "kube-node-lease")["items"], gate.state.nodes, since)
            )
            time.sleep(MONITOR_SECONDS)
            gate.everything()

    def set_clocks(self) -> None:
        """A machine that comes back from a snapshot believes that it is still then; leases and tokens are judged by the clock."""
        each(list(reversed(self.nodes)), lambda node: node.run(["date", "-u", "-s", f"@{time.time():.0f}"], check=True))

    def undo(self) -> None:
        """What `kubeadm reset` leaves is the network of Pods: its links, its configuration and its rules."""
        with self.progress.step("kubeadm reset on every node"):
            each(self.nodes, lambda node: node.run(UNDO, timeout=300, check=True))


def silent(leases: list[dict[str, Any]], nodes: list[str], since: float) -> str:
    """Which nodes have not renewed their lease since then; "" when all have."""
    renewed = {each["metadata"]["name"]: datetime.fromisoformat(each["spec"]["renewTime"]).timestamp() for each in leases}
    late = [name for name in nodes if renewed.get(name, 0.0) < since]
    return f"silent: {', '.join(late)}" if late else ""


UNDO = """
kubeadm reset --force >/root/kubeadm-reset.log 2>&1 || exit 1
rm -rf /etc/cni/net.d/* /var/lib/cni /run/flannel /root/.kube
for device in cni0 flannel.1 kube-ipvs0 kube-bridge; do ip link delete "$device" 2>/dev/null; done
iptables-save | grep -v -E 'KUBE-|FLANNEL|CNI-' | iptables-restore
ip6tables-save | grep -v -E 'KUBE-|FLANNEL|CNI-' | ip6tables-restore
nft delete table ip kube-proxy 2>/dev/null; nft delete table ip6 kube-proxy 2>/dev/null
true
"""


def write_kubeconfig(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
