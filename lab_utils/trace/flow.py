"""What the engine carries along: the packet's state, what is known around it, and what a rule makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, Literal, NamedTuple, Protocol

from lab_utils.errors import BadInput
from lab_utils.iptables.values import FULL, PROTOCOLS, network, read_address, show_address
from lab_utils.trace.packet import Packet

Origin = Literal["external", "pod", "local"]
ONE = Fraction(1)


class Flow(NamedTuple):
    """The packet as it is at one place of its way. Equal flows have equal futures, so they can be merged."""

    version: int
    protocol: int
    src: int
    dst: int
    sport: int | None
    dport: int | None
    mark: int
    ctmark: int
    state: str  # as conntrack sees it; before conntrack it is INVALID, as for the kernel's matches
    in_interface: str | None  # None: not known; "": there is none at this hook
    out_interface: str | None
    first: tuple[int, int, int | None, int | None]  # src, dst, sport, dport before any rewriting
    tracked: bool = True
    rewritten: bool = False
    ct_dnat: bool = False
    ct_snat: bool = False
    masquerade: bool = False
    source: str | None = None
    dst_settled: bool = False  # nat has decided about the destination; it does so once
    src_settled: bool = False
    seen: frozenset[tuple[str, Any]] = frozenset()  # what `recent --set` and nft's `update @set` added

    @property
    def destination(self) -> str:
        return endpoint(self.version, self.dst, self.dport)


class Branch(NamedTuple):
    """One way on from a rule."""

    weight: Fraction
    flow: Flow
    action: Literal["next", "accept", "drop", "reject", "return", "jump", "goto"]
    chain: str = ""
    why: str = ""
    matched: bool = True
    doubt: str = ""  # what is not known; then one branch is the default and the others are what-ifs
    default: bool = True
    near: int = 0  # how many of the rule's conditions failed


class ChainView(Protocol):
    """A chain of either language, as the engine walks it."""

    @property
    def table(self) -> str: ...
    @property
    def name(self) -> str: ...
    def __len__(self) -> int: ...
    def candidates(self, flow: Flow) -> Iterator[int]: ...
    def consider(self, place: int, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
        """The ways on from a rule. None at all: the rule does not match, and nobody asked why."""
        ...

    def text(self, place: int) -> tuple[str, int]: ...
    def chain(self, name: str) -> ChainView | None: ...


class Layer(NamedTuple):
    """A base chain at a hook. `kind` is "nat" for chains that see only a connection's first packet."""

    priority: int
    kind: str
    chain: ChainView
    policy: str


class Program(Protocol):
    """A set of rules, of iptables or of nft."""

    def layers(self, hook: str, version: int) -> list[Layer]: ...
    def remarks(self, version: int) -> list[str]: ...
    def without_iptables(self) -> Program: ...


def endpoint(version: int, address: int, port: int | None) -> str:
    shown = show_address(version, address)
    if port is None:
        return shown
    return f"[{shown}]:{port}" if version == 6 else f"{shown}:{port}"


class Surroundings:
    """What is known of the node and not in the rules."""

    def __init__(
        self,
        packet: Packet,
        local_addresses: Iterable[str] | Mapping[str, Iterable[str]],
        origin: Origin,
        sets: Mapping[str, Iterable[str]] | None,
        recent: Mapping[str, Iterable[str] | Mapping[str, float]] | None,
        routes: Mapping[str, str] | None,
        explain: bool,
    ) -> None:
        if origin not in ("external", "pod", "local"):
            raise BadInput(f"the origin {origin!r} is not known", "It is external, pod or local")
        if isinstance(local_addresses, str):
            raise BadInput("local_addresses is one word; a list of addresses is needed")
        self.packet = packet
        self.origin = origin
        self.explain = explain
        self.by_interface: dict[str, list[tuple[int, int]]] = {}
        self.local: set[tuple[int, int]] = set()
        pairs = (
            [(name, address) for name, listed in local_addresses.items() for address in listed]
            if isinstance(local_addresses, Mapping)
            else [(address.partition("%")[2], address) for address in local_addresses]
        )
        self.interfaces_known = isinstance(local_addresses, Mapping)
        for name, said in pairs:
            try:
                address = read_address(said.partition("%")[0].partition("/")[0])
            except ValueError as error:
                raise BadInput(f"a local address: {error}") from None
            self.local.add(address)
            self.by_interface.setdefault(name, []).append(address)
        self.sets = {name: list(entries) for name, entries in sets.items()} if sets is not None else None
        self.recent: dict[str, dict[int, float]] = {}
        for name, seen in (recent or {}).items():
            ages = seen.items() if isinstance(seen, Mapping) else ((address, 0.0) for address in seen)
            self.recent[name] = {read_address(address)[1]: age for address, age in ages}
        try:
            self.routes = sorted(
                ((network("0.0.0.0/0" if to == "default" else to), device) for to, device in (routes or {}).items()),
                key=lambda route: -route[0].mask.bit_count(),
            )
        except ValueError as error:
            raise BadInput(f"a route: {error}") from None
        self.cache: dict[object, object] = {}

    def is_local(self, version: int, address: int) -> bool:
        if version == 4:
            return address >> 24 == 127 or (4, address) in self.local
        return address == 1 or (6, address) in self.local

    def out_interface(self, version: int, address: int) -> str | None:
        """The device a packet leaves by, where it is known."""
        if self.packet.out_interface is not None:
            return self.packet.out_interface
        for net, device in self.routes:
            if net.holds(version, address) or (version == 6 and net.mask == 0):
                return device
        return None

    def first_flow(self) -> Flow:
        packet = self.packet
        version, src = read_address(packet.src)
        dst = read_address(packet.dst)[1]
        protocol = PROTOCOLS.get(packet.protocol)
        number = int(packet.protocol) if protocol is None else protocol
        number = 58 if number == 1 and version == 6 else number
        return Flow(
            version=version,
            protocol=number,
            src=src,
            dst=dst,
            sport=packet.sport,
            dport=packet.dport,
            mark=packet.mark & FULL,
            ctmark=packet.connmark & FULL,
            state="INVALID",
            in_interface="" if self.origin == "local" else packet.in_interface,
            out_interface="",
            first=(src, dst, packet.sport, packet.dport),
        )
