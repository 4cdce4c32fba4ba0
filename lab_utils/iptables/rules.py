"""One rule: its matches, in the order written, and its target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lab_utils.iptables.options import TARGETS
from lab_utils.iptables.parts import Match, Option, Parsed, Target
from lab_utils.iptables.spec import parse_spec
from lab_utils.iptables.values import Masked, Network, Place, Range
from lab_utils.iptables.words import as_word, split_words


class Rule:
    """A rule where it stands: table, chain and line. What it says is read when it is first asked for.

    A dump of a large cluster has 50,000 rules, of which a packet meets some thirty; this keeps
    the text and reads it late. Text that cannot be a rule was refused by `parse` already.
    """

    __slots__ = ("_parsed", "chain", "counters", "line", "plan", "spec", "table")

    def __init__(self, table: str, chain: str, spec: str, line: int = 0, counters: tuple[int, int] | None = None) -> None:
        self.table = table
        self.chain = chain
        self.spec = spec
        self.line = line
        self.counters = counters
        self._parsed: Parsed | None = None
        self.plan: Any = None  # what a tracer has worked out about the rule, kept for its next packet

    @property
    def parsed(self) -> Parsed:
        if self._parsed is None:
            self._parsed = parse_spec(split_words(self.spec))
        return self._parsed

    @property
    def matches(self) -> tuple[Match, ...]:
        return self.parsed.matches

    @property
    def target(self) -> Target | None:
        return self.parsed.target

    def options(self, name: str) -> Iterator[Option]:
        for match in self.matches:
            for option in match.options:
                if option.name == name:
                    yield option

    def option(self, name: str) -> Option | None:
        """The first match option of that name, such as `--dport` or `-d`."""
        return next(self.options(name), None)

    def match(self, module: str) -> Match | None:
        return next((match for match in self.matches if match.module == module), None)

    def _value(self, name: str) -> Any:
        option = self.option(name)
        return option.value if option is not None and not option.negated else None

    @property
    def source(self) -> Network | None:
        value: Network | None = self._value("-s")
        return value

    @property
    def destination(self) -> Network | None:
        value: Network | None = self._value("-d")
        return value

    @property
    def protocol(self) -> str | None:
        option = self.option("-p")
        return option.words[0] if option is not None and not option.negated else None

    @property
    def dport(self) -> Range | None:
        value: tuple[Range, ...] | None = self._value("--dport")
        return value[0] if value else None

    @property
    def comment(self) -> str:
        value: str | None = self._value("--comment")
        return value or ""

    @property
    def mark(self) -> Masked | None:
        value: Masked | None = self._value("--mark")
        return value

    @property
    def jump(self) -> str | None:
        """The target's name, of -j and of -g alike."""
        return self.target.name if self.target is not None else None

    @property
    def to_destination(self) -> Place | None:
        option = self.target.get("--to-destination") if self.target is not None else None
        value: Place | None = option.value if option is not None else None
        return value

    @property
    def unknown(self) -> tuple[str, ...]:
        """Matches, options and targets that this package does not know; a target may also be a chain, which is for the table to say."""
        names = [f"match {m.module}" for m in self.matches if not m.known]
        names += [f"option {o.name} of {m.module or 'no match'}" for m in self.matches if m.known for o in m.options if not o.known]
        if self.target is not None:
            if self.target.name not in TARGETS:
                names.append(f"target {self.target.name}")
            else:
                names += [f"option {o.name} of {self.target.name}" for o in self.target.options if not o.known]
        return tuple(names)

    def __str__(self) -> str:
        return f"-A {as_word(self.chain)} {self.spec}" if self.spec else f"-A {as_word(self.chain)}"

    def __repr__(self) -> str:
        return f"<Rule {self.table} line {self.line}: {self}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rule):
            return NotImplemented
        return (self.table, self.chain, self.parsed) == (other.table, other.chain, other.parsed)

    def __hash__(self) -> int:
        return hash((self.table, self.chain, self.spec))
