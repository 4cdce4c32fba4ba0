"""The settings of virtual machines: vagrant/settings.yaml, a user's own file over it, and what `lab up` was asked. Pure."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from lab_utils.errors import BadInput

PROVIDERS = ("virtualbox", "libvirt", "vmware_desktop", "parallels")
ARCHITECTURES = ("amd64", "arm64")

# Since 6.1.28, VirtualBox allows host-only networks only here, unless /etc/vbox/networks.conf says more
# (its manual, 6.7 "Host-Only Networking").
ALLOWED = ipaddress.IPv4Network("192.168.56.0/21")
FIRST_ADDRESS = 10  # .1 is the host's; the control plane has .10, the workers .11, .12, …


@dataclass(frozen=True)
class Settings:
    """What is chosen. `boxes` is architecture → provider → name; `box` stands for all of them."""

    provider: str = ""
    workers: int = 2
    control_plane: Mapping[str, int] = field(default_factory=lambda: {"cpus": 2, "memory": 2048})
    worker: Mapping[str, int] = field(default_factory=lambda: {"cpus": 2, "memory": 1536})
    network: str = ""
    boxes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    box: str = ""
    box_version: str = ""
    packaged: bool = False
    boot_timeout: int = 600
    patience: float = 1

    def box_for(self, architecture: str, provider: str) -> str:
        found = self.box or self.boxes.get(architecture, {}).get(provider, "")
        if not found:
            raise BadInput(f"the settings name no {architecture} box for {provider}", "Give one: box: NAME")
        return found

    def memory(self, workers: int) -> int:
        """Megabytes of all machines together."""
        return self.control_plane["memory"] + workers * self.worker["memory"]


def read(*texts: tuple[str, str]) -> Settings:
    """Settings from (name, YAML) pairs; the later ones win, key by key."""
    merged: dict[str, Any] = {}
    for name, text in texts:
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 1}" if mark else ""
            raise BadInput(f"{name}{place} is not YAML") from None
        if data is not None and not isinstance(data, dict):
            raise BadInput(f"{name} holds {type(data).__name__} and no settings", "Write lines such as workers: 2")
        merged = _over(merged, data or {}, name)
    return _checked(merged, " and ".join(name for name, _ in texts))


def _over(below: dict[str, Any], above: dict[str, Any], name: str) -> dict[str, Any]:
    known = Settings.__dataclass_fields__
    result = dict(below)
    for key, value in above.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise BadInput(f"{name} has a setting {key!r} that does not exist", f"Did you mean {near[0]}?" if near else "")
        old = result.get(key)
        result[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _checked(data: dict[str, Any], name: str) -> Settings:
    def refuse(what: str, mend: str = "") -> BadInput:
        return BadInput(f"{name}: {what}", mend)

    for key in ("provider", "network", "box", "box_version"):
        data[key] = "" if data.get(key) is None else str(data[key])
    if data["provider"] and data["provider"] not in PROVIDERS:
        raise refuse(f"there is no VM provider {data['provider']!r}", f"There are: {', '.join(PROVIDERS)}")
    for key in ("control_plane", "worker"):
        size = data.get(key)
        if not isinstance(size, dict) or set(size) != {"cpus", "memory"} or not all(type(one) is int and one > 0 for one in size.values()):
            raise refuse(f"{key} is {size!r}", "Write it as {cpus: 2, memory: 2048}, the memory in megabytes")
        if size["memory"] < 1024:
            raise refuse(f"{key} has {size['memory']} MB of memory", "A node needs 1024 MB or more; a control plane is at ease with 2048")
    if type(data.get("workers")) is not int or not 0 <= data["workers"] <= 5:
        raise refuse(f"workers is {data.get('workers')!r}", "It takes a number from 0 to 5")
    if type(data.get("packaged", False)) is not bool:
        raise refuse(f"packaged is {data['packaged']!r}", "It takes true or false")
    for key, least in (("boot_timeout", 10), ("patience", 1)):
        if type(data.get(key, least)) not in (int, float) or data.get(key, least) < least:
            raise refuse(f"{key} is {data[key]!r}", f"It takes a number, {least} or more")
    if data["network"]:
        checked_network(data["network"])
    boxes = data.get("boxes") or {}
    if not isinstance(boxes, dict) or not all(arch in ARCHITECTURES and isinstance(of, dict) for arch, of in boxes.items()):
        raise refuse("boxes is not a table of architecture and provider", "See vagrant/settings.yaml for its form")
    return Settings(**data)


def checked_network(said: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(said)
    except ValueError as error:
        raise BadInput(f"{said!r} is no network ({error})", "Write it as 192.168.56.0/24") from None
    if network.prefixlen != 24 or not network.subnet_of(ALLOWED):
        raise BadInput(f"the nodes' network {said} is not a /24 within {ALLOWED}", "VirtualBox allows no others; 192.168.56.0/24 is one")
    return network


def free_network(taken: Iterable[str]) -> ipaddress.IPv4Network:
    """The first /24 of the allowed ones that overlaps with nothing that is taken ("address/prefix" each)."""
    used = [ipaddress.ip_network(one, strict=False) for one in taken]
    for network in ALLOWED.subnets(new_prefix=24):
        if not any(network.overlaps(other) for other in used if other.version == 4):
            return network
    raise BadInput(f"no /24 within {ALLOWED} is free here", "Remove a cluster (`lab down`), or name a network in the settings")


def addresses(network: ipaddress.IPv4Network, workers: int) -> dict[str, str]:
    """Node → address, as the Vagrantfile counts them."""
    names = ["cp", *(f"w{number}" for number in range(1, workers + 1))]
    return {name: str(network[FIRST_ADDRESS + index]) for index, name in enumerate(names)}


def debian_architecture(machine: str) -> str:
    """What systems call a processor (uname -m; macOS says arm64, Windows AMD64), as Debian does."""
    names = {"x86_64": "amd64", "amd64": "amd64", "x64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    if machine.lower() not in names:
        raise BadInput(f"this machine is {machine}", "The course's boxes are amd64 or arm64")
    return names[machine.lower()]
