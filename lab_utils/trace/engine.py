"""Walking chains.

Many packets are walked at once. A rule that matches by chance splits a packet into two, each with its share; packets
that are equal again are merged, so the work stays small however the splits are nested. A rule that cannot be decided
splits it too: into the default, which the answer is about, and what-ifs, which only show whether the rule matters.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from lab_utils.errors import BadInput
from lab_utils.trace.flow import ONE, Branch, ChainView, Flow, Layer, Program, Surroundings
from lab_utils.trace.story import Step, Verdict

DEEPEST = 150  # the kernel allows nft 16 jumps; a legacy dump may nest more
MOST = 20_000  # packets at once
WHAT_IFS = 64
# Chains entered. Each may jump twice to the next, which doubles the way at every step; so from MANY on it is remembered
# which chains leave a packet as it was, and they are not walked again for an equal packet.
MANY, LONGEST = 1_000, 50_000


class Doubt(NamedTuple):
    """A rule that could not be decided, as one packet met it."""

    rule: str
    table: str
    chain: str
    line: int
    why: str


class Trail(NamedTuple):
    """The steps so far, last first."""

    step: Step
    before: Trail | None


class Walker(NamedTuple):
    """One of the packets under way. `choices` says of each doubt that it met whether it took the default."""

    flow: Flow
    weight: Fraction
    trail: Trail | None = None
    choices: tuple[tuple[int, bool], ...] = ()

    @property
    def real(self) -> bool:
        return not self.choices or all(default for _, default in self.choices)


class Ended(NamedTuple):
    walker: Walker
    verdict: Verdict


class Engine:
    def __init__(self, program: Program, around: Surroundings) -> None:
        self.program = program
        self.around = around
        self.doubts: list[Doubt] = []
        self.steps: dict[tuple[object, ...], Step] = {}
        self.what_ifs = 0
        self.entered = 0
        self.idle: set[tuple[str, tuple[str, str], Flow]] = set()
        self.notes: list[str] = []
        self.hook = ""

    # Hooks

    def pass_hook(self, hook: str, walkers: list[Walker], ended: list[Ended], again: bool = False) -> list[Walker]:
        """Lead the packets through every base chain of a hook; those that are dropped or rejected end."""
        self.hook = hook
        if not walkers:
            return walkers
        layers = self.program.layers(hook, walkers[0].flow.version)
        tracking = hook in ("PREROUTING", "OUTPUT") and not again
        for layer in layers:
            if tracking and layer.priority > -200:
                walkers, tracking = [self._track(walker) for walker in walkers], False
            walkers = self._layer(layer, walkers, ended)
        if tracking:
            walkers = [self._track(walker) for walker in walkers]
        return [self._settle(walker) for walker in walkers]

    def _track(self, walker: Walker) -> Walker:
        flow = walker.flow
        state = self.around.packet.ctstate if flow.tracked else "UNTRACKED"
        return Walker(flow._replace(state=state), walker.weight, walker.trail, walker.choices)

    def _settle(self, walker: Walker) -> Walker:
        """nat decides once; where no rule did, the address stays, for good."""
        flow = walker.flow
        if self.hook in ("PREROUTING", "OUTPUT"):
            return walker._replace(flow=flow._replace(dst_settled=True)) if not flow.dst_settled else walker
        if self.hook in ("INPUT", "POSTROUTING"):
            return walker._replace(flow=flow._replace(src_settled=True)) if not flow.src_settled else walker
        return walker

    def _layer(self, layer: Layer, walkers: list[Walker], ended: list[Ended]) -> list[Walker]:
        onward: list[Walker] = []
        if layer.kind == "nat":
            settled = "dst_settled" if self.hook in ("PREROUTING", "OUTPUT") else "src_settled"
            asked: list[Walker] = []
            for walker in walkers:
                new = walker.flow.state in ("NEW", "RELATED") and not getattr(walker.flow, settled)
                (asked if new else onward).append(walker)
            walkers = asked
        stopped: list[tuple[Walker, str]] = []
        through = self._chain(layer.chain, walkers, (), stopped)
        for walker in through:
            if layer.policy in ("ACCEPT", ""):
                onward.append(walker)
            else:
                why = f"no rule of {layer.chain.name} decided, so its policy does"
                step = Step(
                    self.hook, layer.chain.table, layer.chain.name, f"policy {layer.policy}", why, True, walker.weight, action="drop"
                )
                ended.append(Ended(self._note(walker, step), "DROP"))
        for walker, action in stopped:
            if action == "accept":
                onward.append(walker)
            else:
                ended.append(Ended(walker, "DROP" if action == "drop" else "REJECT"))
        return onward

    # Chains

    def _chain(
        self, chain: ChainView, walkers: list[Walker], above: tuple[tuple[str, str], ...], stopped: list[tuple[Walker, str]]
    ) -> list[Walker]:
        """Lead packets through a chain; returns those that come out at its end."""
        me = (chain.table, chain.name)
        if me in above:
            circle = [name for _, name in above[above.index(me) :]] + [chain.name]
            raise BadInput(f"the chains {' → '.join(circle)} of the table {chain.table} jump in a circle", "The kernel refuses such rules")
        if len(above) > DEEPEST:
            raise BadInput(f"chains jump more than {DEEPEST} deep, down to {chain.name}", "The kernel refuses such rules")
        self.entered += 1
        if self.entered > LONGEST:
            raise BadInput(f"the way through these rules enters more than {LONGEST:,} chains", "Real rules enter a few hundred")
        above = (*above, me)
        if not walkers:
            return []
        key = (self.hook, me, walkers[0].flow) if self.entered > MANY and len(walkers) == 1 else None
        if key in self.idle:
            return walkers
        left: list[Walker] = []
        before, stops = walkers[0], len(stopped)
        places = self._places(chain, walkers)
        for place in places:
            onward: list[Walker] = []
            moved = False
            for walker in walkers:
                branches = chain.consider(place, walker.flow, self.hook, self.around)
                if not branches:
                    onward.append(walker)
                    continue
                moved = True
                for branch in branches:
                    went = self._take(walker, branch, chain, place, len(above) - 1)
                    if went is not None:
                        self._follow(went, branch, chain, above, stopped, onward, left)
            walkers = self._merge(onward) if moved else onward
            if not walkers:
                break
        out = left + walkers
        if key is not None and len(stopped) == stops and len(out) == 1 and out[0][:2] == before[:2] and out[0].choices == before.choices:
            self.idle.add(key)
        return out

    def _places(self, chain: ChainView, walkers: list[Walker]) -> Iterable[int]:
        """The rules to look at. Inside of a chain no rule changes the destination and goes on, so an index may be asked."""
        if self.around.explain:
            return range(len(chain))
        if len(walkers) == 1:
            return chain.candidates(walkers[0].flow)
        flows = {(walker.flow.dst, walker.flow.dport): walker.flow for walker in walkers}
        if len(flows) > 64:
            return range(len(chain))
        return sorted({place for flow in flows.values() for place in chain.candidates(flow)})

    def _follow(
        self,
        went: Walker,
        branch: Branch,
        chain: ChainView,
        above: tuple[tuple[str, str], ...],
        stopped: list[tuple[Walker, str]],
        onward: list[Walker],
        left: list[Walker],
    ) -> None:
        if branch.action == "next":
            onward.append(went)
        elif branch.action == "return":
            left.append(went)
        elif branch.action in ("jump", "goto"):
            inner = chain.chain(branch.chain)
            if inner is None:
                raise BadInput(f"{chain.table} {chain.name} jumps to {branch.chain!r}, which is not there")
            (onward if branch.action == "jump" else left).extend(self._chain(inner, [went], above, stopped))
        else:
            stopped.append((went, branch.action))

    def _merge(self, walkers: list[Walker]) -> list[Walker]:
        if len(walkers) < 2:
            return walkers
        merged: dict[tuple[Flow, tuple[tuple[int, bool], ...]], Walker] = {}
        for walker in walkers:
            key = walker.flow, walker.choices
            other = merged.get(key)
            merged[key] = walker if other is None else other._replace(weight=other.weight + walker.weight)
        if len(merged) > MOST:
            raise BadInput(f"the rules split this packet into more than {MOST:,} cases")
        return list(merged.values())

    # Steps

    def _take(self, walker: Walker, branch: Branch, chain: ChainView, place: int, depth: int) -> Walker | None:
        weight = walker.weight if branch.weight is ONE else branch.weight if walker.weight is ONE else walker.weight * branch.weight
        choices = walker.choices
        if branch.doubt:
            number = self._doubt(branch, chain, place)
            if not branch.default:
                if self.what_ifs >= WHAT_IFS:
                    return None
                self.what_ifs += 1
            choices = (*choices, (number, branch.default))
        went = Walker(branch.flow, weight, walker.trail, choices)
        if branch.matched or (self.around.explain and branch.why and (len(chain) <= 64 or branch.near == 1)):
            text, line = chain.text(place)
            action = f"{branch.action} {branch.chain}".strip() if branch.matched else ""
            step = Step(self.hook, chain.table, chain.name, text, branch.why, branch.matched, weight, line, depth, action)
            return self._note(went, step)
        return went

    def _doubt(self, branch: Branch, chain: ChainView, place: int) -> int:
        text, line = chain.text(place)
        doubt = Doubt(text, chain.table, chain.name, line, branch.doubt)
        if doubt not in self.doubts:
            self.doubts.append(doubt)
        return self.doubts.index(doubt)

    def _note(self, walker: Walker, step: Step) -> Walker:
        """Add a step to the packet's own trail and, for what really happens, to the story."""
        if walker.real:
            key = (step.hook, step.table, step.chain, step.rule, step.line, step.matched, "" if step.line else step.why, step.depth)
            told = self.steps.get(key)
            if told is None:
                self.steps[key] = step
            elif step.matched:
                share = told.probability + step.probability
                self.steps[key] = told._replace(probability=share)
        return Walker(walker.flow, walker.weight, Trail(step, walker.trail), walker.choices)

    def remark(self, walker: Walker, why: str) -> Walker:
        """A step that no rule makes: the routing decision."""
        return self._note(walker, Step("routing", "", "", "", why, True, walker.weight))
