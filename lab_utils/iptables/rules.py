"""One rule: its matches, in the order written, and its target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lab_utils.iptables.options import ALIASES, BASICS, IMPLIED, MATCHES, TARGETS, VERDICTS, Known
from lab_utils.iptables.values import Masked, Network, Place, Range
from lab_utils.iptables.words import quote, split_words


@dataclass(slots=True, unsafe_hash=True)
class Option:
    """One option as written (`words`), and what it says (`value`, typed; see `values`). Options that say the same are equal."""

    name: str
    words: tuple[str, ...] = field(default=(), compare=False)
    negated: bool = False
    value: Any = True
    known: bool = True

    def __str__(self) -> str:
        said = " ".join((self.name, *(quote(word) if _needs_quotes(word) else word for word in self.words)))
        return f"! {said}" if self.negated else said


@dataclass(slots=True, unsafe_hash=True)
class Match:
    """One `-m module` with its options; `module` is "" for the options that need none (-s -d -p -i -o)."""

    module: str
    options: tuple[Option, ...] = ()
    known: bool = True

    def get(self, name: str) -> Option | None:
        for option in self.options:
            if option.name == name:
                return option
        return None

    def __contains__(self, name: object) -> bool:
        return any(option.name == name for option in self.options)

    def __str__(self) -> str:
        said = [f"-m {quote(self.module) if _needs_quotes(self.module) else self.module}"] if self.module else []
        return " ".join([*said, *(str(option) for option in self.options)])


@dataclass(slots=True, unsafe_hash=True)
class Target:
    """What happens to a packet that matches: a verdict, an extension such as DNAT, or another chain."""

    name: str
    options: tuple[Option, ...] = ()
    goto: bool = False

    def get(self, name: str) -> Option | None:
        for option in self.options:
            if option.name == name:
                return option
        return None

    def __contains__(self, name: object) -> bool:
        return any(option.name == name for option in self.options)

    def __str__(self) -> str:
        name = quote(self.name) if _needs_quotes(self.name) else self.name
        return " ".join([f"{'-g' if self.goto else '-j'} {name}", *(str(option) for option in self.options)])


@dataclass(slots=True)
class Parsed:
    matches: tuple[Match, ...]
    target: Target | None
    counters: tuple[int, int] | None = None
    known: bool = field(default=False, compare=False)  # whether every match and option is sure to be


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
        chain = quote(self.chain) if _needs_quotes(self.chain) else self.chain
        return f"-A {chain} {self.spec}" if self.spec else f"-A {chain}"

    def __repr__(self) -> str:
        return f"<Rule {self.table} line {self.line}: {self}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rule):
            return NotImplemented
        return (self.table, self.chain, self.parsed) == (other.table, other.chain, other.parsed)

    def __hash__(self) -> int:
        return hash((self.table, self.chain, self.spec))


def _needs_quotes(word: str) -> bool:
    return not word or " " in word or '"' in word or "\t" in word


class _Reader:
    """Walks over the words of one rule."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.place = 0
        self.matches: list[tuple[str, list[Option], bool]] = [("", [], True)]
        self.target: str | None = None
        self.goto = False
        self.target_options: list[Option] = []
        self.counters: tuple[int, int] | None = None

    def read(self) -> Parsed:
        while self.place < len(self.words):
            self._one()
        matches = tuple(Match(module, tuple(options), known) for module, options, known in self.matches if module or options)
        target = Target(self.target, tuple(self.target_options), self.goto) if self.target is not None else None
        return Parsed(matches, target, self.counters)

    def _take(self, after: str) -> str:
        if self.place >= len(self.words):
            raise ValueError(f"{after} needs a value, and the line ends")
        word = self.words[self.place]
        self.place += 1
        return word

    def _one(self) -> None:
        word = self._take("")
        negated = word == "!"
        if negated:
            word = self._take("!")
        if not word.startswith("-") or word == "-":
            raise ValueError(f"{word!r} stands where an option should")
        word = self._unglue(word)
        name = ALIASES.get(word, word)
        if name == "-m":
            self._refuse(negated, name)
            module = self._take("-m")
            self.matches.append((module, [], module in MATCHES))
        elif name in ("-j", "-g"):
            self._refuse(negated, name)
            if self.target is not None:
                raise ValueError(f"a rule has one target; this one has {self.target} and more")
            self.target, self.goto = self._take(name), name == "-g"
        elif name == "-c":
            self._refuse(negated, name)
            packets, seen = self._take(name), self._take(name)
            if not (packets.isdecimal() and seen.isdecimal()):
                raise ValueError("-c needs two numbers, packets and bytes")
            self.counters = int(packets), int(seen)
        elif name in ("-4", "-6", "--ipv4", "--ipv6"):
            self._refuse(negated, name)
        elif name in ("-t", "--table"):
            raise ValueError("-t has no place here; a line `*table` before the rules says the table")
        else:
            self._option(name, negated)

    def _refuse(self, negated: bool, name: str) -> None:
        if negated:
            raise ValueError(f"`!` cannot stand before {name}")

    def _unglue(self, word: str) -> str:
        """`--dport=80` and `-s10.0.0.1` are two words each, as getopt_long(3) has it."""
        if word.startswith("--") and "=" in word:
            word, _, value = word.partition("=")
            self.words.insert(self.place, value)
        elif not word.startswith("--") and len(word) > 2 and word[:2] in ("-s", "-d", "-p", "-i", "-o", "-j", "-g", "-m"):
            self.words.insert(self.place, word[2:])
            word = word[:2]
        return word

    def _option(self, name: str, negated: bool) -> None:
        known, home = self._owner(name)
        if self.place < len(self.words) and self.words[self.place] == "!" and (known is None or known.words):
            if negated:
                raise ValueError(f"{name} is negated twice")
            negated = True
            self.place += 1
        if known is None:
            taken = []
            while self.place < len(self.words) and not self.words[self.place].startswith("-") and self.words[self.place] != "!":
                taken.append(self._take(name))
            home.append(Option(name, tuple(taken), negated, tuple(taken), known=False))
            return
        words = [self._take(name) for _ in range(known.words)]
        if name == "--comment":
            words = [" ".join([*words, *self._loose_words()])]
        try:
            value = known.read(*words)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if home is self.matches[0][1] and any(option.name == name for option in home):
            raise ValueError(f"{name} is given twice")
        home.append(Option(name, tuple(words), negated, value))
        if name == "-p" and value == 0 and negated:
            raise ValueError("`! -p all` would match nothing")

    def _loose_words(self) -> Iterator[str]:
        """kube-proxy's own fake prints comments without their quotes. What cannot be an option still belongs to the comment."""
        while self.place < len(self.words) and not self.words[self.place].startswith("-") and self.words[self.place] != "!":
            yield self._take("--comment")

    def _owner(self, name: str) -> tuple[Known | None, list[Option]]:
        """What is known of the option, and the match or target that it belongs to: the last one loaded that has it."""
        if name in BASICS:
            return BASICS[name], self.matches[0][1]
        if self.target is not None and name in TARGETS.get(self.target, {}):
            return TARGETS[self.target][name], self.target_options
        for module, options, known in reversed(self.matches):
            if known and module and name in MATCHES[module]:
                return MATCHES[module][name], options
        protocol = next((o.value for o in self.matches[0][1] if o.name == "-p" and not o.negated), None)
        for module in IMPLIED.get(protocol, ()) if protocol is not None else ():
            if name in MATCHES.get(module, {}):
                self.matches.append((module, [], True))
                return MATCHES[module][name], self.matches[-1][1]
        if self.target is not None and self.target not in VERDICTS:
            return None, self.target_options
        for _, options, known in reversed(self.matches):
            if not known:
                return None, options
        if len(self.matches) > 1 and self.target is None:
            return None, self.matches[-1][1]
        raise ValueError(f"{name} belongs to no match of this rule; is a `-p tcp` or an `-m` missing before it?")


def parse_spec(words: list[str]) -> Parsed:
    """The matches and the target that the words after `-A CHAIN` say. What cannot be right is a ValueError."""
    return _plainly(words) or _Reader(words).read()


def _plainly(words: list[str]) -> Parsed | None:
    """A rule as iptables-save prints most: each option right after its `-m` or `-j`. None leaves it to the patient way."""
    basic: list[Option] = []
    matches = [Match("")]
    target: Target | None = None
    home: dict[str, Known] = {}
    options: list[Option] = basic
    place, end = 0, len(words)
    try:
        while place < end:
            word = words[place]
            negated = word == "!"
            if negated:
                place += 1
                word = words[place]
            known = BASICS.get(word)
            if known is not None:
                if any(option.name == word for option in basic):
                    return None
                into = basic
            elif word == "-m" or word == "-j":
                name = words[place + 1]
                if negated or target is not None or name[:1] == "-":
                    return None
                options = []
                if word == "-m":
                    if name not in MATCHES:
                        return None
                    home = MATCHES[name]
                    matches.append(Match(name, options))  # type: ignore[arg-type]
                else:
                    home = TARGETS.get(name, {})
                    target = Target(name, options)  # type: ignore[arg-type]
                place += 2
                continue
            else:
                known = home.get(word)
                into = options
                if known is None:
                    return None
            place += 1 + known.words
            if known.words == 1:
                value = words[place - 1]
                if value == "!" or (word == "--comment" and place < end and words[place][:1] not in "-!"):
                    return None
                into.append(Option(word, (value,), negated, known.read(value)))
            elif known.words == 0:
                into.append(Option(word, (), negated))
            else:
                taken = tuple(words[place - known.words : place])
                if taken[0] == "!":
                    return None
                into.append(Option(word, taken, negated, known.read(*taken)))
    except (IndexError, ValueError, TypeError):
        return None  # the patient way says what is wrong
    if place > end:
        return None
    matches[0].options = tuple(basic)
    for match in matches:
        match.options = tuple(match.options)
    if target is not None:
        target.options = tuple(target.options)
    return Parsed(tuple(matches if basic else matches[1:]), target, None, True)
