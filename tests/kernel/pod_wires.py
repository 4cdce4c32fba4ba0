"""Two nodes with three Pods each, and a host outside, in throw-away namespaces; packets whose fate can be seen.

    p11 p12 p13 ── cni0 ┐                        ┌ cni0 ── p21 p22 p23
    10.244.1.2 .3 .4    n1 ── 172.31.9.0/24 ── n2    10.244.2.2 .3 .4
    fd44:1::2 …                    │                 fd44:2::2 …
                                outside  172.31.9.254, 203.0.113.5, 203.0.113.77, 198.51.100.9 (and 2001:db8:…)

Nodes are wired as flannel's host-gw backend wires them: a bridge for the Pods, hairpin on, bridged packets shown to netfilter, routes
between the nodes. Packets are sent and caught by raw sockets, so nothing but the nodes' rules decides about them: no
listener, no handshake, no retransmission. A REJECT is seen by the reset or the ICMP error that comes back.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab_utils.policies import Request
from lab_utils.run import run
from tests.kernel.lines import datagram, inside

NODES = ("n1", "n2")
PODS = {"n1": ("p11", "p12", "p13"), "n2": ("p21", "p22", "p23")}
OUTSIDE4 = ("172.31.9.254", "203.0.113.5", "203.0.113.77", "198.51.100.9")
OUTSIDE6 = ("fd09::254", "2001:db8:113::5", "2001:db8:113::77", "2001:db8:100::9")
VIP = {4: "10.96.0.80", 6: "fd96::80"}
RANGES = {node: (f"10.244.{n}.0/24", f"fd44:{n}::/64") for n, node in enumerate(NODES, 1)}
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


def pod_addresses(pod: str) -> tuple[str, str]:
    """`p12` is the second Pod of the first node; a node's bridge has the first address."""
    return f"10.244.{pod[1]}.{int(pod[2]) + 1}", f"fd44:{pod[1]}::{int(pod[2]) + 1}"


def node_addresses(node: str) -> tuple[str, str, str, str]:
    """On the bridge and on the wire, of both families."""
    return f"10.244.{node[1]}.1", f"172.31.9.1{node[1]}", f"fd44:{node[1]}::1", f"fd09::1{node[1]}"


ADDRESSES: dict[str, tuple[str, ...]] = {pod: pod_addresses(pod) for pods in PODS.values() for pod in pods}
ADDRESSES |= {node: node_addresses(node) for node in NODES}
ADDRESSES["outside"] = OUTSIDE4 + OUTSIDE6
HOME = {address: who for who, addresses in ADDRESSES.items() for address in addresses}


@dataclass
class PodWires:
    prefix: str
    senders: dict[tuple[str, int], socket.socket] = field(default_factory=dict)
    catchers: list[socket.socket] = field(default_factory=list)
    errors: list[socket.socket] = field(default_factory=list)
    arrived: dict[int, tuple[str, str]] = field(default_factory=dict)  # number → (destination, source) as the receiver saw them
    refused: set[int] = field(default_factory=set)
    number: int = 0
    sport: int = 20000

    def namespace(self, who: str) -> str:
        return self.prefix + who

    def on(self, who: str, *argv: str, text: str | None = None, check: bool = True) -> str:
        return run(["nsenter", f"--net=/run/netns/{self.namespace(who)}", *argv], input=text, check=check, timeout=120).stdout

    def send(self, sent: Request) -> int:
        self.number += 1
        self.sport = self.sport + 1 if self.sport < 60000 else 20000  # each packet is the first of its connection
        six = ":" in sent.dst
        sender = self.senders[HOME[sent.src], 6 if six else 4]
        sender.sendto(packet(sent, self.sport, self.number), (sent.dst, 0))
        return self.number

    def listen(self, patience: float) -> bool:
        """Note what was heard; False when nothing came for so long."""
        ready, _, _ = select.select([*self.catchers, *self.errors], [], [], patience)
        for ear in ready:
            while (heard := hear(ear)) is not None:
                if isinstance(heard, int):
                    self.refused.add(heard)
                else:
                    self.arrived.setdefault(heard[0], heard[1:])
        return bool(ready)

    def fates(self, packets: Iterable[Request], patience: float = 0.4) -> dict[Request, str]:
        """Send them all; `arrived`, `refused`, or `lost` where nothing was heard within `patience` seconds of silence."""
        numbers = {}
        for n, sent in enumerate(packets, 1):
            numbers[sent] = self.send(sent)
            if n % 64 == 0:
                self.listen(0)
        wanted = set(numbers.values())
        while not wanted <= self.arrived.keys() | self.refused and self.listen(patience):
            pass
        return {
            sent: "arrived" if number in self.arrived else "refused" if number in self.refused else "lost"
            for sent, number in numbers.items()
        }


def packet(sent: Request, sport: int, number: int) -> bytes:
    if sent.protocol != "SCTP":
        return datagram(sent.protocol.lower(), sent.src, sent.dst, sport, sent.port, number)
    # An INIT chunk whose tag is the packet's number (RFC 9260, 3.3.2).
    init = struct.pack("!BBHIIHHI", 1, 0, 20, number, 65535, 1, 1, number)
    blank = struct.pack("!HHI", sport, sent.port, 0)
    body = blank + struct.pack("<I", crc32c(blank + bytes(4) + init)) + init
    if ":" in sent.dst:
        pair = socket.inet_pton(socket.AF_INET6, sent.src) + socket.inet_pton(socket.AF_INET6, sent.dst)
        return struct.pack("!IHBB", 6 << 28, len(body), 132, 64) + pair + body
    pair = socket.inet_aton(sent.src) + socket.inet_aton(sent.dst)
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number & 0xFFFF, 0, 64, 132, 0) + pair + body
    )  # the kernel fills in the checksum


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def number_in(protocol: int, segment: bytes) -> int:
    """Where `packet` put the number: the sequence number, the payload, the tag of the INIT."""
    at = {6: 4, 17: 8, 132: 16}[protocol]
    return int.from_bytes(segment[at : at + 4], "big")


def hear(ear: socket.socket) -> tuple[int, str, str] | int | None:
    """The number of a packet that arrived, with its destination and source; the number of one that was refused; None when all is heard."""
    while True:
        try:
            data, ancillary, _, peer = ear.recvmsg(2048, 256)
        except BlockingIOError:
            return None
        if ear.family == socket.AF_INET6:
            src, body = peer[0].partition("%")[0], data
            dst = next((socket.inet_ntop(socket.AF_INET6, d[:16]) for level, _, d in ancillary if level == socket.IPPROTO_IPV6), "")
        else:
            src, dst, body = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20]), data[(data[0] & 15) * 4 :]
        if ear.proto in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6):
            six = ear.proto == socket.IPPROTO_ICMPV6
            if body[0] != (1 if six else 3):
                continue
            inner = body[8:]
            protocol, segment = (inner[6], inner[40:]) if six else (inner[9], inner[(inner[0] & 15) * 4 :])
            return number_in(protocol, segment)
        if ear.proto == socket.IPPROTO_TCP and body[13] & 4 and (answered := int.from_bytes(body[8:12], "big")):
            return answered - 1  # a reset, by a rule; that of the receiver comes after the receiver's ear has heard the packet
        if ear.proto == socket.IPPROTO_TCP and body[13] != 2:
            continue
        if ear.proto == PROTOCOLS["SCTP"] and body[12] != 1:
            continue
        return number_in(ear.proto, body), dst, src


@contextmanager
def pod_wires() -> Iterator[PodWires]:
    """Make the namespaces; remove them whatever happens."""
    made = PodWires(f"kpol{os.getpid()}-")
    remove_leftovers()
    try:
        _wire(made)
        _open(made)
        yield made
    finally:
        for each in [*made.senders.values(), *made.catchers, *made.errors]:
            each.close()
        for who in ADDRESSES:
            run(["ip", "netns", "del", made.namespace(who)], check=False)


def remove_leftovers() -> None:
    """Namespaces of an earlier run that was killed; their names tell its process, which is gone."""
    for path in Path("/run/netns").glob("kpol*-*"):
        owner = path.name.removeprefix("kpol").partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            run(["ip", "netns", "del", path.name], check=False)


SETTINGS = (
    *("net.ipv4.icmp_ratelimit=0", "net.ipv4.icmp_ratemask=0", "net.ipv6.icmp.ratelimit=0", "net.ipv6.icmp.ratemask="),
    *("net.ipv4.icmp_msgs_per_sec=100000", "net.ipv4.icmp_msgs_burst=100000"),
    *("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"),
    *("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"),
)
OF_NODES = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
BRIDGED = ("net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1")


def _wire(made: PodWires) -> None:
    for who in ADDRESSES:
        run(["ip", "netns", "add", made.namespace(who)])
        made.on(who, "sysctl", "-q", "-e", "-w", *SETTINGS, *(OF_NODES if who in NODES else ()), check=False)

    def ip(who: str, *lines: str) -> None:
        run(["ip", "-n", made.namespace(who), "-force", "-batch", "-"], input="\n".join(["link set lo up", *lines, ""]))

    wire = ["link add br0 type bridge", "link set br0 up"]
    for n, node in enumerate(NODES, 1):
        wire += [f"link add {node} type veth peer name eth0 netns {made.namespace(node)}", f"link set {node} master br0 up"]
        bridge = ["link add cni0 type bridge", "link set cni0 up"]
        for pod in PODS[node]:
            v4, v6 = pod_addresses(pod)
            bridge += [f"link add {pod} type veth peer name eth0 netns {made.namespace(pod)}", f"link set {pod} master cni0 up"]
        ip(node, *bridge)
        for pod in PODS[node]:
            v4, v6 = pod_addresses(pod)
            default = [f"route add default via 10.244.{n}.1", f"route add default via fd44:{n}::1"]
            ip(pod, "link set eth0 up", f"addr add {v4}/24 dev eth0", f"addr add {v6}/64 dev eth0 nodad", *default)
            run(["bridge", "-n", made.namespace(node), "link", "set", "dev", pod, "hairpin", "on"])
    wire += [f"addr add {a}/{24 if a.startswith('172') else 32} dev br0" for a in OUTSIDE4]
    wire += [f"addr add {a}/{64 if a.startswith('fd') else 128} dev br0 nodad" for a in OUTSIDE6]
    for n in range(1, len(NODES) + 1):
        wire += [f"route add 10.244.{n}.0/24 via 172.31.9.1{n}", f"route add fd44:{n}::/64 via fd09::1{n}"]
    ip("outside", *wire)
    for n, node in enumerate(NODES, 1):
        other = 3 - n
        bridged4, wired4, bridged6, wired6 = node_addresses(node)
        ip(
            node,
            *(f"addr add {bridged4}/24 dev cni0", f"addr add {bridged6}/64 dev cni0 nodad", "link set eth0 up"),
            *(f"addr add {wired4}/24 dev eth0", f"addr add {wired6}/64 dev eth0 nodad"),
            *(f"route add 10.244.{other}.0/24 via 172.31.9.1{other}", f"route add fd44:{other}::/64 via fd09::1{other}"),
            *("route add default via 172.31.9.254", "route add default via fd09::254"),
        )
        made.on(node, "sysctl", "-q", "-w", *BRIDGED)


def _open(made: PodWires) -> None:
    def sender(six: bool) -> socket.socket:
        opened = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        if six:
            opened.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
        opened.setsockopt(socket.SOL_SOCKET, 32, 1 << 22)  # SO_SNDBUFFORCE
        return opened

    def ear(six: bool, protocol: int) -> socket.socket:
        opened = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, protocol)
        opened.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE
        if six:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        opened.setblocking(False)
        return opened

    for who in ADDRESSES:
        for six in (False, True):
            made.senders[who, 6 if six else 4] = inside(made.namespace(who), lambda six=six: sender(six))  # type: ignore[misc]
            icmp = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
            made.errors.append(inside(made.namespace(who), lambda six=six, p=icmp: ear(six, p)))  # type: ignore[misc]
            for protocol in PROTOCOLS.values():
                made.catchers.append(inside(made.namespace(who), lambda six=six, p=protocol: ear(six, p)))  # type: ignore[misc]
