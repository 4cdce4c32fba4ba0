"""What `ip -j -d link` and `ip -j addr` say, as typed objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

Address = IPv4Interface | IPv6Interface

# Kinds that come in pairs, like the two ends of one cable. All three keep the other end's index in IFLA_LINK.
CABLES = frozenset({"veth", "netkit", "vxcan"})


@dataclass(frozen=True)
class Vxlan:
    """How a VXLAN device wraps frames: the network number, our own outer address, and through which device they leave."""

    vni: int
    local: str
    port: int
    underlay: str
    learning: bool


@dataclass(frozen=True)
class Device:
    """One network device of one namespace."""

    index: int
    name: str
    kind: str  # "veth", "bridge", "vxlan", …; "loopback"; "" for real hardware
    mac: str
    mtu: int
    up: bool
    carrier: bool
    master: str  # the bridge (or bond) that it is a port of
    addresses: tuple[Address, ...] = ()
    link_index: int | None = None  # IFLA_LINK: the other end's index, in the namespace that link_nsid names
    link_nsid: int | None = None  # None: that end is in this same namespace
    hairpin: bool = False  # as a bridge port: may a frame go back to where it came from?
    vxlan: Vxlan | None = None

    @property
    def is_cable(self) -> bool:
        return self.kind in CABLES

    @property
    def usable_addresses(self) -> tuple[Address, ...]:
        """Without the link-local ones that every IPv6 device has and nobody asks about."""
        return tuple(address for address in self.addresses if not address.ip.is_link_local)


def read_devices(link: Iterable[Mapping[str, Any]], addr: Iterable[Mapping[str, Any]]) -> dict[int, Device]:
    """Join `ip -j -d link` with `ip -j addr` by index. Either may be missing; `addr` repeats most of `link`."""
    lines: dict[int, dict[str, Any]] = {}
    for line in [*addr, *link]:
        if "ifindex" in line:  # iproute2 prints an empty object for a device that a filter hid
            lines.setdefault(int(line["ifindex"]), {}).update(line)
    index_of = {str(line.get("ifname", "")): index for index, line in lines.items()}
    return {index: _device(index, line, index_of) for index, line in sorted(lines.items())}


def _device(index: int, line: Mapping[str, Any], index_of: Mapping[str, int]) -> Device:
    info = line.get("linkinfo") or {}
    data = info.get("info_data") or {}
    flags = line.get("flags") or []
    kind = str(info.get("info_kind", ""))
    if not kind and line.get("link_type") == "loopback":
        kind = "loopback"
    # iproute2 prints the other end by name when it is in the same namespace, by index when it is in another
    # (ip/ipaddress.c, print_linkinfo).
    link_index = line.get("link_index")
    if link_index is None and line.get("link"):
        link_index = index_of.get(str(line["link"]))
    nsid = line.get("link_netnsid")
    return Device(
        index=index,
        name=str(line.get("ifname", f"if{index}")),
        kind=kind,
        mac=str(line.get("address", "")),
        mtu=int(line.get("mtu", 0)),
        up="UP" in flags,
        carrier="LOWER_UP" in flags,
        master=str(line.get("master", "")),
        addresses=tuple(_addresses(line.get("addr_info") or [])),
        link_index=int(link_index) if link_index is not None else None,
        link_nsid=int(nsid) if nsid is not None else None,
        hairpin=bool((info.get("info_slave_data") or {}).get("hairpin")),
        vxlan=_vxlan(data) if kind == "vxlan" else None,
    )


def _addresses(infos: Iterable[Mapping[str, Any]]) -> Iterable[Address]:
    for info in infos:
        if "local" in info:
            yield ip_interface(f"{info['local']}/{info.get('prefixlen', 128 if ':' in info['local'] else 32)}")


def _vxlan(data: Mapping[str, Any]) -> Vxlan:
    return Vxlan(
        vni=int(data.get("id", 0)),
        local=str(data.get("local") or data.get("local6") or ""),
        port=int(data.get("port", 0)),
        underlay=str(data.get("link", "")),
        learning=bool(data.get("learning", True)),
    )
