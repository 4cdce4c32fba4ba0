"""The rules of a large cluster, by kube-proxy's own shapes: what iptables-save prints on a node of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator


def chain_hash(*words: str) -> str:
    """kube-proxy's chain names (pkg/proxy/iptables/proxier.go, portProtoHash)."""
    return base64.b32encode(hashlib.sha256("".join(words).encode()).digest()).decode()[:16]


def address(base: int, number: int) -> str:
    value = base + number
    return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))


def kept(probability: float) -> str:
    """How the kernel gives a probability back."""
    return f"{round(probability * 2**31) / 2**31:.11f}"


def lines(services: int, endpoints: int = 3) -> Iterator[str]:
    """A dump of `services` Services with so many endpoints each: two rules for each, and three for each endpoint."""
    cluster, pods = 10 << 24 | 96 << 16, 10 << 24 | 128 << 16
    names = [f"ns{number // 50}/svc{number}:http" for number in range(services)]
    yield from ("*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]")
    yield from (f":KUBE-{name} - [0:0]" for name in ("EXTERNAL-SERVICES", "FORWARD", "NODEPORTS", "SERVICES", "PROXY-FIREWALL"))
    new = '-m conntrack --ctstate NEW -m comment --comment "kubernetes service portals"'
    for hook in ("INPUT", "FORWARD", "OUTPUT"):
        yield f"-A {hook} {new} -j KUBE-SERVICES"
    yield '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    yield '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT'
    yield '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'
    yield "COMMIT"
    yield from ("*nat", ":PREROUTING ACCEPT [0:0]", ":INPUT ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":POSTROUTING ACCEPT [0:0]")
    yield from (":KUBE-MARK-MASQ - [0:0]", ":KUBE-NODEPORTS - [0:0]", ":KUBE-POSTROUTING - [0:0]", ":KUBE-SERVICES - [0:0]")
    for number, name in enumerate(names):
        for each in range(endpoints):
            yield f":KUBE-SEP-{chain_hash(name, str(number), str(each))} - [0:0]"
        yield f":KUBE-SVC-{chain_hash(name, 'tcp')} - [0:0]"
    for hook in ("PREROUTING", "OUTPUT"):
        yield f'-A {hook} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    yield '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'
    yield "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000"
    yield "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN"
    yield "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0"
    yield '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully'
    for number, name in enumerate(names):
        for each in range(endpoints):
            chain, pod = f"KUBE-SEP-{chain_hash(name, str(number), str(each))}", address(pods, number * endpoints + each)
            yield f'-A {chain} -s {pod}/32 -m comment --comment "{name}" -j KUBE-MARK-MASQ'
            yield f'-A {chain} -p tcp -m comment --comment "{name}" -m tcp -j DNAT --to-destination {pod}:8080'
    for number, name in enumerate(names):
        ip = address(cluster, number + 1)
        said = f'-d {ip}/32 -p tcp -m comment --comment "{name} cluster IP" -m tcp --dport 80'
        yield f"-A KUBE-SERVICES {said} -j KUBE-SVC-{chain_hash(name, 'tcp')}"
    yield (
        '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"'
        " -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    )
    for number, name in enumerate(names):
        chain, ip = f"KUBE-SVC-{chain_hash(name, 'tcp')}", address(cluster, number + 1)
        yield (
            f'-A {chain} ! -s 10.128.0.0/9 -d {ip}/32 -p tcp -m comment --comment "{name} cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ'
        )
        for each in range(endpoints):
            pod = address(pods, number * endpoints + each)
            left = endpoints - each
            chance = f" -m statistic --mode random --probability {kept(1 / left)}" if left > 1 else ""
            target = f"KUBE-SEP-{chain_hash(name, str(number), str(each))}"
            yield f'-A {chain} -m comment --comment "{name} -> {pod}:8080"{chance} -j {target}'
    yield "COMMIT"


def dump(services: int, endpoints: int = 3) -> str:
    return "\n".join(lines(services, endpoints)) + "\n"
