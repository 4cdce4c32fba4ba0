"""A `Ruleset` of iptables as the engine walks it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

from lab_utils.iptables.chain import Chain
from lab_utils.iptables.parts import Match
from lab_utils.iptables.probability import exact
from lab_utils.iptables.rules import Rule
from lab_utils.iptables.ruleset import Ruleset, Table
from lab_utils.iptables.values import network, show_address
from lab_utils.trace import targets
from lab_utils.trace.answers import Judge
from lab_utils.trace.flow import ONE, Branch, Flow, Layer, Surroundings
from lab_utils.trace.matches import JUDGES, NOT_HERE, TRANSPORTS

# include/uapi/linux/netfilter_ipv4.h: the order of the tables at each hook.
ORDER = {
    "PREROUTING": (("raw", -300), ("mangle", -150), ("nat", -100)),
    "INPUT": (("mangle", -150), ("filter", 0), ("security", 50), ("nat", 100)),
    "FORWARD": (("mangle", -150), ("filter", 0), ("security", 50)),
    "OUTPUT": (("raw", -300), ("mangle", -150), ("nat", -100), ("filter", 0), ("security", 50)),
    "POSTROUTING": (("mangle", -150), ("nat", 100)),
}


class IptablesProgram:
    def __init__(self, ruleset: Ruleset) -> None:
        self.ruleset = ruleset
        self._layers: dict[tuple[str, int], list[Layer]] = {}
        self._families = {table.family for table in ruleset.in_effect}

    def layers(self, hook: str, version: int) -> list[Layer]:
        found = self._layers.get((hook, version))
        if found is None:
            found = self._layers[hook, version] = []
            for name, priority in ORDER[hook]:
                for table in self.ruleset.tables_for(version, name):
                    if (chain := table.chains.get(hook)) is not None:
                        kind = "nat" if name == "nat" else "filter"
                        found.append(Layer(priority, kind, View(table, chain), chain.policy or "ACCEPT"))
        return found

    def without_iptables(self) -> IptablesProgram:
        return self  # what iptables-save tells of them is the better telling

    def remarks(self, version: int) -> list[str]:
        if self._families and version not in self._families and 0 not in self._families:
            return [f"The rules are for IPv{min(self._families)}; nothing is known about IPv{version}, which has rules of its own"]
        return []


class Plan:
    """What a rule comes to, worked out once: who judges which match, the chance that it takes, and its target."""

    __slots__ = ("act", "action", "chance", "judges", "plain", "target")

    def __init__(self, rule: Rule, table: Table, remaining: int) -> None:
        self.judges: list[tuple[Judge, Match]] = []
        self.chance = ONE
        parsed = rule.parsed
        for match in parsed.matches:
            if not parsed.known and any(not option.known for option in match.options):
                self.judges.append((NOT_HERE, match))
            elif match.module == "statistic":
                self.chance *= _chance(match, remaining)
            elif match.module not in ("comment", "nfacct") and (match.options or match.module not in TRANSPORTS):
                self.judges.append((JUDGES.get(match.module, NOT_HERE), match))
        self.chance = ONE if self.chance == 1 else self.chance
        self.target = target = parsed.target
        self.plain = "it matches" if parsed.matches else "it matches every packet"
        self.act: targets.Act | None = None
        self.action = ""
        if target is None:
            self.action = "next"
        elif target.name in table.chains:
            self.action = "goto" if target.goto else "jump"
        elif target.name in ("ACCEPT", "DROP", "REJECT", "RETURN"):
            self.action = target.name.lower()
        elif parsed.known or all(option.known for option in target.options):
            self.action = "next" if target.name in targets.PASSING else ""
            self.act = targets.ACTS.get(target.name)

    def take(self, flow: Flow, hook: str, around: Surroundings, reasons: list[str]) -> list[Branch]:
        """What happens to a packet that matches."""
        if self.chance is not ONE:
            reasons.append(f"chance: {self.chance} of the packets that get here")
        why = "; ".join(reasons) or self.plain
        if self.action:
            name = self.target.name if self.target is not None and self.action in ("jump", "goto") else ""
            return [Branch(ONE, flow, self.action, name, why if self.target is not None else f"{why}; it only counts")]  # type: ignore[arg-type]
        assert self.target is not None
        if self.act is None:
            return targets.not_known(self.target.name, flow)
        return [b._replace(why=f"{why}: {b.why}") if reasons else b for b in self.act(self.target, flow, hook, around)]


def _from_elsewhere(spec: str, flow: Flow) -> bool:
    """Whether the rule begins with a source that is not the packet's, as one of each two rules about an endpoint does.

    Such a rule needs no closer look, and so its text need not be read at all.
    """
    negated = spec.startswith("! -s ")
    if not negated and not spec.startswith("-s "):
        return False
    begin = 5 if negated else 3
    end = spec.find(" ", begin)
    try:
        version, address, mask = _network(spec[begin:end] if end > 0 else spec[begin:])
    except ValueError:
        return False  # in quotes, say: the patient way reads it
    return (version == flow.version and flow.src & mask == address) == negated


_network = lru_cache(maxsize=4096)(network)


def _chance(match: Match, remaining: int) -> Fraction:
    probability, every = match.get("--probability"), match.get("--every")
    if probability is not None:
        value = exact(probability.words[0], remaining)
        return 1 - value if probability.negated else value
    if every is not None and every.value:
        return 1 - Fraction(1, every.value) if every.negated else Fraction(1, every.value)
    return ONE


class View:
    """One chain of one table."""

    __slots__ = ("_chain", "_inner", "_table", "_texts", "name", "table")

    def __init__(self, table: Table, chain: Chain) -> None:
        self._table = table
        self._chain = chain
        self._inner: dict[str, View] = {}
        self._texts: dict[int, tuple[str, int]] = {}
        self.table = table.name
        self.name = chain.name

    def __len__(self) -> int:
        return len(self._chain.specs)

    def candidates(self, flow: Flow) -> Iterator[int]:
        if len(self._chain.specs) < 32:
            return iter(range(len(self._chain.specs)))
        return self._chain.candidates(flow.version, show_address(flow.version, flow.dst), flow.dport)

    def text(self, place: int) -> tuple[str, int]:
        found = self._texts.get(place)
        if found is None:
            rule = self._chain[place]
            found = self._texts[place] = str(rule), rule.line
        return found

    def chain(self, name: str) -> View | None:
        found = self._inner.get(name)
        if found is None and (chain := self._table.chains.get(name)) is not None:
            found = self._inner[name] = View(self._table, chain)
        return found

    def consider(self, place: int, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
        if not around.explain and _from_elsewhere(self._chain.specs[place], flow):
            return []
        rule = self._chain[place]
        plan: Plan | None = rule.plan
        if plan is None:
            plan = rule.plan = Plan(rule, self._table, len(self._chain.specs) - place)
        before, doubt, assume, wrong, why_not = flow, "", True, 0, ""
        reasons: list[str] = []
        for judge, match in plan.judges:
            answer = judge(match, flow, hook, around)
            if answer.holds is False:
                if not around.explain:
                    return []
                wrong += 1
                why_not = why_not or answer.why
            elif answer.holds is None:
                doubt = doubt or answer.why
                assume = assume and answer.assume
            else:
                if match.module == "recent":
                    flow = targets.remember(match, flow)
                if answer.why:
                    reasons.append(answer.why)
        if wrong:
            return [Branch(ONE, flow, "next", why=why_not, matched=False, near=wrong)]
        chance = plan.chance
        if not doubt and chance is ONE:
            return plan.take(flow, hook, around, reasons)
        yes = plan.take(flow, hook, around, reasons)
        if chance is not ONE:
            yes = [b._replace(weight=b.weight * chance) for b in yes if chance]
        if doubt:
            # Where the packet goes on either way, unchanged, there is nothing to decide.
            if all(b.action == "next" and b.flow == before for b in yes):
                return [Branch(ONE, before, "next", why=doubt, matched=False, near=1)]
            yes = [b._replace(doubt=b.doubt or doubt, default=b.default and assume) for b in yes]
            rest = [Branch(1 - chance, before, "next", matched=False, doubt=doubt, default=assume)] if chance != 1 else []
            return [*yes, *rest, Branch(ONE, before, "next", why=doubt, matched=False, doubt=doubt, default=not assume, near=1)]
        return [*yes, Branch(1 - chance, before, "next", why="chance decided against it", matched=False, near=1)]
