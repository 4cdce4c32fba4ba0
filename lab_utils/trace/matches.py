"""Does a match hold for a packet? Yes, no, or not to be known from here, with what is then assumed.

One function for each module of iptables. What they rely on are the kernel's net/netfilter/xt_*.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lab_utils.iptables.parts import Match, Option
from lab_utils.iptables.values import Masked, Range, show_address
from lab_utils.trace.flow import Flow, Surroundings
from lab_utils.trace.sets import in_set


class Answer(NamedTuple):
    """`holds` is None where it cannot be known; `assume` is then what the trace goes on with."""

    holds: bool | None
    why: str = ""
    assume: bool = False


YES = Answer(True)
NO = Answer(False)
Judge = Callable[[Match, Flow, str, Surroundings], Answer]


def unknown(why: str, assume: bool = False) -> Answer:
    return Answer(None, why, assume)


def _answer(holds: bool | None, option: Option, why: str, assume: bool = False) -> Answer:
    """Apply the option's `!`. `assume` speaks of the plain match; for interfaces and the like "another one" is assumed."""
    if holds is None:
        return Answer(None, why, assume != option.negated)
    return Answer(holds != option.negated, why)


def _all(answers: Iterable[Answer]) -> Answer:
    """All must hold. One that fails decides, whatever is unknown about the others."""
    open_question: Answer | None = None
    assume = True
    for answer in answers:
        if answer.holds is False:
            return answer
        if answer.holds is None:
            open_question = open_question or answer
            assume = assume and answer.assume
    return YES if open_question is None else Answer(None, open_question.why, assume)


# Addresses, interfaces, protocol


def basic(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    question: Answer | None = None
    assume = True
    for option in match.options:
        name, value = option.name, option.value
        if name == "-s" or name == "-d":
            address = flow.src if name == "-s" else flow.dst
            if (value.version == flow.version and address & value.mask == value.address) == option.negated:
                what = "source" if name == "-s" else "destination"
                return Answer(False, f"the {what} is {show_address(flow.version, address)}") if around.explain else NO
        elif name == "-p":
            held = value in (0, flow.protocol) or (value == 1 and flow.protocol == 58 and flow.version == 6)
            if held == option.negated:
                return Answer(False, f"the protocol is {flow.protocol}") if around.explain else NO
        elif name in ("-i", "-o"):
            device = flow.in_interface if name == "-i" else flow.out_interface
            answer = _answer(_device(value, device), option, _device_why("comes in by" if name == "-i" else "goes out by", device))
            if answer.holds is False:
                return answer
            if answer.holds is None:
                question, assume = question or answer, assume and answer.assume
        elif not option.negated:
            return Answer(False, "the packet is no fragment")  # -f
    return YES if question is None else Answer(None, question.why, assume)


def _device(wanted: str, device: str | None) -> bool | None:
    if wanted == "+":
        return True
    if device is None:
        return None if wanted != "lo" else False  # only packets of this node itself use lo, and those are known
    return device.startswith(wanted[:-1]) if wanted.endswith("+") else device == wanted


def _device_why(how: str, device: str | None) -> str:
    return (
        f"by which device the packet {how.removesuffix(' by')} is not known"
        if device is None
        else f"the packet {how} {device or 'no device'}"
    )


# Ports


def _ports(option: Option, port: int | None, what: str) -> Answer:
    ranges: tuple[Range, ...] = option.value
    if port is None:
        if any(span.first == 0 and span.last == 65535 for span in ranges):
            return NO if option.negated else YES
        return _answer(None, option, f"the {what} port is not known")
    for first, last in ranges:
        if first <= port <= last:
            return YES if not option.negated else Answer(False, f"the {what} port is {port}")
    return YES if option.negated else Answer(False, f"the {what} port is {port}")


def transport(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    if len(match.options) == 1:
        return _transport(match.options[0], flow)
    return _all(_transport(option, flow) for option in match.options)


def _transport(option: Option, flow: Flow) -> Answer:
    if option.name == "--dport":
        return _ports(option, flow.dport, "destination")
    if option.name == "--sport":
        return _ports(option, flow.sport, "source")
    if option.name in ("--syn", "--tcp-flags"):
        looked, wanted = option.value if option.name == "--tcp-flags" else (frozenset({"SYN", "RST", "ACK", "FIN"}), frozenset({"SYN"}))
        if flow.state != "NEW" and not (flow.state == "INVALID" and not flow.dst_settled):
            return _answer(None, option, "which TCP flags a later packet has is not known")
        return _answer({"SYN"} & looked == wanted, option, "the first packet of a TCP connection has SYN alone")
    return _answer(None, option, f"what {option.name} asks for is not known of the packet")


def multiport(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    def one(option: Option) -> Answer:
        if option.name == "--dports":
            return _ports(option, flow.dport, "destination")
        if option.name == "--sports":
            return _ports(option, flow.sport, "source")
        plain = Option(option.name, option.words, False, option.value)
        either = [_ports(plain, flow.sport, "source"), _ports(plain, flow.dport, "destination")]
        holds = True if any(a.holds for a in either) else None if any(a.holds is None for a in either) else False
        return _answer(holds, option, f"the ports are {flow.sport} and {flow.dport}")

    if flow.protocol not in (6, 17, 33, 132, 136):
        return Answer(False, "the protocol has no ports")
    return _all(map(one, match.options))


ICMP = {
    "echo-reply": 0,
    "pong": 0,
    "destination-unreachable": 3,
    "source-quench": 4,
    "redirect": 5,
    "echo-request": 8,
    "ping": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "ttl-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
}
ICMP6 = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "ttl-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "ping": 128,
    "echo-reply": 129,
    "pong": 129,
    "router-solicitation": 133,
    "router-advertisement": 134,
    "neighbour-solicitation": 135,
    "neighbor-solicitation": 135,
    "neighbour-advertisement": 136,
    "neighbor-advertisement": 136,
    "redirect": 137,
}


def icmp(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    names = ICMP if match.module == "icmp" else ICMP6

    def one(option: Option) -> Answer:
        wanted, said = option.value, around.packet.icmp_type
        if wanted in ("any", "255"):
            return _answer(True, option, "")
        if said is None:
            return _answer(None, option, "the ICMP type is not known")
        number = names.get(said, -1) if isinstance(said, str) and not said.isdecimal() else int(said)
        kind, _, code = str(wanted).partition("/")
        asked = names.get(kind, int(kind) if kind.isdecimal() else -1)
        if asked < 0 or (code and number == asked):
            return _answer(None, option, "the ICMP code is not known" if code else f"the ICMP type {wanted} is not known here")
        return _answer(number == asked, option, f"the ICMP type is {said}")

    return _all(map(one, match.options))


# Marks and the connection


def mark(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    have = flow.mark if match.module == "mark" else flow.ctmark

    def one(option: Option) -> Answer:
        wanted: Masked = option.value
        return _answer(have & wanted.mask == wanted.value, option, f"the mark is {have:#x}")

    return _all(map(one, match.options))


def conntrack(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    return _all(_conntrack(option, flow) for option in match.options)


def _conntrack(option: Option, flow: Flow) -> Answer:
    name, value = option.name, option.value
    if name in ("--ctstate", "--state"):
        states = {flow.state} | ({"DNAT"} if flow.ct_dnat else set()) | ({"SNAT"} if flow.ct_snat else set())
        if not states & value and value & {"DNAT", "SNAT"} and flow.state in ("ESTABLISHED", "RELATED"):
            return _answer(None, option, "whether the connection was rewritten at its start is not known")
        return _answer(bool(states & value), option, f"the connection is {' and '.join(sorted(states))}")
    src, dst, sport, dport = flow.first
    if name == "--ctproto":
        return _answer(value == flow.protocol, option, f"the protocol is {flow.protocol}")
    if flow.state not in ("NEW", "INVALID") and name != "--ctdir":
        return _answer(None, option, f"how the connection began ({name}) is not known")
    if name == "--ctorigsrc":
        return _answer(value.holds(flow.version, src), option, f"the connection came from {show_address(flow.version, src)}")
    if name == "--ctorigdst":
        return _answer(value.holds(flow.version, dst), option, f"the connection went to {show_address(flow.version, dst)}")
    if name == "--ctorigsrcport":
        return _ports(option, sport, "connection's source")
    if name == "--ctorigdstport":
        return _ports(option, dport, "connection's destination")
    if name == "--ctreplsrc":
        return _answer(value.holds(flow.version, flow.dst), option, f"answers come from {show_address(flow.version, flow.dst)}")
    if name == "--ctreplsrcport":
        return _ports(option, flow.dport, "answer's source")
    if name == "--ctdir" and flow.state == "NEW":
        return _answer(value.upper() == "ORIGINAL", option, "the packet goes in the connection's own direction")
    if name == "--ctstatus" and flow.state == "NEW":
        return _answer(False, option, "a new connection has none of these yet")
    return _answer(None, option, f"{name} is not known of the connection")


# Addresses by kind


def addrtype(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    limited = "--limit-iface-in" in match or "--limit-iface-out" in match
    device = flow.in_interface if "--limit-iface-in" in match else flow.out_interface

    def one(option: Option) -> Answer:
        if option.name not in ("--src-type", "--dst-type"):
            return YES
        address = flow.src if option.name == "--src-type" else flow.dst
        kind = address_kind(flow.version, address, around)
        shown = show_address(flow.version, address)
        if limited and kind == "LOCAL" and "LOCAL" in option.value:
            if device is None or not around.interfaces_known:
                return _answer(None, option, f"whether {shown} is an address of the packet's device is not known", True)
            if (flow.version, address) not in around.by_interface.get(device, []):
                kind = "UNICAST"  # the address is the node's, but another device's
        if (
            kind not in option.value
            and kind == "UNICAST"
            and option.value & {"BROADCAST", "ANYCAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT"}
        ):
            return _answer(None, option, f"what kind of address {shown} is depends on the routes")
        return _answer(kind in option.value, option, f"{shown} is {kind}")

    return _all(map(one, match.options))


def address_kind(version: int, address: int, around: Surroundings) -> str:
    if around.is_local(version, address):
        return "LOCAL"
    if (version == 4 and 224 <= address >> 24 < 240) or (version == 6 and address >> 120 == 0xFF):
        return "MULTICAST"
    if version == 4 and address in (0, 0xFFFFFFFF):
        return "BROADCAST"
    return "UNICAST"


def iprange(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    def one(option: Option) -> Answer:
        address = flow.src if option.name == "--src-range" else flow.dst
        return _answer(option.value.holds(flow.version, address), option, f"the address is {show_address(flow.version, address)}")

    return _all(map(one, match.options))


def physdev(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    came, goes = around.packet.physdev_in, around.packet.physdev_out

    def one(option: Option) -> Answer:
        if option.name == "--physdev-is-bridged":
            return _answer(bool(came and goes), option, "the packet is routed, not bridged")
        if option.name == "--physdev-is-in":
            return _answer(bool(came), option, "the packet came in by no port of a bridge")
        if option.name == "--physdev-is-out":
            return _answer(bool(goes), option, "the packet goes out by no port of a bridge")
        port = came if option.name == "--physdev-in" else goes
        return _answer(_device(option.value, port or ""), option, f"the bridge's port is {port or 'none'}")

    return _all(map(one, match.options))


# What lasts between packets


def recent(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    """xt_recent. Lists begin empty unless `recent=` gives their content; `--set` is done by `targets.remember`."""
    name_option = match.get("--name")
    name = name_option.words[0] if name_option is not None else "DEFAULT"
    address = flow.dst if "--rdest" in match else flow.src
    for option in match.options:
        if option.name == "--set":
            return _answer(True, option, "")
        if option.name in ("--rcheck", "--update", "--remove"):
            age = 0.0 if (name, address) in flow.seen else around.recent.get(name, {}).get(address)
            shown = show_address(flow.version, address)
            if age is None:
                return _answer(False, option, f"{shown} is not in the list {name}")
            seconds, hits = match.get("--seconds"), match.get("--hitcount")
            if seconds is not None and age > seconds.value:
                return _answer(False, option, f"{shown} was last seen {age:g} s ago")
            if hits is not None and hits.value > 1:
                return _answer(None, option, f"how often {shown} was seen is not known")
            return _answer(True, option, f"{shown} is in the list {name}")
    return YES


def ipset(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    def one(option: Option) -> Answer:
        if option.name != "--match-set":
            if option.name in ("--update-counters", "--update-subcounters", "--return-nomatch"):
                return YES
            return _answer(None, option, "the counters of a set's entries are not known")
        if around.sets is None:
            return _answer(None, option, f"what the set {option.value.name} holds is not known")
        if option.value.name not in around.sets:
            return _answer(None, option, f"there is no set {option.value.name} among those given")
        held = in_set(option.value.name, option.value.sides, flow, around)
        return _answer(held, option, f"the packet is {'' if held else 'not '}in the set {option.value.name}")

    return _all(map(one, match.options))


# What cannot be known from a dump, and what the trace assumes


def assumed(why: str, *, holds: bool) -> Judge:
    def judge(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
        negated = any(option.negated for option in match.options)
        return Answer(None, why, holds != negated)

    return judge


def always(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    return YES


def hashlimit(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    return Answer(None, "how many packets came before is not known", "--hashlimit-above" not in match)


def connlimit(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    above = match.get("--connlimit-above")
    few = above is None or above.negated
    return Answer(None, "how many connections there are is not known", few)


def owner(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    if around.origin != "local":
        return Answer(all(option.negated for option in match.options), "the packet comes from no process of this node")
    return _all(_answer(None, option, "which user's process sends the packet is not known") for option in match.options)


def mac(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    if flow.in_interface == "":
        return Answer(False, "the packet has no Ethernet source")
    return _all(_answer(None, option, "the Ethernet source is not known") for option in match.options)


def pkttype(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    kind = {"MULTICAST": "multicast", "BROADCAST": "broadcast"}.get(address_kind(flow.version, flow.dst, around), "unicast")
    return _all(
        _answer(option.value.lower() in (kind, "host" if kind == "unicast" else kind), option, f"it is {kind}") for option in match.options
    )


def rpfilter(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    return Answer(None, "whether answers would go back by the same device is not known", "--invert" not in match)


def policy(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    pol = match.get("--pol")
    return Answer(None, "whether IPsec handles the packet is not known", pol is not None and (pol.value == "none") != pol.negated)


TRANSPORTS = frozenset({"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6"})
_PACKET = "the rule asks for a part of the packet that is not given"
JUDGES: dict[str, Judge] = {
    "": basic,
    "tcp": transport,
    "udp": transport,
    "udplite": transport,
    "sctp": transport,
    "dccp": transport,
    "multiport": multiport,
    "icmp": icmp,
    "icmp6": icmp,
    "icmpv6": icmp,
    "comment": always,
    "nfacct": always,
    "mark": mark,
    "connmark": mark,
    "conntrack": conntrack,
    "state": conntrack,
    "addrtype": addrtype,
    "iprange": iprange,
    "physdev": physdev,
    "recent": recent,
    "set": ipset,
    "limit": assumed("how many packets came before is not known", holds=True),
    "quota": assumed("how much came before is not known", holds=True),
    "hashlimit": hashlimit,
    "connlimit": connlimit,
    "time": assumed("what time it is then is not known", holds=True),
    "owner": owner,
    "mac": mac,
    "pkttype": pkttype,
    "rpfilter": rpfilter,
    "policy": policy,
    "length": assumed("how long the packet is is not known", holds=False),
    **dict.fromkeys(("ttl", "hl", "tos", "dscp", "ecn", "string", "u32", "bpf", "tcpmss", "frag", "rt"), assumed(_PACKET, holds=False)),
}
NOT_HERE = assumed("this match is not known here", holds=False)
