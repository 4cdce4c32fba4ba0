"""The way of a packet through the five hooks, and the answer.

    from outside or a Pod:  PREROUTING → routing ─┬→ INPUT, if the destination is the node's
                                                  └→ FORWARD → POSTROUTING
    from the node itself:   OUTPUT → routing → POSTROUTING ─┬→ out
                                                            └→ by lo: PREROUTING → INPUT

Conntrack comes between raw and mangle. nat is asked by the first packet of a connection only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from lab_utils.iptables.ruleset import Ruleset
from lab_utils.iptables.values import show_address
from lab_utils.trace.engine import Ended, Engine, Trail, Walker
from lab_utils.trace.flow import ONE, Layer, Origin, Program, Surroundings
from lab_utils.trace.iptables import IptablesProgram
from lab_utils.trace.packet import Packet
from lab_utils.trace.story import Destination, Step, Trace, Undecided, Verdict

Outcome = tuple[str, str, bool, str | None]
WORST: tuple[Verdict, ...] = ("DROP", "REJECT", "ACCEPT")


def trace(
    ruleset: Ruleset | Program | Sequence[Ruleset | Program],
    packet: Packet,
    local_addresses: Iterable[str] | Mapping[str, Iterable[str]] = (),
    origin: Origin = "external",
    *,
    sets: Mapping[str, Iterable[str]] | None = None,
    recent: Mapping[str, Iterable[str] | Mapping[str, float]] | None = None,
    routes: Mapping[str, str] | None = None,
    explain: bool = False,
) -> Trace:
    """What the rules of a node do to a packet that reaches it ("external", "pod") or that it sends ("local").

    `local_addresses` are the node's own, as a list or, better, device → addresses. `sets` is the content of IP
    sets (`iptables.parse_sets` reads `ipset save`); `recent` the lists of `-m recent` (name → addresses, or address → age in
    seconds), which otherwise begin empty; `routes` maps networks to outgoing devices, for rules with `-o`.
    A node in kube-proxy's nftables mode has rules of both kinds; given as a list, both are followed, in the kernel's order.
    With `explain`, the steps also tell of rules that did not match, and why.
    """
    around = Surroundings(packet, local_addresses, origin, sets, recent, routes, explain)
    program = _program(ruleset)
    engine = Engine(program, around)
    ended: list[Ended] = []
    start = [Walker(around.first_flow(), ONE)]
    arrived = _local(engine, start, ended) if origin == "local" else _from_outside(engine, start, ended)
    ended += [Ended(walker, "ACCEPT") for walker in arrived]
    return _answer(engine, packet, ended, program.remarks(packet.version))


class Both:
    """Several sets of rules that are in force together."""

    def __init__(self, programs: list[Program]) -> None:
        iptables = any(isinstance(each, IptablesProgram) for each in programs)
        self.programs = [each.without_iptables() for each in programs] if iptables else programs

    def layers(self, hook: str, version: int) -> list[Layer]:
        return sorted((layer for each in self.programs for layer in each.layers(hook, version)), key=lambda layer: layer.priority)

    def without_iptables(self) -> Both:
        return self

    def remarks(self, version: int) -> list[str]:
        said = [each.remarks(version) for each in self.programs]
        return [remark for each in said for remark in each] if all(said) else []


def _program(ruleset: Ruleset | Program | Sequence[Ruleset | Program]) -> Program:
    if isinstance(ruleset, Ruleset):
        ruleset.traced = ruleset.traced or IptablesProgram(ruleset)
        program: Program = ruleset.traced
        return program
    if isinstance(ruleset, (list, tuple)):
        return Both([_program(each) for each in ruleset])
    return ruleset  # type: ignore[return-value]


def _from_outside(engine: Engine, walkers: list[Walker], ended: list[Ended]) -> list[Walker]:
    walkers = engine.pass_hook("PREROUTING", walkers, ended)
    mine, others = _route(engine, walkers, "INPUT", "FORWARD")
    arrived = engine.pass_hook("INPUT", mine, ended)
    others = engine.pass_hook("FORWARD", others, ended)
    return arrived + engine.pass_hook("POSTROUTING", others, ended)


def _local(engine: Engine, walkers: list[Walker], ended: list[Ended]) -> list[Walker]:
    walkers = engine.pass_hook("OUTPUT", _leave_by(engine, walkers), ended)
    mine, others = _route(engine, walkers, "back in by lo", "out")
    arrived = engine.pass_hook("POSTROUTING", others, ended)
    mine = engine.pass_hook("POSTROUTING", mine, ended)
    mine = [walker._replace(flow=walker.flow._replace(in_interface="lo", out_interface="")) for walker in mine]
    mine = engine.pass_hook("PREROUTING", mine, ended, again=True)
    return arrived + engine.pass_hook("INPUT", mine, ended)


def _leave_by(engine: Engine, walkers: list[Walker]) -> list[Walker]:
    """A packet of the node itself has an outgoing device before any rule sees it."""
    around = engine.around
    return [
        walker._replace(
            flow=walker.flow._replace(
                out_interface="lo"
                if around.is_local(walker.flow.version, walker.flow.dst)
                else around.out_interface(walker.flow.version, walker.flow.dst)
            )
        )
        for walker in walkers
    ]


def _route(engine: Engine, walkers: list[Walker], here: str, there: str) -> tuple[list[Walker], list[Walker]]:
    mine, others = [], []
    for walker in walkers:
        flow = walker.flow
        shown = show_address(flow.version, flow.dst)
        if engine.around.is_local(flow.version, flow.dst):
            device = "lo" if engine.around.origin == "local" else ""
            went = walker._replace(flow=flow._replace(out_interface=device))
            mine.append(engine.remark(went, f"{shown} is an address of this node: {here}"))
        else:
            went = walker._replace(flow=flow._replace(out_interface=engine.around.out_interface(flow.version, flow.dst)))
            others.append(engine.remark(went, f"{shown} is elsewhere: {there}"))
    return mine, others


# The answer


def _outcome(end: Ended) -> Outcome:
    flow = end.walker.flow
    return end.verdict, flow.destination if flow.rewritten else "", flow.masquerade and end.verdict == "ACCEPT", flow.source


def _answer(engine: Engine, packet: Packet, ended: list[Ended], remarks: list[str]) -> Trace:
    real = [end for end in ended if end.walker.real]
    verdicts: dict[str, Fraction] = {}
    for end in real:
        verdicts[end.verdict] = verdicts.get(end.verdict, Fraction(0)) + end.walker.weight
    verdict = max(WORST, key=lambda name: verdicts.get(name, Fraction(0)))
    outcomes = _outcomes(real)
    marks = {end.walker.flow.mark for end in real}
    return Trace(
        packet=packet,
        verdict=verdict,
        destinations=_destinations(outcomes),
        masquerade=any(end.walker.flow.masquerade and end.verdict == "ACCEPT" for end in real),
        outcomes=outcomes,
        steps=tuple(engine.steps.values()),
        verdicts=verdicts,
        undecided=(*(Undecided("", "", "", 0, said, "") for said in remarks), *_undecided(engine, ended)),
        notes=tuple(engine.notes),
        mark=marks.pop() if len(marks) == 1 else 0,
    )


def _outcomes(real: list[Ended]) -> tuple[Destination, ...]:
    found: dict[tuple[object, ...], Destination] = {}
    for end in real:
        flow = end.walker.flow
        masquerade = flow.masquerade and end.verdict == "ACCEPT"
        key = (flow.destination, end.verdict, masquerade, flow.source, flow.rewritten)
        share = end.walker.weight + (found[key].probability if key in found else 0)
        steps = found[key].steps if key in found else _steps(end.walker.trail)
        found[key] = Destination(flow.destination, share, end.verdict, masquerade, flow.source, flow.rewritten, steps)
    return tuple(found.values())


def _destinations(outcomes: tuple[Destination, ...]) -> tuple[Destination, ...]:
    """Where it goes, if any rule rewrites that: then also the share that is let through as it is."""
    if not any(outcome.rewritten for outcome in outcomes):
        return ()
    some = [outcome for outcome in outcomes if outcome.rewritten or outcome.verdict == "ACCEPT"]
    return tuple(sorted(some, key=lambda outcome: not outcome.rewritten))


def _steps(trail: Trail | None) -> tuple[Step, ...]:
    steps = []
    while trail is not None:
        steps.append(trail.step)
        trail = trail.before
    return tuple(reversed(steps))


def _undecided(engine: Engine, ended: list[Ended]) -> list[Undecided]:
    """The doubts that matter: without them, or with them the other way round, the packet would end elsewhere."""
    found = []
    usual = {_outcome(end) for end in ended if end.walker.real}
    for number, doubt in enumerate(engine.doubts):
        otherwise = [end for end in ended if (number, False) in end.walker.choices]
        alone = [end for end in otherwise if sum(not default for _, default in end.walker.choices) == 1]
        siblings = [end for end in ended if end.walker.real and (number, True) in end.walker.choices]
        new = {_outcome(end) for end in otherwise} - usual
        if new or _shares(alone) != _shares(siblings):
            differs = sorted(new or {_outcome(end) for end in alone}, key=str)
            ends = ", or ".join(dict.fromkeys(_tell(outcome) for outcome in differs)) or "it would not get here"
            found.append(Undecided(doubt.rule, doubt.table, doubt.chain, doubt.line, doubt.why, f"otherwise: {ends}"))
    return found


def _shares(ends: list[Ended]) -> dict[Outcome, Fraction]:
    total = sum((end.walker.weight for end in ends), Fraction(0)) or Fraction(1)
    shares: dict[Outcome, Fraction] = {}
    for end in ends:
        shares[_outcome(end)] = shares.get(_outcome(end), Fraction(0)) + end.walker.weight / total
    return shares


def _tell(outcome: Outcome) -> str:
    verdict, destination, masquerade, source = outcome
    return verdict + (f" to {destination}" if destination else "") + (" masqueraded" if masquerade else f" from {source}" if source else "")
