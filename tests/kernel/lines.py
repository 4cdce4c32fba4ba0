"""A client, a node and servers in throw-away namespaces, and packets whose fate can be seen.

    client 10.77.0.2 ── 10.77.0.1 node 10.77.1.1 ── 10.77.1.11, .12, .13 servers (one namespace)
    (the same with fd77:0:: and fd77:1::)

Packets are sent by raw sockets and caught by raw sockets behind the INPUT hook, so nothing but the node's
rules decides about them: no listener, no handshake, no retransmission. A REJECT is seen by the ICMP error or the reset.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from lab_utils.run import run

PREFIX = f"ktrace{os.getpid()}"
T = TypeVar("T")
CLIENT, SERVERS = "10.77.0.2", ("10.77.1.11", "10.77.1.12", "10.77.1.13")
CLIENT6, SERVERS6 = "fd77::2", ("fd77:1::11", "fd77:1::12", "fd77:1::13")
NODE = {"lo": ["127.0.0.1", "::1"], "n0": ["10.77.0.1", "fd77::1"], "n1": ["10.77.1.1", "fd77:1::1"]}
ROUTES = {
    "10.77.0.0/24": "n0",
    "10.77.1.0/24": "n1",
    "10.96.0.0/16": "n1",
    "fd77::/64": "n0",
    "fd77:1::/64": "n1",
    "fd96::/64": "n1",
}
_LIBC = ctypes.CDLL(None, use_errno=True)


class Fate(NamedTuple):
    """What became of a packet: the verdict, and for what arrived where it came to and from whom."""

    verdict: str
    destination: str = ""
    source: str = ""


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Do something, such as opening a socket, in a network namespace: a namespace belongs to a thread (setns(2))."""
    result: list[T] = []
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            with Path(f"/run/netns/{namespace}").open() as handle:
                if _LIBC.setns(handle.fileno(), 0x40000000):
                    raise OSError(ctypes.get_errno(), "setns")
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def segment(protocol: str, src: str, dst: str, sport: int, dport: int, number: int) -> bytes:
    """A SYN whose sequence number, or a datagram whose payload, is the packet's number."""
    six = ":" in dst
    family = socket.AF_INET6 if six else socket.AF_INET
    if protocol == "tcp":
        blank = struct.pack("!HHIIBBHHH", sport, dport, number, 0, 5 << 4, 2, 1024, 0, 0)
        code, at = 6, 16
    else:
        blank = struct.pack("!HHHHI", sport, dport, 12, 0, number)
        code, at = 17, 6
    pair = socket.inet_pton(family, src) + socket.inet_pton(family, dst)
    pseudo = pair + (struct.pack("!IHBB", len(blank), 0, 0, code) if six else struct.pack("!BBH", 0, code, len(blank)))
    value = checksum(pseudo + blank) or 0xFFFF
    return blank[:at] + struct.pack("!H", value) + blank[at + 2 :]


def datagram(protocol: str, src: str, dst: str, sport: int, dport: int, number: int) -> bytes:
    body = segment(protocol, src, dst, sport, dport, number)
    code = 6 if protocol == "tcp" else 17
    if ":" in dst:
        pair = socket.inet_pton(socket.AF_INET6, src) + socket.inet_pton(socket.AF_INET6, dst)
        return struct.pack("!IHBB", 6 << 28, len(body), code, 64) + pair + body
    pair = socket.inet_aton(src) + socket.inet_aton(dst)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number & 0xFFFF, 0, 64, code, 0) + pair
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


@dataclass
class Net:
    """The namespaces, with the sockets that send and catch."""

    name: str
    senders: dict[tuple[str, int], socket.socket] = field(default_factory=dict)
    catchers: list[socket.socket] = field(default_factory=list)
    errors: list[socket.socket] = field(default_factory=list)
    arrived: dict[int, Fate] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    number: int = 0
    sport: int = 20000

    def namespace(self, who: str) -> str:
        return f"{self.name}{who}"

    def on_node(self, *argv: str, text: str | None = None, check: bool = True) -> str:
        return run(["nsenter", f"--net=/run/netns/{self.namespace('node')}", *argv], input=text, check=check, timeout=60).stdout

    def next_sport(self) -> int:
        """No two packets share one, so each is the first of its connection."""
        self.sport = self.sport + 1 if self.sport < 60000 else 20000
        return self.sport

    def send(self, who: str, protocol: str, src: str, dst: str, dport: int, sport: int | None = None, mark: int = 0) -> int:
        self.number += 1
        data = datagram(protocol, src, dst, sport or self.next_sport(), dport, self.number)
        six = ":" in dst
        sender = self.senders[who, 6 if six else 4]
        if who == "server":  # past its own routes, which would keep the packet: straight onto the line to the node
            sender.sendto(data, ("s0", 0x86DD if six else 0x0800, 0, 0, bytes.fromhex("020000000101")))
            return self.number
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        try:
            sender.sendto(data, (dst, 0))
        except PermissionError:  # a DROP or REJECT at OUTPUT comes back at once; which of them, the error socket says
            pass
        return self.number

    def fates(self, numbers: set[int], patience: float = 0.03) -> dict[int, Fate]:
        """Listen until nothing more comes for `patience` seconds. What is heard is kept: a busy machine delivers late."""
        while not numbers <= self.arrived.keys() | self.refused:
            ready, _, _ = select.select([*self.catchers, *self.errors], [], [], patience)
            if not ready:
                break
            for ear in ready:
                while (heard := hear(ear)) is not None:
                    if isinstance(heard, int):
                        self.refused.add(heard)
                    else:
                        self.arrived.setdefault(heard[0], heard[1])
        lost = {number: Fate("REJECT" if number in self.refused else "DROP") for number in numbers}
        return {number: self.arrived.get(number, lost[number]) for number in numbers}


def hear(ear: socket.socket) -> tuple[int, Fate] | int | None:
    """A packet that arrived with its number, the number of one that was refused, or nothing more."""
    while True:
        try:
            data, ancillary, _, peer = ear.recvmsg(2048, 256)
        except BlockingIOError:
            return None
        kind = ear.proto
        six = ear.family == socket.AF_INET6
        if six:
            src, body = peer[0].partition("%")[0], data
            dst = next((socket.inet_ntop(socket.AF_INET6, d[:16]) for level, t, d in ancillary if level == socket.IPPROTO_IPV6), "")
        else:
            src, dst, body = socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20]), data[(data[0] & 15) * 4 :]
        if kind in (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6):
            if body[0] == (1 if six else 3):
                inner = body[8:]
                code = inner[6] if six else inner[9]
                transport = inner[40:] if six else inner[(inner[0] & 15) * 4 :]
                if code == 6:
                    return int.from_bytes(transport[4:8], "big")
                if len(transport) >= 12:
                    return int.from_bytes(transport[8:12], "big")
            continue
        shown = f"[{dst}]" if six else dst
        if kind == socket.IPPROTO_TCP:
            _, dport, number, answered, _, flags = struct.unpack("!HHIIBB", body[:14])
            if flags == 2:
                return number, Fate("ACCEPT", f"{shown}:{dport}", src)
            if flags & 4 and answered:  # a reset that a REJECT sent; one of the server comes after the server caught the packet
                return int(answered) - 1
            continue
        _, dport = struct.unpack("!HH", body[:4])
        return int.from_bytes(body[8:12], "big"), Fate("ACCEPT", f"{shown}:{dport}", src)


@contextmanager
def net() -> Iterator[Net]:
    """Make the namespaces; remove them whatever happens."""
    made = Net(PREFIX)
    remove_leftovers()
    try:
        _wire(made)
        _open(made)
        yield made
    finally:
        for each in [*made.senders.values(), *made.catchers, *made.errors]:
            each.close()
        for who in ("client", "node", "server"):
            run(["ip", "netns", "del", made.namespace(who)], check=False)


def remove_leftovers() -> None:
    """Namespaces of an earlier run that was killed; their names tell its process, which is gone."""
    for path in Path("/run/netns").glob("ktrace*"):
        owner = path.name.removeprefix("ktrace").rstrip("abcdefghijklmnopqrstuvwxyz")
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            run(["ip", "netns", "del", path.name], check=False)


def _wire(made: Net) -> None:
    client, node, server = map(made.namespace, ("client", "node", "server"))
    for namespace in (client, node, server):
        run(["ip", "netns", "add", namespace])

    def ip(namespace: str, text: str) -> None:
        run(["ip", "-n", namespace, "-force", "-batch", "-"], input=text)

    ip(client, f"link add c0 type veth peer name n0 netns {node}\nlink set lo up\n")
    ip(server, f"link add s0 type veth peer name n1 netns {node}\nlink set lo up\n")
    for namespace in (client, node, server):
        settings = [
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv4.icmp_ratelimit=0",
            "net.ipv6.icmp.ratelimit=0",
        ]
        settings += ["net.ipv4.conf.all.accept_local=1", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"]
        settings += ["net.ipv4.icmp_msgs_per_sec=100000", "net.ipv4.icmp_msgs_burst=100000"]
        if namespace == node:
            settings += ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.route_localnet=1"]
        run(["nsenter", f"--net=/run/netns/{namespace}", "sysctl", "-q", "-e", "-w", *settings], check=False)
    ip(
        client,
        "link set c0 address 02:00:00:00:00:02 up\naddr add 10.77.0.2/24 dev c0\naddr add fd77::2/64 dev c0 nodad\n"
        "route add default via 10.77.0.1\nroute add default via fd77::1\n"
        "neigh replace 10.77.0.1 lladdr 02:00:00:00:00:01 dev c0\nneigh replace fd77::1 lladdr 02:00:00:00:00:01 dev c0\n",
    )
    others = [f"10.77.1.{last}" for last in range(2, 15) if f"10.77.1.{last}" not in SERVERS]  # where NETMAP may lead
    servers = "".join(f"addr add {a}/24 dev s0\n" for a in SERVERS) + "".join(f"addr add {a}/64 dev s0 nodad\n" for a in SERVERS6)
    ip(
        server,
        f"link set s0 address 02:00:00:00:01:11 up\n{servers}route add default via 10.77.1.1\nroute add default via fd77:1::1\n"
        # What no rule rewrites still arrives: the server takes the whole range of Service addresses for its own.
        + "".join(f"route add local {address} dev lo\n" for address in others)
        + "route add local 10.96.0.0/16 dev lo\nroute add local fd96::/64 dev lo\n"
        "neigh replace 10.77.1.1 lladdr 02:00:00:00:01:01 dev s0\nneigh replace fd77:1::1 lladdr 02:00:00:00:01:01 dev s0\n",
    )
    neighbours = "".join(f"neigh replace {a} lladdr 02:00:00:00:01:11 dev n1\n" for a in (*SERVERS, *others, *SERVERS6))
    ip(
        node,
        "link set lo up\nlink set n0 address 02:00:00:00:00:01 up\nlink set n1 address 02:00:00:00:01:01 up\n"
        "addr add 10.77.0.1/24 dev n0\naddr add fd77::1/64 dev n0 nodad\naddr add 10.77.1.1/24 dev n1\naddr add fd77:1::1/64 dev n1 nodad\n"
        "route add 10.96.0.0/16 via 10.77.1.11\nroute add fd96::/64 via fd77:1::11\n"
        "neigh replace 10.77.0.2 lladdr 02:00:00:00:00:02 dev n0\nneigh replace fd77::2 lladdr 02:00:00:00:00:02 dev n0\n" + neighbours,
    )


def _open(made: Net) -> None:
    def sender(who: str, six: bool) -> socket.socket:
        if who == "server":
            return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        made_socket = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        if six:
            made_socket.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
        return made_socket

    def ear(six: bool, protocol: int) -> socket.socket:
        made_socket = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, protocol)
        made_socket.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE
        if six:
            made_socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        made_socket.setblocking(False)
        return made_socket

    for who in ("client", "node", "server"):
        for six in (False, True):
            made.senders[who, 6 if six else 4] = inside(made.namespace(who), lambda who=who, six=six: sender(who, six))  # type: ignore[misc]
            icmp = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
            made.errors.append(inside(made.namespace(who), lambda six=six, icmp=icmp: ear(six, icmp)))  # type: ignore[misc]
            for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
                made.catchers.append(inside(made.namespace(who), lambda six=six, p=protocol: ear(six, p)))  # type: ignore[misc]
    time.sleep(0.05)
