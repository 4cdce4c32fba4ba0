"""What the way of a packet is made of.

hop    one thing that happens to the packet at one device, with the line (route, ARP, FDB, rule) that made it happen
way    all hops to one destination, with the probability that a new connection takes it
path   all ways from a source to a target; more than one if the target is a Service
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab_utils.trace import Step


@dataclass(frozen=True)
class Hop:
    """One step. `kind` is send, cable, bridge, route, rules, wrap, wire, unwrap, arrive, leave or lost."""

    kind: str
    node: str
    namespace: str
    device: str
    what: str
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Way:
    destination: str
    probability: Fraction
    hops: tuple[Hop, ...]
    pod: str = ""
    masquerade: bool = False

    @property
    def arrived(self) -> bool:
        return bool(self.hops) and self.hops[-1].kind == "arrive"


@dataclass(frozen=True)
class Path:
    source: str
    target: str
    ways: tuple[Way, ...]

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The hops of the only way, or of the first one."""
        return self.ways[0].hops if self.ways else ()

    @property
    def arrived(self) -> bool:
        return bool(self.ways) and all(way.arrived for way in self.ways)

    def __str__(self) -> str:
        lines = [f"{self.source} → {self.target}"]
        for way in self.ways:
            share = "" if len(self.ways) == 1 else f"  probability {way.probability}"
            lines.append(f"to {way.destination}{f' ({way.pod})' if way.pod else ''}{share}")
            for number, hop in enumerate(way.hops, 1):
                lines.append(f"  {number:2}. {hop.namespace or 'outside'} {hop.device}: {hop.what}")
                lines += [f"        {reason}" for reason in hop.why]
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": str(self)}


@dataclass(frozen=True)
class Flight:
    """A packet under way, and what it has been through."""

    src: str
    dst: str
    dport: int | None
    protocol: str
    hops: tuple[Hop, ...] = ()
    probability: Fraction = Fraction(1)
    masquerade: bool = False
    judged: tuple[tuple[str, str, str], ...] = ()  # node, source, destination: its rules have had their say
    inner: Flight | None = None  # what it carries, if it is a tunnel's outer packet
    tunnel: str = ""  # "vxlan 1": who unwraps it
    visited: tuple[tuple[str, str], ...] = ()

    def marked(self, node: str) -> tuple[str, str, str]:
        return node, self.src, address_of(self)

    def hop(self, hop: Hop) -> Flight:
        return replace(self, hops=(*self.hops, hop))


def address_of(flight: Flight) -> str:
    if flight.dport is None:
        return flight.dst
    return f"[{flight.dst}]:{flight.dport}" if ":" in flight.dst else f"{flight.dst}:{flight.dport}"


def split_address(address: str) -> tuple[str, int | None]:
    """ "10.0.0.1:80", "[fd00::1]:80" or an address alone."""
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        return host, int(port[1:]) if port[1:] else None
    if address.count(":") == 1:
        host, _, port = address.partition(":")
        return host, int(port)
    return address, None


def rules_of(steps: Iterable[Step]) -> tuple[str, ...]:
    """The rules that led to an end: the chains in their order, then the deciding rule in full."""
    matched = [step for step in steps if step.matched and step.chain]
    rewriting = ("DNAT", "REDIRECT", "dnat", "redirect")
    decided = [step for step in matched if step.action in ("drop", "reject") or any(word in step.rule for word in rewriting)]
    if not decided:
        return ()
    last = decided[-1]
    chains: list[str] = []
    for step in matched[: matched.index(last) + 1]:
        if (step.hook, step.table) == (last.hook, last.table) and step.chain not in chains and step.chain != "KUBE-MARK-MASQ":
            chains.append(step.chain)
    return (f"{last.hook}, table {last.table}: {' → '.join(chains)}", last.rule)
