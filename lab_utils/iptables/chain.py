"""A chain, and where in it a packet has to look."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from lab_utils.iptables.options import BUILT_IN
from lab_utils.iptables.rules import Rule
from lab_utils.iptables.shape import SHAPE
from lab_utils.iptables.words import as_word


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
        return f":{as_word(self.name)} {self.policy or '-'} [{self.packets}:{self.bytes}]"

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
