"""What rules are made of: options, and the matches and targets that have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lab_utils.iptables.words import as_word


@dataclass(slots=True, unsafe_hash=True)
class Option:
    """One option as written (`words`), and what it says (`value`, typed; see `values`). Options that say the same are equal."""

    name: str
    words: tuple[str, ...] = field(default=(), compare=False)
    negated: bool = False
    value: Any = True
    known: bool = True

    def __str__(self) -> str:
        said = " ".join((self.name, *map(as_word, self.words)))
        return f"! {said}" if self.negated else said


class Optioned:
    """What has options."""

    __slots__ = ()
    options: tuple[Option, ...]

    def get(self, name: str) -> Option | None:
        for option in self.options:
            if option.name == name:
                return option
        return None

    def __contains__(self, name: object) -> bool:
        return any(option.name == name for option in self.options)


@dataclass(slots=True, unsafe_hash=True)
class Match(Optioned):
    """One `-m module` with its options; `module` is "" for the options that need none (-s -d -p -i -o)."""

    module: str
    options: tuple[Option, ...] = ()
    known: bool = True

    def __str__(self) -> str:
        said = [f"-m {as_word(self.module)}"] if self.module else []
        return " ".join([*said, *map(str, self.options)])


@dataclass(slots=True, unsafe_hash=True)
class Target(Optioned):
    """What happens to a packet that matches: a verdict, an extension such as DNAT, or another chain."""

    name: str
    options: tuple[Option, ...] = ()
    goto: bool = False

    def __str__(self) -> str:
        return " ".join([f"{'-g' if self.goto else '-j'} {as_word(self.name)}", *map(str, self.options)])


@dataclass(slots=True)
class Parsed:
    """What the text of a rule says."""

    matches: tuple[Match, ...]
    target: Target | None
    counters: tuple[int, int] | None = None
    known: bool = field(default=False, compare=False)  # whether every match and option is sure to be
