"""What a target does to a packet (net/netfilter/xt_*.c, nf_nat_core.c)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from lab_utils.iptables.parts import Match, Target
from lab_utils.iptables.values import FULL, AddressRange, Place, Range
from lab_utils.trace.flow import ONE, Branch, Flow, Surroundings, endpoint

Act = Callable[[Target, Flow, str, Surroundings], list[Branch]]
MANY = 1024  # addresses of a range that are told apart


def go_on(flow: Flow, why: str = "") -> list[Branch]:
    return [Branch(ONE, flow, "next", why=why)]


def remember(match: Match, flow: Flow) -> Flow:
    """`recent --set` and `--update` put the address on the list."""
    if "--set" in match or "--update" in match:
        option = match.get("--name")
        name = option.words[0] if option is not None else "DEFAULT"
        return flow._replace(seen=flow.seen | {(name, flow.dst if "--rdest" in match else flow.src)})
    return flow


# Marks


def mark(target: Target, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
    value = flow.mark
    for option in target.options:
        value = _marked(option.name, option.value, value)
    return go_on(flow._replace(mark=value), f"the mark becomes {value:#x}")


def _marked(how: str, by: Any, value: int) -> int:
    if how in ("--set-mark", "--set-xmark"):
        bits, mask = by
        kept = value & ~mask & FULL
        return int(kept | bits) if how == "--set-mark" else int(kept ^ bits)
    return int(value & by if how == "--and-mark" else (value | by if how == "--or-mark" else value ^ by) & FULL)


def connmark(target: Target, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
    if not flow.tracked or flow.state == "UNTRACKED":
        return go_on(flow, "the connection is not tracked, so it has no mark")
    mask = target.get("--mask")
    nf = (target.get("--nfmask") or mask).value if (target.get("--nfmask") or mask) else FULL  # type: ignore[union-attr]
    ct = (target.get("--ctmask") or mask).value if (target.get("--ctmask") or mask) else FULL  # type: ignore[union-attr]
    if "--save-mark" in target:
        value = (flow.ctmark & ~ct & FULL) ^ (flow.mark & nf)
        return go_on(flow._replace(ctmark=value), f"the connection's mark becomes {value:#x}")
    if "--restore-mark" in target:
        value = (flow.mark & ~nf & FULL) ^ (flow.ctmark & ct)
        return go_on(flow._replace(mark=value), f"the mark becomes {value:#x}")
    value = flow.ctmark
    for option in target.options:
        if option.name.endswith(("set-mark", "set-xmark", "and-mark", "or-mark", "xor-mark")):
            value = _marked(option.name, option.value, value)
    return go_on(flow._replace(ctmark=value), f"the connection's mark becomes {value:#x}")


# Rewriting


def dnat(target: Target, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
    option = target.get("--to-destination")
    place: Place = option.value if option is not None else Place(None, None)
    return to_destination(flow, place, "--random" in target)


def to_destination(flow: Flow, place: Place, random: bool = False) -> list[Branch]:
    port = flow.dport
    doubt = ""
    if place.ports is not None and flow.protocol in (6, 17, 33, 132, 136):
        # A port that lies in the range is kept; otherwise the first that is free is taken (nf_nat_core.c, since 5.9).
        if random and place.ports.first != place.ports.last:
            doubt = "the port is chosen at random"
            port = place.ports.first
        elif port is None or not place.ports.first <= port <= place.ports.last:
            port = place.ports.first
    where = place.addresses or AddressRange(flow.version, flow.dst, flow.dst)
    if where.version != flow.version:
        return go_on(flow, "the new destination is of another address family")
    count = where.last - where.first + 1
    shown = min(count, MANY)
    branches = []
    for address in range(where.first, where.first + shown):
        changed = (address, port) != (flow.dst, flow.dport)
        went = flow._replace(dst=address, dport=port, rewritten=True, ct_dnat=flow.ct_dnat or changed, dst_settled=True)
        why = f"the destination becomes {endpoint(flow.version, address, port)}"
        branches.append(Branch(Fraction(1, shown), went, "accept", why=why + (f"; {doubt}" if doubt else "")))
    return branches


def redirect(target: Target, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
    option = target.get("--to-ports")
    return to_local(flow, option.value if option is not None else None, hook, around, "--random" in target)


def to_local(flow: Flow, ports: Range | None, hook: str, around: Surroundings, random: bool = False) -> list[Branch]:
    """REDIRECT leads to 127.0.0.1 (::1) for packets of this node, else to the first address of the incoming device."""
    doubt = ""
    if hook == "OUTPUT":
        address = 0x7F000001 if flow.version == 4 else 1
    else:
        device = flow.in_interface
        on_device = [a for v, a in around.by_interface.get(device or "", []) if v == flow.version] if around.interfaces_known else []
        local = sorted(a for v, a in around.local if v == flow.version)
        if on_device:
            address = on_device[0]
        elif len(local) == 1:
            address = local[0]
        elif (flow.version, flow.dst) in around.local:
            address = flow.dst
            doubt = "the first address of the incoming device is not known"
        else:
            address = local[0] if local else flow.dst
            doubt = "the first address of the incoming device is not known"
    branches = to_destination(flow, Place(AddressRange(flow.version, address, address), ports), random)
    return [b._replace(why=f"{b.why}; {doubt}") for b in branches] if doubt else branches


def snat(target: Target, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
    option = target.get("--to-source")
    place: Place = option.value if option is not None else Place(None, None)
    return to_source(flow, place)


def to_source(flow: Flow, place: Place) -> list[Branch]:
    where = place.addresses or AddressRange(flow.version, flow.src, flow.src)
    if where.version != flow.version:
        return go_on(flow, "the new source is of another address family")
    shown = min(where.last - where.first + 1, MANY)
    sport = flow.sport
    if place.ports is not None and (sport is None or not place.ports.first <= sport <= place.ports.last):
        sport = place.ports.first if place.ports.first == place.ports.last else None
    branches = []
    for address in range(where.first, where.first + shown):
        source = endpoint(flow.version, address, sport if place.ports is not None else None)
        went = flow._replace(src=address, sport=sport, source=source, src_settled=True, ct_snat=flow.ct_snat or address != flow.src)
        branches.append(Branch(Fraction(1, shown), went, "accept", why=f"the source becomes {source}"))
    return branches


def masquerade(target: Target, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
    return masked(flow, around)


def masked(flow: Flow, around: Surroundings) -> list[Branch]:
    """The source becomes the outgoing device's address, which is known if the devices' addresses were given."""
    device = flow.out_interface or ""
    known = around.interfaces_known and device != "lo"  # by lo, the kernel takes an address of some other device
    own = [a for v, a in around.by_interface.get(device, []) if v == flow.version] if known else []
    source = endpoint(flow.version, own[0], None) if own else None
    went = flow._replace(masquerade=True, source=source, src_settled=True, ct_snat=True)
    return [Branch(ONE, went, "accept", why=f"the source becomes {source or 'the address of the outgoing device'}")]


def netmap(target: Target, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
    """The network part is exchanged, the rest stays."""
    option = target.get("--to")
    if option is None or option.value.version != flow.version:
        return go_on(flow, "the network is of another address family")
    net = option.value
    if hook in ("PREROUTING", "OUTPUT"):
        address = (flow.dst & ~net.mask) | net.address
        return to_destination(flow, Place(AddressRange(flow.version, address, address), None))
    address = (flow.src & ~net.mask) | net.address
    return to_source(flow, Place(AddressRange(flow.version, address, address), None))


# The rest


def untrack(target: Target, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
    if target.name == "NOTRACK" or "--notrack" in target:
        return go_on(flow._replace(tracked=False), "the connection is not tracked")
    return go_on(flow, "how the connection is tracked is set")


def queue(target: Target, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
    return queued(flow)


def queued(flow: Flow) -> list[Branch]:
    why = "a program outside of the kernel decides"
    return [
        Branch(ONE, flow, "accept", why=f"{why}; assumed: it accepts", doubt=why),
        Branch(ONE, flow, "drop", why=f"{why}; if it drops", doubt=why, default=False),
    ]


def not_known(name: str, flow: Flow) -> list[Branch]:
    why = f"the target {name} is not known here"
    return [
        Branch(ONE, flow, "next", why=f"{why}; assumed: the packet goes on", doubt=why),
        Branch(ONE, flow, "drop", why=f"{why}; if it drops", doubt=why, default=False),
        Branch(ONE, flow, "accept", why=f"{why}; if it accepts", doubt=why, default=False),
    ]


ACTS: dict[str, Act] = {
    "MARK": mark,
    "CONNMARK": connmark,
    "DNAT": dnat,
    "REDIRECT": redirect,
    "SNAT": snat,
    "MASQUERADE": masquerade,
    "NETMAP": netmap,
    "CT": untrack,
    "NOTRACK": untrack,
    "QUEUE": queue,
    "NFQUEUE": queue,
}
# These look at a packet, count it or change what no match here asks for; it goes on to the next rule.
PASSING = frozenset(
    {"LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "CHECKSUM", "TCPMSS", "TCPOPTSTRIP", "CLASSIFY", "DSCP", "TOS", "TTL", "HL", "ECN"}
    | {"SECMARK", "CONNSECMARK", "TEE", "IDLETIMER", "RATEEST", "LED", "SET"}
)
