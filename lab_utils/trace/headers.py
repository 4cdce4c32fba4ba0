"""Matches that look at the packet itself: addresses, devices, protocol, ports, ICMP types (net/netfilter/x_tables.c, xt_*.c)."""

from __future__ import annotations

from lab_utils.iptables.parts import Match, Option
from lab_utils.iptables.values import Range, show_address
from lab_utils.trace.answers import NO, YES, Answer, answer, judged
from lab_utils.trace.flow import Flow, Surroundings


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
            found = answer(device_matches(value, device), option, _device_why("comes in by" if name == "-i" else "goes out by", device))
            if found.holds is False:
                return found
            if found.holds is None:
                question, assume = question or found, assume and found.assume
        elif not option.negated:
            return Answer(False, "the packet is no fragment")  # -f
    return YES if question is None else Answer(None, question.why, assume)


def device_matches(wanted: str, device: str | None) -> bool | None:
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


def port_answer(option: Option, port: int | None, what: str) -> Answer:
    ranges: tuple[Range, ...] = option.value
    if port is None:
        if any(span.first == 0 and span.last == 65535 for span in ranges):
            return NO if option.negated else YES
        return answer(None, option, f"the {what} port is not known")
    for first, last in ranges:
        if first <= port <= last:
            return YES if not option.negated else Answer(False, f"the {what} port is {port}")
    return YES if option.negated else Answer(False, f"the {what} port is {port}")


def transport(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    return judged(match, lambda option: _transport(option, flow))


def _transport(option: Option, flow: Flow) -> Answer:
    if option.name == "--dport":
        return port_answer(option, flow.dport, "destination")
    if option.name == "--sport":
        return port_answer(option, flow.sport, "source")
    if option.name in ("--syn", "--tcp-flags"):
        looked, wanted = option.value if option.name == "--tcp-flags" else (frozenset({"SYN", "RST", "ACK", "FIN"}), frozenset({"SYN"}))
        if flow.state != "NEW" and not (flow.state == "INVALID" and not flow.dst_settled):
            return answer(None, option, "which TCP flags a later packet has is not known")
        return answer({"SYN"} & looked == wanted, option, "the first packet of a TCP connection has SYN alone")
    return answer(None, option, f"what {option.name} asks for is not known of the packet")


def multiport(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    def one(option: Option) -> Answer:
        if option.name == "--dports":
            return port_answer(option, flow.dport, "destination")
        if option.name == "--sports":
            return port_answer(option, flow.sport, "source")
        plain = Option(option.name, option.words, False, option.value)
        either = [port_answer(plain, flow.sport, "source"), port_answer(plain, flow.dport, "destination")]
        holds = True if any(a.holds for a in either) else None if any(a.holds is None for a in either) else False
        return answer(holds, option, f"the ports are {flow.sport} and {flow.dport}")

    if flow.protocol not in (6, 17, 33, 132, 136):
        return Answer(False, "the protocol has no ports")
    return judged(match, one)


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
            return answer(True, option, "")
        if said is None:
            return answer(None, option, "the ICMP type is not known")
        number = names.get(said, -1) if isinstance(said, str) and not said.isdecimal() else int(said)
        kind, _, code = str(wanted).partition("/")
        asked = names.get(kind, int(kind) if kind.isdecimal() else -1)
        if asked < 0 or (code and number == asked):
            return answer(None, option, "the ICMP code is not known" if code else f"the ICMP type {wanted} is not known here")
        return answer(number == asked, option, f"the ICMP type is {said}")

    return judged(match, one)


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
                return answer(None, option, f"whether {shown} is an address of the packet's device is not known", True)
            if (flow.version, address) not in around.by_interface.get(device, []):
                kind = "UNICAST"  # the address is the node's, but another device's
        if (
            kind not in option.value
            and kind == "UNICAST"
            and option.value & {"BROADCAST", "ANYCAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT"}
        ):
            return answer(None, option, f"what kind of address {shown} is depends on the routes")
        return answer(kind in option.value, option, f"{shown} is {kind}")

    return judged(match, one)


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
        return answer(option.value.holds(flow.version, address), option, f"the address is {show_address(flow.version, address)}")

    return judged(match, one)


def physdev(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    came, goes = around.packet.physdev_in, around.packet.physdev_out

    def one(option: Option) -> Answer:
        if option.name == "--physdev-is-bridged":
            return answer(bool(came and goes), option, "the packet is routed, not bridged")
        if option.name == "--physdev-is-in":
            return answer(bool(came), option, "the packet came in by no port of a bridge")
        if option.name == "--physdev-is-out":
            return answer(bool(goes), option, "the packet goes out by no port of a bridge")
        port = came if option.name == "--physdev-in" else goes
        return answer(device_matches(option.value, port or ""), option, f"the bridge's port is {port or 'none'}")

    return judged(match, one)
