"""A cluster's network without the cluster: namespaces wired by `ip` as flannel's VXLAN backend and the bridge plugin do.

Two nodes and a control plane, their Pods, kube-proxy's rules for two Services, loaded into the kernel and read back.
Real devices, real routes, real rules; only the API objects are written by hand.

    python -m tests.kernel.flannel OUT      records it as a snapshot folder (as root)
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab_utils.run import run
from lab_utils.snapshot import NodeSnapshot, Sandbox, Snapshot, write_snapshot
from tests.kernel.wiring import Wiring, wiring

NODES = {"cp": ("172.31.77.11", "control-plane"), "w1": ("172.31.77.12", "worker"), "w2": ("172.31.77.13", "worker")}


@dataclass(frozen=True)
class WiredPod:
    namespace: str
    name: str
    node: str
    ip: str
    labels: dict[str, str]

    @property
    def short(self) -> str:
        return self.name

    @property
    def veth(self) -> str:
        return f"veth{abs(hash_of(self.name)):08x}"


def hash_of(name: str) -> int:
    """Any stable number: device names must not change from one recording to the next."""
    return int.from_bytes(name.encode()[-4:], "big")


PODS = [
    WiredPod("kube-system", "coredns-6f6b679f8f-4kq2m", "cp", "10.244.0.2", {"k8s-app": "kube-dns"}),
    WiredPod("default", "web-7d9c5b6f4-abcde", "w1", "10.244.1.2", {"app": "web"}),
    WiredPod("default", "web-7d9c5b6f4-fghij", "w1", "10.244.1.3", {"app": "web"}),
    WiredPod("default", "client", "w2", "10.244.2.2", {"app": "client"}),
    WiredPod("default", "web-7d9c5b6f4-klmno", "w2", "10.244.2.3", {"app": "web"}),
]
SERVICES = {
    ("default", "web", "http"): ("10.96.45.17", 80, "tcp", ["10.244.1.2:8080", "10.244.1.3:8080", "10.244.2.3:8080"]),
    ("default", "empty", "http"): ("10.96.45.18", 80, "tcp", []),
    ("kube-system", "kube-dns", "dns"): ("10.96.0.10", 53, "udp", ["10.244.0.2:53"]),
}


def pod_cidr(node: str) -> str:
    return f"10.244.{list(NODES).index(node)}"


def vtep_mac(node: str) -> str:
    return f"02:00:00:00:00:1{list(NODES).index(node)}"


def wire(wires: Wiring) -> None:
    wires.add("host")  # the machine that the nodes are on: its bridge is their network
    wires.ip("host", "link add lab0 type bridge")
    wires.ip("host", "link set lab0 up")
    for node, (ip, _) in NODES.items():
        wires.add(node)
        wires.veth("host", f"v-{node}", node, "eth0")
        wires.ip("host", f"link set v-{node} master lab0 up")
        wires.ip(node, f"addr add {ip}/24 dev eth0")
        wires.ip(node, "link set eth0 up")
        wires.ip(node, "route add default via 172.31.77.1")
        wires.inside(node, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        flannel(wires, node, ip)
    for pod in PODS:
        add_pod(wires, pod)
    for node in NODES:
        run(["nsenter", f"--net=/run/netns/{wires.prefix}{node}", "iptables-restore"], input=rules())


def flannel(wires: Wiring, node: str, ip: str) -> None:
    """What flanneld writes for itself and for each other node (pkg/backend/vxlan/vxlan_network.go), and the plugin's bridge."""
    own = pod_cidr(node)
    wires.ip(node, f"link add flannel.1 type vxlan id 1 local {ip} dev eth0 nolearning dstport 8472")
    wires.ip(node, f"link set flannel.1 address {vtep_mac(node)} up")
    wires.ip(node, f"addr add {own}.0/32 dev flannel.1")
    wires.ip(node, "link add cni0 type bridge")
    wires.ip(node, "link set cni0 mtu 1450 up")
    wires.ip(node, f"addr add {own}.1/24 brd {own}.255 dev cni0")
    for other, (other_ip, _) in NODES.items():
        if other != node:
            there = pod_cidr(other)
            wires.ip(node, f"route add {there}.0/24 via {there}.0 dev flannel.1 onlink")
            wires.ip(node, f"neigh add {there}.0 lladdr {vtep_mac(other)} dev flannel.1 nud permanent")
            wires.bridge(node, f"fdb append {vtep_mac(other)} dev flannel.1 dst {other_ip}")


def add_pod(wires: Wiring, pod: WiredPod) -> None:
    gateway = f"{pod_cidr(pod.node)}.1"
    wires.add(pod.short)
    wires.ip(pod.node, f"link add {pod.veth} mtu 1450 type veth peer name eth0 mtu 1450 netns {wires.prefix}{pod.short}")
    wires.ip(pod.node, f"link set {pod.veth} master cni0 up")
    wires.ip(pod.short, "link set eth0 up")
    wires.ip(pod.short, f"addr add {pod.ip}/24 dev eth0")
    wires.ip(pod.short, f"route add 10.244.0.0/16 via {gateway}")
    wires.ip(pod.short, f"route add default via {gateway}")


def rules() -> str:
    """kube-proxy's rules for SERVICES (pkg/proxy/iptables/proxier.go) and flannel's for leaving the cluster."""
    nat_chains = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "FLANNEL-POSTRTG"]
    nat = [
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
        '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG',
        "-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN",
        "-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
        '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ]
    reject = []
    for (namespace, name, port_name), (ip, port, protocol, endpoints) in SERVICES.items():
        title = f"{namespace}/{name}:{port_name}"
        match = f'-d {ip}/32 -p {protocol} -m comment --comment "{title}%s" -m {protocol} --dport {port}'
        if not endpoints:
            reject.append(f"-A KUBE-SERVICES {match % ' has no endpoints'} -j REJECT --reject-with icmp-port-unreachable")
            continue
        chain = f"KUBE-SVC-{chain_hash(title)}"
        nat_chains.append(chain)
        nat.append(f"-A KUBE-SERVICES {match % ' cluster IP'} -j {chain}")
        nat.append(f"-A {chain} ! -s 10.244.0.0/16 {match % ' cluster IP'} -j KUBE-MARK-MASQ")
        for index, endpoint in enumerate(endpoints):
            sep = f"KUBE-SEP-{chain_hash(title + endpoint)}"
            nat_chains.append(sep)
            left = len(endpoints) - index
            dice = f" -m statistic --mode random --probability {1 / left:.11f}" if left > 1 else ""
            nat.append(f'-A {chain} -m comment --comment "{title} -> {endpoint}"{dice} -j {sep}')
            nat.append(f'-A {sep} -s {endpoint.partition(":")[0]}/32 -m comment --comment "{title}" -j KUBE-MARK-MASQ')
            nat.append(f'-A {sep} -p {protocol} -m comment --comment "{title}" -m {protocol} -j DNAT --to-destination {endpoint}')
    nat.append(
        '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"'
        " -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    )
    table = ["*filter", ":KUBE-SERVICES - [0:0]", ":KUBE-FORWARD - [0:0]"]
    table += [
        '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        '-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT',
        "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        *reject,
        "COMMIT",
        "*nat",
        *(f":{chain} - [0:0]" for chain in nat_chains),
        *nat,
        "COMMIT",
    ]
    return "\n".join(table) + "\n"


def chain_hash(text: str) -> str:
    """As kube-proxy makes its chain names: the first 16 letters of the base32 SHA-256."""
    import base64
    import hashlib

    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


def talk(wires: Wiring) -> None:
    """A word from every Pod to every other one, so that ARP tables and bridges know what they know in a running cluster."""
    for pod in PODS:
        for other in PODS:
            if other is not pod:
                wires.say(pod.short, other.ip)
    time.sleep(0.2)  # ARP answers come after the sender has left


def parsed(wires: Wiring, name: str) -> dict[str, Any]:
    return {key: json.loads(text) if text.strip() else [] for key, text in wires.outputs(name).items()}


def take(wires: Wiring) -> Snapshot:
    """Read the wired namespaces as `lab snapshot` reads a cluster's."""
    save = {node: wires.inside(node, "iptables-save") for node in NODES}
    kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    nodes = []
    for node, (ip, role) in NODES.items():
        boxes = [
            Sandbox(f"{hash_of(pod.name):064x}", pod.namespace, pod.name, 0, wires.inode(pod.short), parsed(wires, pod.short))
            for pod in PODS
            if pod.node == node
        ]
        nodes.append(
            NodeSnapshot(
                name=node,
                ip=ip,
                role=role,
                kernel=kernel,
                inode=wires.inode(node),
                iptables=save[node],
                names={name: inode for name, inode in wires.inodes.items() if name.removeprefix(wires.prefix) not in NODES},
                outputs=parsed(wires, node),
                sandboxes=tuple(boxes),
            )
        )
    return Snapshot("wired", "namespaces", "2026-01-01T00:00:00+00:00", tuple(nodes), **objects())


def objects() -> dict[str, Any]:
    pods = tuple(
        {
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
            "spec": {"nodeName": pod.node, "containers": [{"name": "main", "image": "example"}]},
            "status": {"phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}]},
        }
        for pod in PODS
    )
    services, slices = [], []
    for (namespace, name, port_name), (ip, port, protocol, endpoints) in SERVICES.items():
        meta = {"name": name, "namespace": namespace}
        ports = [{"name": port_name, "port": port, "protocol": protocol.upper(), "targetPort": 8080}]
        services.append(
            {"kind": "Service", "metadata": meta, "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": ports}}
        )
        slices.append(
            {
                "kind": "EndpointSlice",
                "metadata": {"name": f"{name}-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [endpoint.partition(":")[0]], "conditions": {"ready": True}} for endpoint in endpoints],
                "ports": [{"name": port_name, "port": 8080, "protocol": protocol.upper()}],
            }
        )
    return {"pods": pods, "services": tuple(services), "endpointslices": tuple(slices)}


if __name__ == "__main__":
    with wiring("wired-") as made:  # a fixed name, so that two recordings differ as little as possible
        wire(made)
        talk(made)
        write_snapshot(take(made), Path(sys.argv[1]))
