"""From the words of a rule to its matches and its target.

`parse_spec` reads what `iptables` itself would take. Nearly all rules of a dump are in the order that iptables-save prints, and a
short loop reads those; `PatientReader` reads any order, and says what is wrong with a rule that cannot be right.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from lab_utils.iptables.options import ALIASES, BASICS, IMPLIED, MATCHES, TARGETS, VERDICTS, Known
from lab_utils.iptables.parts import Match, Option, Parsed, Target


class PatientReader:
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


@lru_cache(maxsize=4096)
def option_of(known: Known, name: str, word: str, negated: bool) -> Option:
    """`-p tcp`, `--dport 80` and the like stand in thousands of rules; they are read once."""
    return Option(name, (word,), negated, known.read(word))


def parse_spec(words: list[str]) -> Parsed:
    """The matches and the target that the words after `-A CHAIN` say. What cannot be right is a ValueError."""
    return plainly(words) or PatientReader(words).read()


def plainly(words: list[str]) -> Parsed | None:
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
                into.append(option_of(known, word, value, negated))
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
