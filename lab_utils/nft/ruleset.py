"""The ruleset of nft, and its chains as the tracing engine walks them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from lab_utils.errors import BadInput
from lab_utils.iptables.options import BUILT_IN
from lab_utils.nft import text
from lab_utils.nft.run import DECIDED, Run, xt_doubt
from lab_utils.nft.values import Lookup, declared_kind
from lab_utils.trace.flow import ONE, Branch, Flow, Layer, Surroundings

HOOKS = {"prerouting", "input", "forward", "output", "postrouting"}
ODD = (KeyError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError, RecursionError)  # what a hostile file may cause


class Unknown(NamedTuple):
    """A part of a rule that this package keeps and prints, but cannot judge."""

    what: str
    rule: NftRule


class NftRule:
    __slots__ = ("_text", "comment", "handle", "statements")

    def __init__(self, statements: list[Any], handle: int, comment: str) -> None:
        self.statements = statements
        self.handle = handle
        self.comment = comment
        self._text = ""

    def __str__(self) -> str:
        if not self._text:
            try:
                self._text = " ".join(text.statement(each) for each in self.statements)
            except ODD:
                self._text = json.dumps(self.statements)
            self._text += f' comment "{self.comment}"' if self.comment else ""
        return self._text

    @property
    def unknown(self) -> tuple[str, ...]:
        """Statements that this package keeps and prints, but cannot judge."""
        kinds = [(kind, value) for each in self.statements for kind, value in each.items()]
        odd = [xt_doubt(value) if kind == "xt" else f"statement {kind}" for kind, value in kinds if kind not in DECIDED]
        return tuple(what for what in odd if what)

    def __repr__(self) -> str:
        return f"<NftRule {self}>"


class NftTable:
    def __init__(self, family: str, name: str) -> None:
        self.family = family
        self.name = name
        self.chains: dict[str, NftChain] = {}
        self.sets: dict[str, dict[str, Any]] = {}
        self._lookups: dict[str, Lookup] = {}

    def lookup(self, name: str) -> Lookup:
        found = self._lookups.get(name)
        if found is None:
            if name not in self.sets:
                raise BadInput(f"the table {self.name} has no set or map {name!r}")
            said = self.sets[name]
            found = self._lookups[name] = Lookup(declared_kind(said.get("type"), name), said.get("elem") or [], "map" in said)
        return found


class NftChain:
    """One chain. `hook` is "" for those that are only jumped to."""

    def __init__(self, home: NftTable, name: str, hook: str, kind: str, priority: int, policy: str) -> None:
        self.home = home
        self.name = name
        self.hook = hook
        self.kind = kind
        self.priority = priority
        self.policy = policy
        self.rules: list[NftRule] = []

    @property
    def table(self) -> str:
        return f"{self.home.family} {self.home.name}"

    def __len__(self) -> int:
        return len(self.rules)

    def __iter__(self) -> Iterator[NftRule]:
        return iter(self.rules)

    def candidates(self, flow: Flow) -> Iterator[int]:
        return iter(range(len(self.rules)))

    def text(self, place: int) -> tuple[str, int]:
        rule = self.rules[place]
        return str(rule), rule.handle

    def chain(self, name: str) -> NftChain | None:
        return self.home.chains.get(name)

    def consider(self, place: int, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
        try:
            return Run(self, place, hook, around).go(0, ONE, flow, ())
        except BadInput:
            raise
        except ODD as error:
            where = f"the rule with handle {self.rules[place].handle} of the chain {self.name}"
            raise BadInput(f"{where} is not of a form that nft prints ({type(error).__name__}: {error})") from None

    def __repr__(self) -> str:
        return f"<NftChain {self.table} {self.name}: {len(self)} rules>"


class NftRuleset:
    """All tables of `nft -j list ruleset`. `trace` takes it as it takes a `Ruleset` of iptables."""

    def __init__(self, tables: list[NftTable]) -> None:
        self.tables = tables

    def table(self, name: str, family: str | None = None) -> NftTable:
        for table in self.tables:
            if table.name == name and family in (None, table.family):
                return table
        raise BadInput(f"there is no table {name!r} here", f"It has {', '.join(t.name for t in self.tables) or 'none'}")

    @property
    def chains(self) -> Iterator[NftChain]:
        for table in self.tables:
            yield from table.chains.values()

    @property
    def unknown(self) -> tuple[Unknown, ...]:
        """Every statement that is not known here, with the rule that has it."""
        return tuple(Unknown(what, rule) for chain in self.chains for rule in chain for what in rule.unknown)

    def _of(self, version: int) -> Iterator[NftTable]:
        wanted = ("inet", "ip" if version == 4 else "ip6")
        return (table for table in self.tables if table.family in wanted)

    def layers(self, hook: str, version: int) -> list[Layer]:
        found = [
            Layer(chain.priority, chain.kind, chain, chain.policy.upper())
            for table in self._of(version)
            for chain in table.chains.values()
            if chain.hook == hook.lower()
        ]
        return sorted(found, key=lambda layer: layer.priority)

    def without_iptables(self) -> NftRuleset:
        """Without the tables that belong to iptables-nft: what they ask for is better told by iptables-save."""
        own = [t for t in self.tables if not (t.family in ("ip", "ip6") and t.name in BUILT_IN and set(t.chains) & set(BUILT_IN[t.name]))]
        return NftRuleset(own)

    def remarks(self, version: int) -> list[str]:
        families = {table.family for table in self.tables if table.chains}
        if families & {"ip", "ip6"} and not families & {"inet", "ip" if version == 4 else "ip6"}:
            return [f"The rules are for the families {', '.join(sorted(families))}; nothing is known about IPv{version}"]
        return []

    def __repr__(self) -> str:
        return f"<NftRuleset: {', '.join(f'{t.family} {t.name}' for t in self.tables)}>"
