"""A `Ruleset` of iptables as the engine walks it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from lab_utils.iptables.probability import exact
from lab_utils.iptables.rules import Match, Rule
from lab_utils.iptables.ruleset import Chain, Ruleset, Table
from lab_utils.iptables.values import show_address
from lab_utils.trace import targets
from lab_utils.trace.flow import ONE, Branch, Flow, Layer, Surroundings
from lab_utils.trace.matches import JUDGES, NOT_HERE, Answer

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

    def layers(self, hook: str, version: int) -> list[Layer]:
        found = []
        for name, priority in ORDER[hook]:
            for table in self.ruleset.tables_for(version, name):
                if (chain := table.chains.get(hook)) is not None:
                    kind = "nat" if name == "nat" else "filter"
                    found.append(Layer(priority, kind, View(table, chain), chain.policy or "ACCEPT"))
        return found

    def remarks(self, version: int) -> list[str]:
        families = {table.family for table in self.ruleset.in_effect}
        if families and not families & {version, 0}:
            return [f"The rules are for IPv{families.pop()}; nothing is known about IPv{version}, which has rules of its own"]
        return []


class View:
    """One chain of one table."""

    __slots__ = ("_chain", "_table")

    def __init__(self, table: Table, chain: Chain) -> None:
        self._table = table
        self._chain = chain

    @property
    def table(self) -> str:
        return self._table.name

    @property
    def name(self) -> str:
        return self._chain.name

    def __len__(self) -> int:
        return len(self._chain)

    def candidates(self, flow: Flow) -> Iterator[int]:
        if len(self._chain) < 32:
            return iter(range(len(self._chain)))
        return self._chain.candidates(flow.version, show_address(flow.version, flow.dst), flow.dport)

    def text(self, place: int) -> tuple[str, int]:
        rule = self._chain[place]
        return str(rule), rule.line

    def chain(self, name: str) -> View | None:
        chain = self._table.chains.get(name)
        return View(self._table, chain) if chain is not None else None

    def consider(self, place: int, flow: Flow, hook: str, around: Surroundings) -> list[Branch]:
        rule = self._chain[place]
        chance, before = ONE, flow
        doubt = ""
        assume, wrong, why_not, reasons = True, 0, "", []
        for match in rule.matches:
            if match.module == "statistic":
                chance *= self._chance(rule, match, place)
                continue
            answer = self._judge(match, flow, hook, around)
            if answer.holds is False:
                if not around.explain:
                    return [Branch(ONE, flow, "next", matched=False)]
                wrong += 1
                why_not = why_not or answer.why
            elif answer.holds is None:
                doubt = doubt or answer.why
                assume = assume and answer.assume
            else:
                if match.module == "recent":
                    flow = targets.remember(match, flow)
                if answer.why and match.module not in ("", "tcp", "udp"):
                    reasons.append(answer.why)
        if wrong:
            return [Branch(ONE, flow, "next", why=why_not, matched=False, near=wrong)]
        no = Branch(ONE, before, "next", why=doubt or "chance decided against it", matched=False, near=1)
        yes = self._act(rule, flow, hook, around, reasons, chance)
        if doubt:
            yes = [b._replace(doubt=b.doubt or doubt, default=b.default and assume) for b in yes]
            branches = [*(b._replace(weight=b.weight * chance) for b in yes), no._replace(doubt=doubt, default=not assume)]
            # Where the packet goes on either way, unchanged, there is nothing to decide.
            return [no] if all(b.action == "next" and b.flow == before for b in yes) else branches
        if chance == ONE:
            return yes
        return [*(b._replace(weight=b.weight * chance) for b in yes if chance), no._replace(weight=1 - chance)]

    def _judge(self, match: Match, flow: Flow, hook: str, around: Surroundings) -> Answer:
        if any(not option.known for option in match.options):
            return NOT_HERE(match, flow, hook, around)
        return JUDGES.get(match.module, NOT_HERE)(match, flow, hook, around)

    def _chance(self, rule: Rule, match: Match, place: int) -> Fraction:
        probability, every = match.get("--probability"), match.get("--every")
        if probability is not None:
            value = exact(probability.words[0], len(self._chain) - place)
            return 1 - value if probability.negated else value
        if every is not None and every.value:
            return 1 - Fraction(1, every.value) if every.negated else Fraction(1, every.value)
        return ONE

    def _act(self, rule: Rule, flow: Flow, hook: str, around: Surroundings, reasons: list[str], chance: Fraction) -> list[Branch]:
        target = rule.target
        parts = [*reasons, *([f"chance: {chance} of the packets that get here"] if chance != ONE else [])]
        why = "; ".join(parts) or ("it matches" if rule.matches else "it matches every packet")
        if target is None:
            return [Branch(ONE, flow, "next", why=f"{why}; it only counts")]
        name = target.name
        if name in self._table.chains:
            return [Branch(ONE, flow, "goto" if target.goto else "jump", name, why=why)]
        if name in ("ACCEPT", "DROP", "REJECT", "RETURN"):
            return [Branch(ONE, flow, name.lower(), why=why)]  # type: ignore[arg-type]
        if any(not option.known for option in target.options):
            return targets.not_known(name, flow)
        if (act := targets.ACTS.get(name)) is not None:
            return [b._replace(why=f"{why}: {b.why}" if parts else b.why) for b in act(target, flow, hook, around)]
        if name in targets.PASSING:
            return [Branch(ONE, flow, "next", why=why)]
        return targets.not_known(name, flow)
