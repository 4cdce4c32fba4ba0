"""Routes, neighbours (ARP) and forwarding entries (FDB), as `ip -j` and `bridge -j` print them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

Network = IPv4Network | IPv6Network

DEFAULT: dict[int, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True)
class NextHop:
    device: str
    gateway: str = ""  # empty: the destination itself is on this link
    weight: int = 1


@dataclass(frozen=True)
class Route:
    """One line of `ip route`. Several next hops share the traffic by weight."""

    destination: Network
    hops: tuple[NextHop, ...]
    kind: str = "unicast"  # or "blackhole", "unreachable", "prohibit", …
    metric: int = 0
    source: str = ""
    protocol: str = ""
    onlink: bool = False

    @property
    def device(self) -> str:
        return self.hops[0].device if self.hops else ""

    @property
    def gateway(self) -> str:
        return self.hops[0].gateway if self.hops else ""

    def __str__(self) -> str:
        """As `ip route` writes it, so that a reader finds the line again."""
        words = [] if self.kind == "unicast" else [self.kind]
        words.append("default" if self.destination.prefixlen == 0 else str(self.destination))
        for hop in self.hops:
            words += ["nexthop"] if len(self.hops) > 1 else []
            words += ["via", hop.gateway] if hop.gateway else []
            words += ["dev", hop.device]
        words += ["onlink"] if self.onlink else []
        words += ["src", self.source] if self.source else []
        words += ["metric", str(self.metric)] if self.metric else []
        return " ".join(words)


@dataclass(frozen=True)
class Neighbour:
    ip: str
    device: str
    mac: str
    state: str

    def __str__(self) -> str:
        return f"{self.ip} dev {self.device} lladdr {self.mac} {self.state}".strip()


@dataclass(frozen=True)
class Forwarding:
    """One line of `bridge fdb`: frames for `mac` leave through `device`, and for VXLAN to the machine `to`."""

    mac: str
    device: str
    master: str = ""
    to: str = ""
    state: str = ""  # "permanent": written by someone, or the port's own address; "": learned from traffic

    @property
    def learned(self) -> bool:
        return self.state != "permanent" and bool(self.master)

    def __str__(self) -> str:
        words = [self.mac, "dev", self.device]
        words += ["dst", self.to] if self.to else []
        words += ["master", self.master] if self.master else []
        words += [self.state] if self.state else []
        return " ".join(words)


def read_routes(lines: Iterable[Mapping[str, Any]], version: int) -> list[Route]:
    return [_route(line, version) for line in lines if line.get("dst")]


def _route(line: Mapping[str, Any], version: int) -> Route:
    said = str(line["dst"])
    hops = [_hop(part, line) for part in line.get("nexthops") or []]
    if not hops and line.get("dev"):
        hops = [_hop(line, line)]
    flags = list(line.get("flags") or [])
    for part in line.get("nexthops") or []:
        flags += part.get("flags") or []
    return Route(
        destination=DEFAULT[version] if said == "default" else ip_network(said, strict=False),
        hops=tuple(hops),
        kind=str(line.get("type", "unicast")),
        metric=int(line.get("metric", 0)),
        source=str(line.get("prefsrc", "")),
        protocol=str(line.get("protocol", "")),
        onlink="onlink" in flags,
    )


def _hop(part: Mapping[str, Any], line: Mapping[str, Any]) -> NextHop:
    via = part.get("via") or {}  # a gateway of the other address family
    return NextHop(
        device=str(part.get("dev") or line.get("dev") or ""),
        gateway=str(part.get("gateway") or via.get("host") or ""),
        weight=int(part.get("weight", 1)),
    )


def best_route(routes: Iterable[Route], ip: str) -> Route | None:
    """The route that the kernel takes: longest prefix first, then the lowest metric."""
    target = ip_network(ip)
    fitting = [r for r in routes if r.destination.version == target.version and target.subnet_of(r.destination)]  # type: ignore[arg-type]
    return min(fitting, key=lambda route: (-route.destination.prefixlen, route.metric), default=None)


def read_neighbours(lines: Iterable[Mapping[str, Any]]) -> list[Neighbour]:
    return [
        Neighbour(str(line["dst"]), str(line.get("dev", "")), str(line["lladdr"]), " ".join(line.get("state") or []))
        for line in lines
        if line.get("dst") and line.get("lladdr")  # without an address it is a question that nobody has answered
    ]


def read_forwarding(lines: Iterable[Mapping[str, Any]]) -> list[Forwarding]:
    return [
        Forwarding(
            mac=str(line["mac"]),
            device=str(line.get("ifname", "")),
            master=str(line.get("master", "")),
            to=str(line.get("dst", "")),
            state=str(line.get("state", "")),
        )
        for line in lines
        if line.get("mac")
    ]
