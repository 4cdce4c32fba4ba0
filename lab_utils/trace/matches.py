"""Who judges which match. Those of which a dump cannot tell are here: what they ask for, and what the trace assumes."""

from __future__ import annotations

from lab_utils.iptables.parts import Match
from lab_utils.trace.answers import YES, Answer, Judge, answer, every
from lab_utils.trace.connections import conntrack, ipset, mark, recent
from lab_utils.trace.flow import Flow, Surroundings
from lab_utils.trace.headers import address_kind, addrtype, basic, icmp, iprange, multiport, physdev, transport


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
    return every(answer(None, option, "which user's process sends the packet is not known") for option in match.options)


def mac(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    if flow.in_interface == "":
        return Answer(False, "the packet has no Ethernet source")
    return every(answer(None, option, "the Ethernet source is not known") for option in match.options)


def pkttype(match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
    kind = {"MULTICAST": "multicast", "BROADCAST": "broadcast"}.get(address_kind(flow.version, flow.dst, around), "unicast")
    return every(
        answer(option.value.lower() in (kind, "host" if kind == "unicast" else kind), option, f"it is {kind}") for option in match.options
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
