"""Is a packet in an IP set? (ipset(8): `-m set --match-set NAME dst,dst`)"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lab_utils.errors import BadInput
from lab_utils.iptables.values import PROTOCOLS, address_range, network, read_address
from lab_utils.trace.flow import Flow, Surroundings

Part = tuple[str, Any]  # what kind of thing, and the thing


@dataclass(slots=True)
class IpSet:
    """A set ready to be asked. Single addresses, by far the most, are found at once; the rest is gone through."""

    singles: set[tuple[int, int]] = field(default_factory=set)
    entries: list[tuple[tuple[Part, ...], bool, int]] = field(default_factory=list)
    members: list[str] = field(default_factory=list)


def in_set(name: str, sides: tuple[str, ...], flow: Flow, around: Surroundings, above: tuple[str, ...] = ()) -> bool | None:
    """None where an entry asks for what is not known of the packet."""
    assert around.sets is not None
    key = ("ipset", name)
    found = around.cache.get(key)
    if not isinstance(found, IpSet):
        found = around.cache[key] = _read(name, around.sets[name], around.sets)
    address = flow.src if sides[0] == "src" else flow.dst
    if len(sides) == 1 and (flow.version, address) in found.singles:
        return True
    best, held, open_question = -1, False, False
    for parts, nomatch, length in found.entries:
        answer = _entry(parts, sides, flow)
        if answer is None:
            open_question = True
        elif answer and (length > best or (length == best and nomatch)):
            best, held = length, not nomatch
    for member in found.members:
        if member in above or member == name:
            raise BadInput(f"the set {member} contains itself")
        inner = in_set(member, sides, flow, around, (*above, name))
        if inner:
            return True
        open_question = open_question or inner is None
    return None if open_question and not held else held


def _read(name: str, entries: list[str], sets: dict[str, list[str]]) -> IpSet:
    ready = IpSet()
    for said in entries:
        entry, _, rest = said.strip().partition(" ")
        if entry in sets and entry != name and not entry[:1].isdigit():
            ready.members.append(entry)
            continue
        parts = tuple(_part(name, word) for word in entry.split(","))
        if len(parts) == 1 and parts[0][0] == "net" and not rest:
            net = parts[0][1]
            if getattr(net, "single", False):
                ready.singles.add((net.version, net.address))
                continue
        length = sum(value.mask.bit_count() for kind, value in parts if kind == "net")
        ready.entries.append((parts, "nomatch" in rest, length))
    return ready


def _part(name: str, word: str) -> Part:
    kind, _, port = word.partition(":")
    if port and kind in PROTOCOLS and kind != "all":
        return "port", (PROTOCOLS[kind], _range(name, port))
    if word.isdecimal() or (word.replace("-", "").isdecimal() and "." not in word):
        return "port", (None, _range(name, word))
    try:
        return "net", network(word)
    except ValueError:
        pass
    try:
        return ("range", address_range(word)) if "-" in word and "." in word else ("net", network(str(read_address(word))))
    except ValueError:
        return "device", word


def _range(name: str, word: str) -> tuple[int, int]:
    first, dash, last = word.partition("-")
    try:
        return int(first), int(last) if dash else int(first)
    except ValueError:
        raise BadInput(f"the set {name} has an entry with the port {word!r}, which is no number") from None


def _entry(parts: tuple[Part, ...], sides: tuple[str, ...], flow: Flow) -> bool | None:
    open_question = False
    for (kind, value), side in zip(parts, sides, strict=False):
        source = side == "src"
        if kind in ("net", "range"):
            if not value.holds(flow.version, flow.src if source else flow.dst):
                return False
        elif kind == "port":
            protocol, (first, last) = value
            port = flow.sport if source else flow.dport
            if protocol is not None and protocol != flow.protocol:
                return False
            if port is None:
                open_question = True
            elif not first <= port <= last:
                return False
        else:
            device = flow.in_interface if source else flow.out_interface
            if device is None:
                open_question = True
            elif device != str(value).removeprefix("physdev:"):
                return False
    return None if open_question else True
