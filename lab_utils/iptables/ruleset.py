"""The rules of a node: dumps of tables, tables of chains, chains of rules."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from lab_utils.errors import BadInput
from lab_utils.iptables.options import BUILT_IN, TARGETS
from lab_utils.iptables.rules import Rule
from lab_utils.iptables.services import Endpoint, Service, endpoints_of, find_services
from lab_utils.iptables.shape import SHAPE
from lab_utils.iptables.words import quote

FAMILY = re.compile(
    r"(?:-s|-d|--to-destination|--to-source|--to|--reject-with) \[?(?:(\d+\.\d+\.\d+\.\d+|icmp-)|([0-9a-fA-F]*:[0-9a-fA-F:]*|icmp6-))"
)


class Unknown(NamedTuple):
    """A part of a rule that this package keeps and prints, but cannot judge."""

    what: str
    rule: Rule


class Chain:
    """A chain keeps the text of its rules; `Rule` objects are made when they are looked at."""

    __slots__ = ("_counters", "_index", "_lines", "_made", "bytes", "line", "name", "packets", "policy", "specs", "table")

    def __init__(self, table: str, name: str, policy: str | None = None, line: int = 0) -> None:
        self.table = table
        self.name = name
        self.policy = policy
        self.line = line
        self.packets = 0
        self.bytes = 0
        self.specs: list[str] = []
        self._lines = array("L")
        # A large cluster has 20,000 chains, most with a rule or two that nobody looks at: what few need is made when needed.
        self._counters: dict[int, tuple[int, int]] | None = None
        self._made: dict[int, Rule] | None = None
        self._index: Index | None = None

    @property
    def built_in(self) -> bool:
        return self.name in BUILT_IN.get(self.table, ())

    def add(self, spec: str, line: int, counters: tuple[int, int] | None = None, at: int | None = None) -> None:
        if at is None or at >= len(self.specs):
            self.specs.append(spec)
            self._lines.append(line)
            if counters is not None:
                self._counters = self._counters or {}
                self._counters[len(self.specs) - 1] = counters
            return
        self.specs.insert(at, spec)
        self._lines.insert(at, line)
        self._counters = {(n if n < at else n + 1): both for n, both in (self._counters or {}).items()}
        if counters is not None:
            self._counters[at] = counters

    def remove(self, at: int) -> None:
        del self.specs[at]
        del self._lines[at]
        self._counters = {(n if n < at else n - 1): both for n, both in (self._counters or {}).items() if n != at}

    def clear(self) -> None:
        self.specs.clear()
        self._lines = array("L")
        self._counters = None

    def __len__(self) -> int:
        return len(self.specs)

    def __getitem__(self, place: int) -> Rule:
        if place < 0:
            place += len(self.specs)
        if self._made is None:
            self._made = {}
        rule = self._made.get(place)
        if rule is None:
            counters = self._counters.get(place) if self._counters else None
            rule = self._made[place] = Rule(self.table, self.name, self.specs[place], self._lines[place], counters)
        return rule

    def __iter__(self) -> Iterator[Rule]:
        for place in range(len(self.specs)):
            yield self[place]

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(self)

    def index(self) -> None:
        """File the rules of a long chain by the destination they name; else the first packet that comes along does it."""
        if self._index is None and len(self.specs) >= 32:
            self._index = Index(self.specs)

    def candidates(self, version: int, destination: str, dport: int | None) -> Iterator[int]:
        """Places of the rules that a packet to this destination may match; the others name another one."""
        if len(self.specs) < 32:
            return iter(range(len(self.specs)))
        self.index()
        assert self._index is not None
        return self._index.candidates(version, destination, dport)

    def __str__(self) -> str:
        return f":{quote(self.name) if ' ' in self.name else self.name} {self.policy or '-'} [{self.packets}:{self.bytes}]"

    def __repr__(self) -> str:
        return f"<Chain {self.table} {self.name}: {len(self)} rules>"


class Index:
    """Where in a long chain a destination is named.

    KUBE-SERVICES has a rule or two for each Service, and a packet concerns one of them. A rule that asks for
    exactly one destination address, or else for one destination port, is filed under it; all others may match anything.
    """

    __slots__ = ("by_address", "by_port", "general")

    def __init__(self, specs: list[str]) -> None:
        self.by_address: dict[str, list[int]] = {}
        self.by_port: dict[int, list[int]] = {}
        self.general: list[int] = []
        find = SHAPE.fullmatch
        for place, spec in enumerate(specs):
            found = find(" " + spec)
            address, port = found.group("d", "dport") if found else (None, None)
            if address and (address.endswith("/32") or "/" not in address):
                self.by_address.setdefault(address.removesuffix("/32"), []).append(place)
            elif port:
                self.by_port.setdefault(int(port), []).append(place)
            else:
                self.general.append(place)

    def candidates(self, version: int, destination: str, dport: int | None) -> Iterator[int]:
        named = self.by_address.get(destination, []) + self.general
        if dport is not None:
            named += self.by_port.get(dport, [])
        named.sort()
        return iter(named)


class Table:
    """One `*table … COMMIT` of a dump."""

    def __init__(self, name: str, line: int = 0, tool: str = "") -> None:
        self.name = name
        self.line = line
        self.tool = tool
        self.chains: dict[str, Chain] = {}
        self.counted = False
        self.odd: list[tuple[str, int]] = []

    @property
    def backend(self) -> str:
        """ "nf_tables", "legacy", or "" where the dump does not say."""
        return "legacy" if "(legacy)" in self.tool else "nf_tables" if "(nf_tables)" in self.tool else ""

    @cached_property
    def family(self) -> int:
        """4 or 6; 0 where neither the header nor any address says."""
        if "tables-save" in self.tool or "tables-nft-save" in self.tool or "tables-legacy-save" in self.tool:
            return 6 if "ip6tables" in self.tool else 4
        for chain in self.chains.values():
            for spec in chain.specs:
                if found := FAMILY.search(spec):
                    return 4 if found.group(1) else 6
        return 0

    def __getitem__(self, name: str) -> Chain:
        return self.chains[name]

    def __contains__(self, name: object) -> bool:
        return name in self.chains

    def __iter__(self) -> Iterator[Chain]:
        return iter(self.chains.values())

    @property
    def rules(self) -> Iterator[Rule]:
        for chain in self.chains.values():
            yield from chain

    def __len__(self) -> int:
        return sum(len(chain) for chain in self.chains.values())

    def __str__(self) -> str:
        lines = [f"# Generated by {self.tool}"] if self.tool else []
        lines.append(f"*{self.name}")
        lines += map(str, self.chains.values())
        for chain in self.chains.values():
            for rule in chain:
                counters = f"[{rule.counters[0]}:{rule.counters[1]}] " if rule.counters is not None else ""
                lines.append(f"{counters}{rule}")
        lines.append("COMMIT")
        return "\n".join(lines) + "\n"

    def __repr__(self) -> str:
        return f"<Table {self.name}: {len(self.chains)} chains, {len(self)} rules>"


class Ruleset:
    """All that a text of dumps says.

    `dumps` has every `*table` section in the order of the text. Where one family's table comes twice, the last one
    counts, as it would for iptables-restore; only a legacy and an nf_tables dump of one table stand side by side,
    since the kernel then runs both.
    """

    def __init__(self, dumps: list[Table]) -> None:
        self.dumps = dumps
        self.traced: Any = None  # the tracer's view of these rules, kept for its next packet

    @cached_property
    def in_effect(self) -> tuple[Table, ...]:
        names = [dump.name for dump in self.dumps]
        if len(set(names)) == len(names):
            return tuple(self.dumps)
        last: dict[tuple[str, int, str], Table] = {}
        for dump in self.dumps:
            last.pop((dump.name, dump.family, dump.backend), None)
            last[dump.name, dump.family, dump.backend] = dump
        return tuple(last.values())

    def tables_for(self, family: int, name: str) -> list[Table]:
        """The tables of that name that a packet of the family (4 or 6) meets."""
        return [table for table in self.in_effect if table.name == name and table.family in (family, 0)]

    @property
    def tables(self) -> Mapping[str, Table]:
        """Name → table. Of a text with both families, the IPv4 ones; see `tables_for`."""
        found: dict[str, Table] = {}
        for table in self.in_effect:
            if table.name not in found or (found[table.name].family == 6 and table.family != 6):
                found[table.name] = table
        return found

    def table(self, name: str) -> Table:
        try:
            return self.tables[name]
        except KeyError:
            raise BadInput(f"there is no table {name!r} here", f"It has {', '.join(self.tables) or 'none'}") from None

    def __getitem__(self, name: str) -> Table:
        return self.table(name)

    def __contains__(self, name: object) -> bool:
        return name in self.tables

    def chain(self, table: str, name: str) -> Chain:
        try:
            return self.table(table).chains[name]
        except KeyError:
            raise BadInput(f"there is no chain {name!r} in the table {table}") from None

    @property
    def chains(self) -> Iterator[Chain]:
        for table in self.in_effect:
            yield from table

    @property
    def rules(self) -> Iterator[Rule]:
        for table in self.in_effect:
            yield from table.rules

    def __len__(self) -> int:
        return sum(len(table) for table in self.in_effect)

    @cached_property
    def unknown(self) -> tuple[Unknown, ...]:
        """Every match, option and target that is not known here, and every jump to a chain that the text does not have."""
        found = []
        for table in self.in_effect:
            for chain in table:
                for spec, rule in zip(chain.specs, range(len(chain)), strict=True):
                    shaped = SHAPE.fullmatch(" " + spec)
                    if shaped is not None:
                        target = shaped.group("j")
                        if target is None or target in table.chains or target in TARGETS:
                            continue
                    found += [Unknown(what, chain[rule]) for what in _unknown(chain[rule], table)]
        return tuple(found)

    def index(self) -> Ruleset:
        """Make the indexes of long chains now; see `Chain.index`."""
        for chain in self.chains:
            chain.index()
        return self

    def jumps_to(self, name: str, table: str | None = None) -> list[Rule]:
        """The rules that jump or go to the chain."""
        return [
            rule
            for each in self.in_effect
            if table in (None, each.name)
            for chain in each
            for place, spec in enumerate(chain.specs)
            if name in spec and (rule := chain[place]).jump == name
        ]

    def jumps_from(self, table: str, name: str) -> list[str]:
        """The chains that the chain jumps to, each once, in the order of its rules."""
        home = self.table(table)
        return list(dict.fromkeys(rule.jump for rule in self.chain(table, name) if rule.jump is not None and rule.jump in home.chains))

    def cycles(self) -> list[tuple[str, tuple[str, ...]]]:
        """Chains that jump in a circle, each as (table, chains). The kernel refuses to load such rules."""
        return [(table.name, circle) for table in self.in_effect for circle in _circles(table)]

    # Services

    @cached_property
    def services(self) -> tuple[Service, ...]:
        """The Service ports that kube-proxy wrote rules for, in the order of the text."""
        return find_services(self)

    def service(self, name: str) -> Service:
        """The Service port of that name: `namespace/name:port`, or without what is not needed to tell it from others."""
        found = [s for s in self.services if name in (s.name, s.name.partition(":")[0], s.name.partition("/")[2], s.service, s.cluster_ip)]
        found = [s for s in found if s.name == name] or found
        if not found:
            raise BadInput(
                f"no rule here speaks of a Service {name!r}", "`kubectl get services -A` lists them; headless ones have no rules"
            )
        if len(found) > 1:
            raise BadInput(f"{name!r} has several ports: {', '.join(s.name for s in found)}", "Name one of them")
        return found[0]

    def endpoints(self, chain: str, table: str = "nat") -> tuple[Endpoint, ...]:
        """Where the chain leads, with the exact overall probability of each destination."""
        return endpoints_of(self.table(table), chain)

    def __str__(self) -> str:
        return "".join(map(str, self.dumps))

    def __repr__(self) -> str:
        return f"<Ruleset: {', '.join(table.name for table in self.in_effect)}; {len(self)} rules>"


def _unknown(rule: Rule, table: Table) -> list[str]:
    names = list(rule.unknown)
    if rule.jump is not None and rule.jump in table.chains and f"target {rule.jump}" in names:
        names.remove(f"target {rule.jump}")
    return names


def _circles(table: Table) -> Iterator[tuple[str, ...]]:
    """Depth first without recursion, since a hostile dump may nest thousands of chains."""
    done: set[str] = set()
    for start in table.chains:
        if start in done:
            continue
        path: list[str] = [start]
        inside = {start}
        ways = [iter(_targets(table, start))]
        while path:
            onward = next(ways[-1], None)
            if onward is None:
                ways.pop()
                inside.discard(path[-1])
                done.add(path.pop())
            elif onward in inside:
                yield tuple(path[path.index(onward) :])
            elif onward not in done:
                path.append(onward)
                inside.add(onward)
                ways.append(iter(_targets(table, onward)))


def _targets(table: Table, name: str) -> list[str]:
    targets = []
    for place, spec in enumerate(table.chains[name].specs):
        shaped = SHAPE.fullmatch(" " + spec)
        target = shaped.group("j") if shaped is not None else table.chains[name][place].jump
        if target is not None and target in table.chains:
            targets.append(target)
    return targets
