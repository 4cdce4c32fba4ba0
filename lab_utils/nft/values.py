"""What an expression of nft is worth for a packet, and whether a value is among those that a rule names.

Values are plain: an address, port, mark or protocol is a number, a device or a state a word, a concatenation a tuple.
None means that the value is not known from here. `Absent` means that the packet has no such thing, so nothing matches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from lab_utils.errors import ParseError
from lab_utils.iptables.values import PROTOCOLS, SERVICES, Network, Range, network, read_address
from lab_utils.trace.flow import Flow, Surroundings
from lab_utils.trace.headers import ICMP, ICMP6, address_kind

Value = Any
PORTS = ("tcp", "udp", "sctp", "dccp", "udplite", "th")
TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}


class Absent(NamedTuple):
    """The packet has no such part."""


ABSENT = Absent()


class Chance(NamedTuple):
    """A number drawn at random, or in turn: each of `mod` numbers from `offset` on is as probable as any other."""

    mod: int
    offset: int = 0


def kind_of(said: Any) -> str | tuple[str, ...]:
    """What sort of thing an expression gives; the words of a rule are read accordingly."""
    if not isinstance(said, dict) or len(said) != 1:
        return ""
    ((name, value),) = said.items()
    if name == "concat":
        return tuple(str(kind_of(each)) for each in value)
    if name in ("&", "|", "^", "<<", ">>"):
        return kind_of(value[0])
    if name == "payload":
        protocol, field = value.get("protocol"), value.get("field")
        if field in ("saddr", "daddr"):
            return "address" if protocol in ("ip", "ip6") else "word"
        if field in ("sport", "dport"):
            return "port"
        if field in ("protocol", "nexthdr"):
            return "protocol"
        return "flags" if field == "flags" else "icmp" if protocol == "icmp" else "icmp6" if protocol == "icmpv6" else "number"
    if name == "meta":
        return {"l4proto": "protocol", "mark": "number", "random": "number"}.get(value.get("key"), "word")
    if name == "ct":
        key = value.get("key", "")
        if key.endswith(("saddr", "daddr")):
            return "address"
        return {"mark": "number", "proto-src": "port", "proto-dst": "port", "protocol": "protocol"}.get(key, "word")
    return "number" if name in ("numgen", "jhash", "symhash") else "word"


def value_of(said: Any, flow: Flow, around: Surroundings) -> Value:
    if not isinstance(said, dict) or len(said) != 1:
        return said
    ((name, value),) = said.items()
    if name == "payload":
        return _payload(str(value.get("protocol")), str(value.get("field")), flow, around)
    if name == "meta":
        return _meta(value["key"], flow, around)
    if name == "ct":
        return _ct(value, flow)
    if name == "fib":
        return _fib(value, flow, around)
    if name == "concat":
        parts = [value_of(each, flow, around) for each in value]
        if any(isinstance(part, Absent) for part in parts):
            return ABSENT
        return None if any(part is None for part in parts) else tuple(parts)
    if name in ("&", "|", "^", "<<", ">>"):
        return _arithmetic(name, [value_of(each, flow, around) for each in value])
    if name in ("numgen", "jhash", "symhash"):
        return Chance(int(value["mod"]), int(value.get("offset") or 0))
    return None


def _arithmetic(how: str, parts: list[Value]) -> Value:
    if any(isinstance(part, Chance) for part in parts):
        chance = next(part for part in parts if isinstance(part, Chance))
        other = next((part for part in parts if isinstance(part, int)), None)
        if how == "&" and other is not None and other & (other + 1) == 0 and chance.mod == 1 << 32:
            return Chance(other + 1)  # iptables-nft: meta random & 0x7fffffff
        return None
    if not all(isinstance(part, int) for part in parts):
        return ABSENT if any(isinstance(part, Absent) for part in parts) else None
    result = parts[0]
    for part in parts[1:]:
        if how == "&":
            result &= part
        elif how == "|":
            result |= part
        elif how == "^":
            result ^= part
        else:
            result = result << part if how == "<<" else result >> part
    return result


def _payload(protocol: str, field: str, flow: Flow, around: Surroundings) -> Value:
    if protocol in ("ip", "ip6"):
        if flow.version != (4 if protocol == "ip" else 6):
            return ABSENT
        return {"saddr": flow.src, "daddr": flow.dst, "protocol": flow.protocol, "nexthdr": flow.protocol, "version": flow.version}.get(
            field
        )
    if protocol in PORTS:
        if protocol != "th" and PROTOCOLS[protocol] != flow.protocol:
            return ABSENT
        if field in ("sport", "dport"):
            if flow.protocol not in (6, 17, 33, 132, 136):
                return ABSENT
            return flow.sport if field == "sport" else flow.dport
        return TCP_FLAGS["syn"] if field == "flags" and flow.state == "NEW" else None
    if protocol in ("icmp", "icmpv6"):
        if flow.protocol != (1 if protocol == "icmp" else 58):
            return ABSENT
        names = ICMP if protocol == "icmp" else ICMP6
        said = around.packet.icmp_type
        return (names.get(said) if isinstance(said, str) and not said.isdecimal() else said) if field == "type" else None
    return None


def _meta(key: str, flow: Flow, around: Surroundings) -> Value:
    if key == "l4proto":
        return flow.protocol
    if key == "nfproto":
        return "ipv4" if flow.version == 4 else "ipv6"
    if key == "protocol":
        return "ip" if flow.version == 4 else "ip6"
    if key == "mark":
        return flow.mark
    if key in ("iif", "iifname"):
        return flow.in_interface
    if key in ("oif", "oifname"):
        return flow.out_interface
    if key == "random":
        return Chance(1 << 32)
    if key == "pkttype":
        return {"MULTICAST": "multicast", "BROADCAST": "broadcast"}.get(address_kind(flow.version, flow.dst, around), "host")
    return None


def _ct(value: dict[str, Any], flow: Flow) -> Value:
    key = value.get("key", "")
    if key == "state":
        return frozenset({flow.state.lower()})
    if key == "status":
        if flow.state != "NEW":
            return None
        return frozenset(name for name, held in (("dnat", flow.ct_dnat), ("snat", flow.ct_snat)) if held)
    if key == "mark":
        return flow.ctmark
    if key == "direction":
        return "original" if flow.state == "NEW" else None
    if flow.state not in ("NEW", "INVALID"):
        return None
    src, dst, sport, dport = flow.first
    reply = value.get("dir") == "reply"
    field = key.split()[-1]
    if key.startswith(("ip ", "ip6 ")) and (key.startswith("ip6") != (flow.version == 6)):
        return ABSENT
    if field in ("saddr", "daddr"):
        return {("saddr", False): src, ("daddr", False): dst, ("saddr", True): flow.dst}.get((field, reply))
    if key in ("proto-src", "proto-dst"):
        return {("proto-src", False): sport, ("proto-dst", False): dport, ("proto-src", True): flow.dport}.get((key, reply))
    if key == "protocol":
        return flow.protocol
    if key == "l3proto":
        return "ipv4" if flow.version == 4 else "ipv6"
    return None


def _fib(value: dict[str, Any], flow: Flow, around: Surroundings) -> Value:
    flags = value.get("flags") or []
    flags = [flags] if isinstance(flags, str) else flags
    if value.get("result") != "type":
        return None
    address = flow.src if "saddr" in flags else flow.dst
    kind = address_kind(flow.version, address, around)
    device = flow.in_interface if "iif" in flags else flow.out_interface
    if ("iif" in flags or "oif" in flags) and kind == "LOCAL":
        if device is None or not around.interfaces_known:
            return None
        return "local" if (flow.version, address) in around.by_interface.get(device, []) else "unicast"
    return kind.lower()


# Reading what a rule compares with


def read(kind: str, said: Any) -> Value:
    """A word or number of a rule, as a value of that kind, or a `Network` or `Range` for several."""
    if isinstance(said, dict) and len(said) == 1:
        ((name, value),) = said.items()
        if name == "elem":
            return read(kind, value.get("val"))
        if name == "prefix":
            return network(f"{value['addr']}/{value['len']}")
        if name == "range":
            low, high = read(kind, value[0]), read(kind, value[1])
            return Range(low, high) if isinstance(low, int) and isinstance(high, int) else said
        if name in ("|", "&"):
            return frozenset(read(kind, each) for each in value)
    if isinstance(said, str):
        return _word(kind, said)
    return said


def _word(kind: str, said: str) -> Value:
    if kind == "address":
        return network(said) if "/" in said else read_address(said)[1]
    if kind == "protocol":
        return PROTOCOLS.get(said, int(said) if said.isdecimal() else said)
    if kind == "port":
        return SERVICES.get(said, int(said) if said.isdecimal() else said)
    if kind == "flags":
        return TCP_FLAGS.get(said, said)
    if kind in ("icmp", "icmp6"):
        return (ICMP if kind == "icmp" else ICMP6).get(said, said)
    if kind == "number":
        try:
            return int(said, 0)
        except ValueError:
            return said
    return said


def holds(pattern: Value, value: Value, version: int) -> bool:
    """Is the value the one, or among those, that the pattern names?"""
    if isinstance(pattern, Network):
        return isinstance(value, int) and pattern.holds(version, value)
    if isinstance(pattern, Range):
        return isinstance(value, int) and pattern.holds(value)
    if isinstance(value, frozenset):
        return bool(value & pattern) if isinstance(pattern, frozenset) else pattern in value
    if isinstance(pattern, frozenset):
        return value in pattern
    if isinstance(pattern, str) and isinstance(value, str) and pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return bool(pattern == value)


class Lookup:
    """A set or a map, ready to be asked. What has no range or prefix in it is found at once."""

    __slots__ = ("exact", "patterns")

    def __init__(self, kind: str | tuple[str, ...], elements: Iterable[Any], mapped: bool) -> None:
        self.exact: dict[Value, Any] = {}
        self.patterns: list[tuple[tuple[Value, ...], Any]] = []
        for element in elements:
            key, result = (element[0], element[1]) if mapped else (element, True)
            if isinstance(key, dict) and "elem" in key:
                key = key["elem"].get("val")
            if isinstance(key, dict) and "concat" in key:
                kinds = kind if isinstance(kind, tuple) else (kind,) * len(key["concat"])
                parts = tuple(read(each, said) for each, said in zip(kinds, key["concat"], strict=False))
                if any(isinstance(part, (Network, Range)) for part in parts):
                    self.patterns.append((parts, result))
                else:
                    self.exact[parts] = result
                continue
            one = read(kind if isinstance(kind, str) else "", key)
            if isinstance(one, (Network, Range, frozenset)) or (isinstance(one, str) and one.endswith("*")):
                self.patterns.append(((one,), result))
            else:
                self.exact[one] = result

    def find(self, value: Value, version: int) -> Any:
        """What belongs to the value; None if nothing does."""
        if value.__class__ is not frozenset and value in self.exact:
            return self.exact[value]
        if isinstance(value, frozenset):
            return next((result for key, result in self.exact.items() if key in value), None)
        parts = value if isinstance(value, tuple) else (value,)
        for patterns, result in self.patterns:
            if len(patterns) == len(parts) and all(holds(p, v, version) for p, v in zip(patterns, parts, strict=True)):
                return result
        return self.exact.get("*")


KINDS = {
    "ipv4_addr": "address",
    "ipv6_addr": "address",
    "inet_proto": "protocol",
    "inet_service": "port",
    "mark": "number",
    "integer": "number",
}


def declared_kind(said: Any, what: str) -> str | tuple[str, ...]:
    """The kind of a named set's keys, from its `type`."""
    if isinstance(said, dict):
        return kind_of(said.get("typeof", said))
    if isinstance(said, list):
        return tuple(KINDS.get(str(each), "word") for each in said)
    if isinstance(said, str):
        parts = [part.strip() for part in said.split(".")]
        return tuple(KINDS.get(part, "word") for part in parts) if len(parts) > 1 else KINDS.get(said, "word")
    raise ParseError(f"the type of the set {what} is not understood")
