"""The settings of virtual machines: vagrant/settings.yaml, a user's own file over it, and what `lab up` was asked. Pure."""

from __future__ import annotations

import difflib
import ipaddress
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import yaml

from lab_utils.errors import BadInput

PROVIDERS = ("virtualbox", "libvirt", "vmware_desktop", "parallels")
ARCHITECTURES = ("amd64", "arm64")
# The least and the most of each number. No machine has more; what is far beyond is a slip, and nan and inf are within nothing.
LIMITS = {"cpus": (1, 512), "memory": (1024, 4 * 2**20), "boot_timeout": (10, 86400), "patience": (1, 100)}

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
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
            # PyYAML lets these through where a tag and its value do not fit: a 30th of February, `!!int ""`, brackets a thousand deep.
            raise BadInput(f"{name} holds a value that cannot be read", "Write lines such as workers: 2") from None
        if data is not None and not isinstance(data, dict):
            raise BadInput(f"{name} holds {type(data).__name__} and no settings", "Write lines such as workers: 2")
        merged = _over(merged, data or {}, name)
    return _checked(merged, " and ".join(name for name, _ in texts))


def _over(below: dict[str, Any], above: dict[str, Any], name: str) -> dict[str, Any]:
    known = Settings.__dataclass_fields__
    result = dict(below)
    for key, value in above.items():
        if key not in known:
            near = difflib.get_close_matches(shown(key).strip("'"), known, 1)
            raise BadInput(f"{name} has a setting {shown(key)} that does not exist", f"Did you mean {near[0]}?" if near else "")
        old = result.get(key)
        result[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _checked(data: dict[str, Any], name: str) -> Settings:
    def refuse(what: str, mend: str = "") -> BadInput:
        return BadInput(f"{name}: {what}", mend)

    def number(key: str, value: object) -> bool:
        least, most = LIMITS[key]
        return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most

    for key in ("provider", "network", "box", "box_version"):
        text = _word(data.get(key))
        if text is None:
            raise refuse(f"{key} is {shown(data[key])}", "It takes a word")
        data[key] = text
    if data["provider"] and data["provider"] not in PROVIDERS:
        raise refuse(f"there is no VM provider {shown(data['provider'])}", f"There are: {', '.join(PROVIDERS)}")
    for key in ("control_plane", "worker"):
        size = data.get(key)
        if not isinstance(size, dict) or set(size) != {"cpus", "memory"} or not all(type(one) is int and one > 0 for one in size.values()):
            raise refuse(f"{key} is {shown(size)}", "Write it as {cpus: 2, memory: 2048}, the memory in megabytes")
        if size["memory"] < LIMITS["memory"][0]:
            raise refuse(f"{key} has {size['memory']} MB of memory", "A node needs 1024 MB or more; a control plane is at ease with 2048")
        if large := [what for what in size if not number(what, size[what])]:
            raise refuse(f"{key} has {shown(size[large[0]])} for {large[0]}", f"It takes a number up to {LIMITS[large[0]][1]}")
    if type(data.get("workers")) is not int or not 0 <= data["workers"] <= 5:
        raise refuse(f"workers is {shown(data.get('workers'))}", "It takes a number from 0 to 5")
    if type(data.get("packaged", False)) is not bool:
        raise refuse(f"packaged is {shown(data['packaged'])}", "It takes true or false")
    for key in ("boot_timeout", "patience"):
        if not number(key, data.get(key, LIMITS[key][0])):
            raise refuse(f"{key} is {shown(data[key])}", "It takes a number from {} to {}".format(*LIMITS[key]))
    if "boot_timeout" in data:
        data["boot_timeout"] = int(data["boot_timeout"])
    if data["network"]:
        checked_network(data["network"])
    data["boxes"] = data.get("boxes") or {}
    if not _are_boxes(data["boxes"]):
        raise refuse("boxes is not a table of architecture and provider", "See vagrant/settings.yaml for its form")
    return Settings(**data)


def _word(value: object) -> str | None:
    """A setting that is one word, as text: YAML takes the version 1.0 for a number, and 2026-11-29 for a day. None of what is no word."""
    if value is None:
        return ""
    if isinstance(value, float | date) or (type(value) is int and abs(value) < 10**18):
        value = str(value)
    return value if isinstance(value, str) and value.isprintable() else None


def _are_boxes(boxes: object) -> bool:
    return isinstance(boxes, dict) and all(
        architecture in ARCHITECTURES
        and isinstance(of, dict)
        and all(provider in PROVIDERS and isinstance(box, str) and box.isprintable() for provider, box in of.items())
        for architecture, of in boxes.items()
    )


_brief = reprlib.Repr()
_brief.maxlevel, _brief.maxstring, _brief.maxother = 2, 80, 80


def shown(value: object) -> str:
    """A value of somebody's file within a line of ours, however large it is."""
    try:
        return " ".join(_brief.repr(value).split())
    except ValueError:  # Python writes no whole number of thousands of digits
        return "a very long number"


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
