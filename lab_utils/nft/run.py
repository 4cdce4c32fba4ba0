"""One rule of nft, statement by statement, for one packet."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lab_utils.errors import ParseError
from lab_utils.iptables.probability import exact
from lab_utils.iptables.values import FULL, AddressRange, Network, Place, Range, address_range
from lab_utils.nft import text
from lab_utils.nft.values import ABSENT, Chance, Lookup, Value, declared_kind, holds, kind_of, read, value_of
from lab_utils.trace import targets
from lab_utils.trace.flow import ONE, Branch, Flow, Surroundings

if TYPE_CHECKING:
    from lab_utils.nft.ruleset import NftChain

VERDICTS = ("accept", "drop", "return", "continue")
ENDS = frozenset({"vmap", *VERDICTS, "jump", "goto", "reject", "dnat", "snat", "masquerade", "redirect", "queue"})
# Statements that let the packet go on, and change nothing that rules ask for.
PASSING = frozenset({"counter", "log", "comment", "ct helper", "ct timeout", "ct expectation", "secmark", "flow", "dup", "last", "meter"})
DECIDED = ENDS | PASSING | {"match", "mangle", "set", "notrack", "limit", "quota", "ct count"}
# Of what iptables-nft writes, nft knows some itself; of the rest its JSON has the name alone, as in
# {"xt": {"type": "match", "name": "addrtype"}}.
XT_NO_MATTER = frozenset({"comment", "nfacct"})


def xt_doubt(value: Any) -> str:
    """Why a part of a rule that iptables wrote cannot be judged; empty if it can."""
    kind, name = (value.get("type"), value.get("name")) if isinstance(value, dict) else (None, None)
    if kind == "match" and name in XT_NO_MATTER:
        return ""
    if kind == "target" and (name in ("REJECT", "MASQUERADE") or name in targets.PASSING):
        return ""
    return f"nft does not show what the {kind or 'match or target'}{f' {name}' if name else ''} of iptables says (iptables-save does)"


class Run:
    """One rule, statement by statement, for one packet."""

    __slots__ = ("around", "chain", "hook", "place", "rule", "table")

    def __init__(self, chain: NftChain, place: int, hook: str, around: Surroundings) -> None:
        self.chain = chain
        self.table = chain.home
        self.place = place
        self.rule = chain.rules[place]
        self.hook = hook
        self.around = around

    def go(self, number: int, weight: Fraction, flow: Flow, reasons: tuple[str, ...]) -> list[Branch]:
        statements = self.rule.statements
        while number < len(statements):
            said = statements[number]
            number += 1
            ((kind, value),) = said.items()
            if kind == "match":
                shares = self._match(value, flow)
                if shares is None:
                    return self._unknown(value, number, weight, flow, reasons)
                if shares == 0:
                    why = f"{text.statement(said)} does not hold" if self.around.explain else ""
                    return [Branch(weight, flow, "next", why=why, matched=False, near=1)]
                if shares != 1:
                    lucky = self.go(number, weight * shares, flow, (*reasons, f"chance: {shares}"))
                    return [*lucky, Branch(weight * (1 - shares), flow, "next", why="chance decided against it", matched=False)]
                continue
            if kind == "mangle":
                changed = self._mangle(value, flow)
                if changed is None:
                    return self._mystery(f"what {text.statement(said)} gives is not known", number, weight, flow, reasons)
                flow = changed
            elif kind == "set":
                flow = self._remember(value, flow)
            elif kind == "notrack":
                flow = flow._replace(tracked=False)
            elif kind in ENDS:
                branches = self._end(kind, value, weight, flow, reasons)
                if branches is not None:
                    return branches
            elif kind == "xt":
                branches = self._xt(value, number, weight, flow, reasons)
                if branches is not None:
                    return branches
            elif kind in ("limit", "quota", "ct count"):
                return self._limited(number, weight, flow, reasons)
            elif kind not in PASSING:
                return self._mystery(f"the statement {kind} is not known here", number, weight, flow, reasons)
        return [Branch(weight, flow, "next", why=self._why(reasons) + "; it only counts or marks")]

    def _why(self, reasons: tuple[str, ...]) -> str:
        return "; ".join(reasons) or ("it matches" if any("match" in each for each in self.rule.statements) else "it matches every packet")

    # Matches

    def _match(self, value: dict[str, Any], flow: Flow) -> Fraction | None:
        """How much of the traffic matches: all, none, a share; None if it cannot be known."""
        op, left, right = value["op"], value["left"], value["right"]
        have = value_of(left, flow, self.around)
        if have is ABSENT:
            return Fraction(0)
        if have is None:
            return None
        if isinstance(have, Chance):
            return self._chance(op, have, right)
        if isinstance(right, str) and right.startswith("@"):
            held = self._in(right[1:], have, flow)
            return None if held is None else Fraction((op != "!=") == held)
        kind = kind_of(left)
        if isinstance(right, dict) and "set" in right:
            listed = right["set"] if isinstance(right["set"], list) else [right["set"]]
            return Fraction((op != "!=") == (Lookup(kind, listed, False).find(have, flow.version) is not None))
        if isinstance(right, dict) and "concat" in right:
            return Fraction((op != "!=") == (Lookup(kind, [right], False).find(have, flow.version) is not None))
        wanted = read(kind if isinstance(kind, str) else "", value_of(right, flow, self.around) if _computed(right) else right)
        if isinstance(wanted, list):
            wanted = frozenset(read(str(kind), each) for each in wanted)
        return _compare(op, have, wanted, flow.version)

    def _chance(self, op: str, chance: Chance, right: Any) -> Fraction | None:
        """`numgen random mod 100 < 30`, and `meta random & 0x7fffffff < N`, which iptables makes of `-m statistic`."""
        if isinstance(right, dict):
            right = read("number", right)
        first, last = chance.offset, chance.offset + chance.mod
        if isinstance(right, Range):
            count = max(0, min(last, right.last + 1) - max(first, right.first))
            return Fraction(chance.mod - count if op == "!=" else count, chance.mod)
        if not isinstance(right, int):
            return None
        if chance.mod == 1 << 31 and op == "<":
            return exact(f"{right / chance.mod:.11f}", len(self.chain) - self.place)
        counts = {"<": right - first, "<=": right + 1 - first, ">": last - right - 1, ">=": last - right, "==": 1, "!=": chance.mod - 1}
        inside = first <= right < last
        count = counts[op] if op not in ("==", "!=") or inside else (0 if op == "==" else chance.mod)
        return Fraction(max(0, min(count, chance.mod)), chance.mod)

    def _in(self, name: str, have: Value, flow: Flow) -> bool | None:
        if (name, have) in flow.seen:
            return True
        if self.around.sets is not None and name in self.around.sets:
            kind = declared_kind(self.table.sets.get(name, {}).get("type", "ipv4_addr"), name)
            given = Lookup(kind, [_given(entry) for entry in self.around.sets[name]], False)
            return given.find(have, flow.version) is not None
        return self.table.lookup(name).find(have, flow.version) is not None

    # Effects

    def _mangle(self, value: dict[str, Any], flow: Flow) -> Flow | None:
        key = value["key"]
        new = value_of(value["value"], flow, self.around)
        if isinstance(new, str):
            new = read("number", new)
        where = next(iter(key)) if isinstance(key, dict) else ""
        if where == "meta" and key["meta"].get("key") == "mark":
            return flow._replace(mark=new & FULL) if isinstance(new, int) else None
        if where == "ct" and key["ct"].get("key") == "mark":
            return flow._replace(ctmark=new & FULL) if isinstance(new, int) else None
        return (
            flow
            if where in ("meta", "ct", "tcp option") or (where == "payload" and key["payload"].get("field") in ("dscp", "ttl"))
            else None
        )

    def _remember(self, value: dict[str, Any], flow: Flow) -> Flow:
        element = value.get("elem")
        element = element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element
        have = value_of(element, flow, self.around)
        if value.get("op") not in ("add", "update") or have is None or have is ABSENT:
            return flow
        return flow._replace(seen=flow.seen | {(str(value["set"]).removeprefix("@"), have)})

    def _xt(self, value: Any, number: int, weight: Fraction, flow: Flow, reasons: tuple[str, ...]) -> list[Branch] | None:
        """A match or target of iptables that nft does not know, or does not show."""
        doubt = xt_doubt(value)
        if not doubt:
            end = {"REJECT": "reject", "MASQUERADE": "masquerade"}.get(value["name"]) if value["type"] == "target" else None
            return self._end(end, None, weight, flow, reasons) if end else None
        if isinstance(value, dict) and value.get("type") == "match":
            return self._doubt(doubt, False, number, weight, flow, reasons)
        return self._mystery(doubt, number, weight, flow, reasons)

    # Ends

    def _end(self, kind: str, value: Any, weight: Fraction, flow: Flow, reasons: tuple[str, ...]) -> list[Branch] | None:
        why = self._why(reasons)
        if kind == "vmap":
            return self._vmap(value, weight, flow, reasons)
        if kind in ("accept", "drop", "return"):
            return [Branch(weight, flow, kind, why=why)]  # type: ignore[arg-type]
        if kind == "continue":
            return [Branch(weight, flow, "next", why=why)]
        if kind in ("jump", "goto"):
            return [Branch(weight, flow, kind, value["target"], why=why)]  # type: ignore[arg-type]
        if kind == "reject":
            return [Branch(weight, flow, "reject", why=why)]
        if kind == "queue":
            branches = targets.queued(flow)
        elif kind == "masquerade":
            branches = targets.masked(flow, self.around)
        elif kind == "redirect":
            port = value.get("port") if isinstance(value, dict) else None
            branches = targets.to_local(flow, _ports(port), self.hook, self.around)
        else:
            branches = []
            for share, place in self._places(value, flow):
                if place is None:
                    return self._mystery("where the rule leads is not known", len(self.rule.statements), weight, flow, reasons)
                made = targets.to_destination(flow, place) if kind == "dnat" else targets.to_source(flow, place)
                branches += [b._replace(weight=b.weight * share) for b in made]
            left = 1 - sum((b.weight for b in branches), Fraction(0))
            if left:
                branches.append(Branch(left, flow, "next", why="the map has nothing for this packet", matched=False))
        said = f"{why}: " if reasons else ""
        return [b._replace(weight=b.weight * weight, why=said + b.why) for b in branches]

    def _results(self, key: Any, data: Any, flow: Flow) -> list[tuple[Fraction, Any]] | None:
        """What a map gives: each result with its share. None if the key is not known."""
        have = value_of(key, flow, self.around)
        if have is ABSENT:
            return []
        if have is None:
            return None
        if isinstance(data, str) and data.startswith("@"):
            lookup, elements = self.table.lookup(data[1:]), self.table.sets[data[1:]].get("elem") or []
        else:
            elements = data["set"] if isinstance(data, dict) and isinstance(data.get("set"), list) else []
            lookup = Lookup(kind_of(key), elements, True)
        if isinstance(have, Chance):
            return [(share, each[1]) for each in elements if (share := self._chance("==", have, _key(each[0])) or Fraction(0))]
        found = lookup.find(have, flow.version)
        return [] if found is None else [(ONE, found)]

    def _vmap(self, value: dict[str, Any], weight: Fraction, flow: Flow, reasons: tuple[str, ...]) -> list[Branch] | None:
        results = self._results(value["key"], value["data"], flow)
        if results is None:
            return self._mystery(f"{text.expression(value['key'])} is not known", len(self.rule.statements), weight, flow, reasons)
        branches = []
        for share, verdict in results:
            ((kind, what),) = verdict.items() if isinstance(verdict, dict) else ((verdict, None),)
            said = (f"the map says {text.expression(verdict)}",) + ((f"chance: {share}",) if share != 1 else ())
            branches += self._end(kind, what, weight * share, flow, (*reasons, *said)) or []
        left = weight * (1 - sum((share for share, _ in results), Fraction(0)))
        if left:
            why = "the map has nothing for this packet" if self.around.explain else ""
            branches.append(Branch(left, flow, "next", why=why, matched=False, near=1))
        return branches

    def _places(self, value: dict[str, Any], flow: Flow) -> list[tuple[Fraction, Place | None]]:
        """Where dnat or snat leads, with shares."""
        address, port = value.get("addr"), value.get("port")
        options: list[tuple[Fraction, Any]] | None = [(ONE, address)]
        if isinstance(address, dict) and "map" in address:
            options = self._results(address["map"]["key"], address["map"]["data"], flow)
        if options is None:
            return [(ONE, None)]
        ports: list[tuple[Fraction, Any]] | None = [(ONE, port)]
        if isinstance(port, dict) and "map" in port:
            ports = self._results(port["map"]["key"], port["map"]["data"], flow)
        return [(share * other, _place(said, number)) for share, said in options for other, number in (ports or [(ONE, None)])]

    # What cannot be decided

    def _unknown(self, value: dict[str, Any], number: int, weight: Fraction, flow: Flow, reasons: tuple[str, ...]) -> list[Branch]:
        doubt = f"{text.expression(value['left'])} is not known"
        return self._doubt(doubt, value["op"] == "!=", number, weight, flow, reasons)

    def _limited(self, number: int, weight: Fraction, flow: Flow, reasons: tuple[str, ...]) -> list[Branch]:
        return self._doubt("how much came before is not known", True, number, weight, flow, reasons)

    def _doubt(self, doubt: str, assume: bool, number: int, weight: Fraction, flow: Flow, reasons: tuple[str, ...]) -> list[Branch]:
        yes = [b._replace(doubt=doubt, default=b.default and assume) for b in self.go(number, weight, flow, reasons)]
        no = Branch(weight, flow, "next", why=doubt, matched=False, near=1)
        if all(b.action == "next" and b.flow == flow for b in yes):
            return [no]
        return [*yes, no._replace(doubt=doubt, default=not assume)]

    def _mystery(self, why: str, number: int, weight: Fraction, flow: Flow, reasons: tuple[str, ...]) -> list[Branch]:
        """A statement that could do anything: the packet is taken to go on."""
        return [
            Branch(weight, flow, "next", why=f"{why}; assumed: the packet goes on", doubt=why),
            Branch(weight, flow, "drop", why=f"{why}; if it drops", doubt=why, default=False),
            Branch(weight, flow, "accept", why=f"{why}; if it accepts", doubt=why, default=False),
        ]


def _computed(right: Any) -> bool:
    return isinstance(right, dict) and next(iter(right), "") in ("payload", "meta", "ct", "fib")


def _compare(op: str, have: Value, wanted: Value, version: int) -> Fraction | None:
    if op in ("<", ">", "<=", ">="):
        if not (isinstance(have, int) and isinstance(wanted, int)):
            return None
        return Fraction({"<": have < wanted, ">": have > wanted, "<=": have <= wanted, ">=": have >= wanted}[op])
    if op == "in" and isinstance(have, int) and isinstance(wanted, int):
        return Fraction(bool(have & wanted))
    if op == "in" and isinstance(have, int) and isinstance(wanted, frozenset):
        return Fraction(any(isinstance(each, int) and have & each for each in wanted))
    return Fraction((op != "!=") == holds(wanted, have, version))


def _key(said: Any) -> Any:
    return said["elem"].get("val") if isinstance(said, dict) and "elem" in said else said


def _given(entry: str) -> Any:
    """An entry of `sets=`, written as for ipset, as nft would give it."""
    word = entry.partition(" ")[0]
    parts = [
        int(part) if part.isdecimal() else part
        for each in word.split(",")
        for part in ([each] if each.count(":") != 1 else each.split(":"))
    ]
    return {"concat": parts} if len(parts) > 1 else parts[0]


def _ports(said: Any) -> Range | None:
    if said is None:
        return None
    value = read("port", said)
    return value if isinstance(value, Range) else Range(value, value)


def _place(said: Any, port: Any) -> Place | None:
    if isinstance(said, dict) and "concat" in said:
        said, port = said["concat"][0], said["concat"][1]
    addresses: AddressRange | None = None
    try:
        if isinstance(said, dict) and "prefix" in said:
            net: Network = read("address", said)
            whole = FULL if net.version == 4 else (1 << 128) - 1
            addresses = AddressRange(net.version, net.address, net.address | (whole & ~net.mask))
        elif isinstance(said, dict) and "range" in said:
            addresses = address_range(f"{said['range'][0]}-{said['range'][1]}")
        elif isinstance(said, str):
            addresses = address_range(said)
        elif said is not None:
            return None
        return Place(addresses, _ports(port))
    except (ValueError, ParseError):
        return None
