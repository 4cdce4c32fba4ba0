"""Matches that ask what lasts longer than the packet: marks, the connection, lists of recent clients, IP sets."""

from __future__ import annotations

from lab_utils.iptables.parts import Match, Option
from lab_utils.iptables.values import Masked, show_address
from lab_utils.trace.answers import NO, YES, Answer, answer, judged
from lab_utils.trace.flow import Flow, Surroundings
from lab_utils.trace.headers import port_answer
from lab_utils.trace.sets import in_set

DNAT_SNAT = frozenset({"DNAT", "SNAT"})


def mark(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    have = flow.mark if match.module == "mark" else flow.ctmark

    def one(option: Option) -> Answer:
        wanted: Masked = option.value
        return answer(have & wanted.mask == wanted.value, option, f"the mark is {have:#x}")

    return judged(match, one)


def conntrack(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    return judged(match, lambda option: _conntrack(option, flow, around.explain))


def _conntrack(option: Option, flow: Flow, explain: bool) -> Answer:
    name, value = option.name, option.value
    if name in ("--ctstate", "--state"):
        if not explain and not value & DNAT_SNAT and (flow.state in value) == option.negated:
            return NO  # by far the most frequent question, and nobody wants to hear more
        states = {flow.state} | ({"DNAT"} if flow.ct_dnat else set()) | ({"SNAT"} if flow.ct_snat else set())
        if not states & value and value & {"DNAT", "SNAT"} and flow.state in ("ESTABLISHED", "RELATED"):
            return answer(None, option, "whether the connection was rewritten at its start is not known")
        return answer(bool(states & value), option, f"the connection is {' and '.join(sorted(states))}")
    src, dst, sport, dport = flow.first
    if name == "--ctproto":
        return answer(value == flow.protocol, option, f"the protocol is {flow.protocol}")
    if flow.state not in ("NEW", "INVALID") and name != "--ctdir":
        return answer(None, option, f"how the connection began ({name}) is not known")
    if name == "--ctorigsrc":
        return answer(value.holds(flow.version, src), option, f"the connection came from {show_address(flow.version, src)}")
    if name == "--ctorigdst":
        return answer(value.holds(flow.version, dst), option, f"the connection went to {show_address(flow.version, dst)}")
    if name == "--ctorigsrcport":
        return port_answer(option, sport, "connection's source")
    if name == "--ctorigdstport":
        return port_answer(option, dport, "connection's destination")
    if name == "--ctreplsrc":
        return answer(value.holds(flow.version, flow.dst), option, f"answers come from {show_address(flow.version, flow.dst)}")
    if name == "--ctreplsrcport":
        return port_answer(option, flow.dport, "answer's source")
    if name == "--ctdir" and flow.state == "NEW":
        return answer(value.upper() == "ORIGINAL", option, "the packet goes in the connection's own direction")
    if name == "--ctstatus" and flow.state == "NEW":
        return answer(False, option, "a new connection has none of these yet")
    return answer(None, option, f"{name} is not known of the connection")


def recent(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    """xt_recent. Lists begin empty unless `recent=` gives their content; `--set` is done by `targets.remember`."""
    name_option = match.get("--name")
    name = name_option.words[0] if name_option is not None else "DEFAULT"
    address = flow.dst if "--rdest" in match else flow.src
    for option in match.options:
        if option.name == "--set":
            return answer(True, option, "")
        if option.name in ("--rcheck", "--update", "--remove"):
            age = 0.0 if (name, address) in flow.seen else around.recent.get(name, {}).get(address)
            shown = show_address(flow.version, address)
            if age is None:
                return answer(False, option, f"{shown} is not in the list {name}")
            seconds, hits = match.get("--seconds"), match.get("--hitcount")
            if seconds is not None and age > seconds.value:
                return answer(False, option, f"{shown} was last seen {age:g} s ago")
            if hits is not None and hits.value > 1:
                return answer(None, option, f"how often {shown} was seen is not known")
            return answer(True, option, f"{shown} is in the list {name}")
    return YES


def ipset(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    def one(option: Option) -> Answer:
        if option.name != "--match-set":
            if option.name in ("--update-counters", "--update-subcounters", "--return-nomatch"):
                return YES
            return answer(None, option, "the counters of a set's entries are not known")
        if around.sets is None:
            return answer(None, option, f"what the set {option.value.name} holds is not known")
        if option.value.name not in around.sets:
            return answer(None, option, f"there is no set {option.value.name} among those given")
        held = in_set(option.value.name, option.value.sides, flow, around)
        return answer(held, option, f"the packet is {'' if held else 'not '}in the set {option.value.name}")

    return judged(match, one)
