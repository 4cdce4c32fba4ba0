"""One network namespace, read from what `ip` and `bridge` print in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, ip_address
from typing import Any

from lab_utils.errors import BadInput
from lab_utils.links.devices import Device, read_devices
from lab_utils.links.tables import Forwarding, Neighbour, Route, best_route, read_forwarding, read_neighbours, read_routes

# Key → the command whose output belongs there.
COMMANDS = {
    "link": "ip -j -d link",
    "addr": "ip -j addr",
    "route": "ip -j route",
    "route6": "ip -j -6 route",
    "neigh": "ip -j neigh",
    "fdb": "bridge -j fdb",
    "nsids": "ip -j netns list-id",
}


@dataclass(frozen=True)
class Namespace:
    """A network stack. `inode` is the kernel's own name for it (`readlink /proc/PID/ns/net`), unique on one machine."""

    name: str
    devices: tuple[Device, ...]
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    forwarding: tuple[Forwarding, ...] = ()
    nsids: Mapping[int, str] = field(default_factory=dict)  # what this namespace calls which /run/netns name
    inode: int | None = None
    kernel: str = ""  # boot id: two namespaces with different ones are on different machines

    def device(self, key: str | int) -> Device | None:
        for device in self.devices:
            if key in (device.name, device.index):
                return device
        return None

    def ports(self, bridge: str) -> list[Device]:
        return [device for device in self.devices if device.master == bridge]

    @property
    def bridges(self) -> list[Device]:
        return [device for device in self.devices if device.kind == "bridge"]

    @property
    def addresses(self) -> list[str]:
        """Every address that this namespace takes as its own."""
        return [str(address.ip) for device in self.devices for address in device.addresses]

    def owner(self, ip: str) -> Device | None:
        """The device that carries this address."""
        wanted = ip_address(ip)
        return next((device for device in self.devices if any(address.ip == wanted for address in device.addresses)), None)

    def route(self, ip: str) -> Route | None:
        return best_route(self.routes, ip)

    def neighbour(self, ip: str, device: str) -> Neighbour | None:
        return next((entry for entry in self.neighbours if entry.ip == ip and entry.device == device), None)

    def vtep(self, mac: str, vxlan: str) -> Forwarding | None:
        """To which machine a VXLAN device sends frames for this MAC address."""
        return next((entry for entry in self.forwarding if entry.device == vxlan and entry.mac == mac and entry.to), None)

    def port(self, mac: str, bridge: str) -> Forwarding | None:
        """Behind which port a bridge has seen this MAC address."""
        return next((entry for entry in self.forwarding if entry.master == bridge and entry.mac == mac and entry.learned), None)


def read_namespace(name: str, outputs: Mapping[str, Any], *, inode: int | None = None, kernel: str = "") -> Namespace:
    """Read one namespace from the outputs of the programs in `COMMANDS`, as text or as already parsed JSON.

    Only "link" must be there. "nsids" may also be a mapping from netns id to name.
    """
    if "link" not in outputs:
        raise BadInput(f"namespace {name!r} has no output of `{COMMANDS['link']}`")
    tables = {key: list(_table(name, key, outputs.get(key, ""))) for key in COMMANDS if key != "nsids"}
    try:
        return Namespace(
            name=name,
            devices=tuple(read_devices(tables["link"], tables["addr"]).values()),
            routes=(*read_routes(tables["route"], 4), *read_routes(tables["route6"], 6)),
            neighbours=tuple(read_neighbours(tables["neigh"])),
            forwarding=tuple(read_forwarding(tables["fdb"])),
            nsids=_nsids(name, outputs.get("nsids", "")),
            inode=inode,
            kernel=kernel,
        )
    except (ValueError, TypeError, AttributeError, AddressValueError) as error:
        raise BadInput(f"what `ip` printed in namespace {name!r} makes no sense ({error})") from None


def _table(name: str, key: str, output: Any) -> Iterator[Mapping[str, Any]]:
    """The lines of one output. An empty text is an empty table: `ip -j` prints nothing at all when it has nothing to say."""
    if isinstance(output, str | bytes):
        try:
            output = json.loads(output) if output.strip() else []
        except ValueError as error:
            raise BadInput(f"the output of `{COMMANDS[key]}` in namespace {name!r} is not JSON ({error})") from None
    if not isinstance(output, Sequence) or not all(isinstance(line, Mapping) for line in output):
        raise BadInput(f"the output of `{COMMANDS[key]}` in namespace {name!r} is not a list of objects")
    yield from output


def _nsids(name: str, output: Any) -> dict[int, str]:
    if isinstance(output, Mapping):
        return {int(nsid): str(said) for nsid, said in output.items()}
    return {int(line["nsid"]): str(line["name"]) for line in _table(name, "nsids", output) if "nsid" in line and line.get("name")}
