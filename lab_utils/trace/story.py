"""What a trace says: the verdict, where the packet goes, and the steps on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from lab_utils.trace.packet import Packet

Verdict = Literal["ACCEPT", "DROP", "REJECT"]


class Step(NamedTuple):
    """One thing that happened, or, for a near miss, almost did.

    `hook` is one of PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING, or "routing" for the kernel's decision between
    them. `rule` is the rule's own text, or what the kernel did where there is no rule. `probability` is how much of
    the traffic gets here. `depth` counts the jumps that led to the chain.
    """

    hook: str
    table: str
    chain: str
    rule: str
    why: str
    matched: bool = True
    probability: Fraction = Fraction(1)
    line: int = 0
    depth: int = 0
    action: str = ""

    def __str__(self) -> str:
        share = "" if self.probability == 1 else f" [{self.probability}]"
        if not self.rule:
            return f"{self.hook}{share}: {self.why}"
        sign = "" if self.matched else "(no) "
        return f"{'  ' * self.depth}{self.table} {self.chain}{share}: {sign}{self.rule} — {self.why}"


@dataclass(frozen=True, slots=True)
class Destination:
    """One end the packet may come to. `source` is the rewritten source address, where it is known."""

    address: str
    probability: Fraction
    verdict: Verdict = "ACCEPT"
    masquerade: bool = False
    source: str | None = None
    rewritten: bool = True
    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        more = (", masqueraded" if self.masquerade else "") + (f", from {self.source}" if self.source else "")
        return f"{self.address} ({self.probability}{more}){'' if self.verdict == 'ACCEPT' else ' ' + self.verdict}"


@dataclass(frozen=True, slots=True)
class Undecided:
    """A rule that could not be decided from what is known, and what would be otherwise had it matched (or not)."""

    rule: str
    table: str
    chain: str
    line: int
    why: str
    otherwise: str

    def __str__(self) -> str:
        if not self.rule:
            return self.why
        return f"{self.table} {self.chain} line {self.line}: {self.rule}: {self.why}; {self.otherwise}"


@dataclass(frozen=True, slots=True)
class Trace:
    """What the rules do to a packet.

    Where chance or a random rule leads to different ends, `verdict` is the most probable one (of equals, the
    one that lets least through), `verdicts` has them all, and each destination has its own. `destinations` is empty where
    nothing rewrites the destination; `outcomes` has every end, rewritten or not, and their probabilities add up to 1.
    `undecided` lists the rules that could not be decided and on which the outcome depends.
    """

    packet: Packet
    verdict: Verdict
    destinations: tuple[Destination, ...] = ()
    masquerade: bool = False
    outcomes: tuple[Destination, ...] = ()
    steps: tuple[Step, ...] = ()
    verdicts: dict[str, Fraction] = field(default_factory=dict)
    undecided: tuple[Undecided, ...] = ()
    notes: tuple[str, ...] = ()
    mark: int = 0

    @property
    def summary(self) -> str:
        """One sentence."""
        ends = " or ".join(f"{verdict} ({share})" for verdict, share in self.verdicts.items()) if len(self.verdicts) > 1 else self.verdict
        said = f"{self.packet}: {ends}"
        if self.destinations:
            said += " → " + ", ".join(map(str, self.destinations))
        elif self.masquerade:
            said += ", masqueraded"
        if self.undecided:
            said += f"; undecided: {'; '.join(map(str, self.undecided))}"
        return said

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; fractions as text such as 1/3."""

        def step(s: Step) -> dict[str, Any]:
            return {
                "hook": s.hook,
                "table": s.table,
                "chain": s.chain,
                "rule": s.rule,
                "why": s.why,
                "matched": s.matched,
                "probability": str(s.probability),
                "line": s.line,
                "depth": s.depth,
                "action": s.action,
            }

        return {
            "packet": str(self.packet),
            "verdict": self.verdict,
            "verdicts": {verdict: str(share) for verdict, share in self.verdicts.items()},
            "masquerade": self.masquerade,
            "destinations": [
                {
                    "address": d.address,
                    "probability": str(d.probability),
                    "verdict": d.verdict,
                    "masquerade": d.masquerade,
                    "source": d.source,
                    "rewritten": d.rewritten,
                }
                for d in self.destinations
            ],
            "steps": [step(s) for s in self.steps],
            "undecided": [str(u) for u in self.undecided],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return "\n".join([self.summary, *(f"  {step}" for step in self.steps), *(f"  note: {note}" for note in self.notes)])
