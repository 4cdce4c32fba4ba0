"""What `nft.parse` reads, and what the tracer makes of it."""

from __future__ import annotations

import contextlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils import nft
from lab_utils.errors import BadInput, ParseError
from lab_utils.iptables import parse
from lab_utils.trace import Packet, Trace, trace

DATA = Path(__file__).parent.parent / "data" / "nft" / "kube-proxy"
CALM = settings(derandomize=True, database=None, deadline=None, max_examples=150)


def rules(*statements: list[Any], hook: str = "forward", kind: str = "filter", prio: int = 0, more: tuple[Any, ...] = ()) -> str:
    home = {"family": "ip", "table": "t"}
    objects: list[Any] = [
        {"table": {"family": "ip", "name": "t"}},
        *({name: {**home, **said}} for each in more for name, said in each.items()),
    ]
    objects.append({"chain": {**home, "name": "base", "hook": hook, "type": kind, "prio": prio, "policy": "accept"}})
    objects += [{"rule": {**home, "chain": "base", "handle": number, "expr": expr}} for number, expr in enumerate(statements, 1)]
    return json.dumps({"nftables": objects})


def go(text: str, src: str = "10.0.0.9", dst: str = "10.0.1.9", dport: int = 80, **more: Any) -> Trace:
    return trace(nft.parse(text), Packet(src, dst, dport, **more), ["192.168.0.2"])


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
DROP = {"drop": None}


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        (match(SADDR, "10.0.0.9"), True),
        (match(SADDR, "10.0.0.9", "!="), False),
        (match(SADDR, {"prefix": {"addr": "10.0.0.0", "len": 24}}), True),
        (match(SADDR, {"set": ["10.0.0.8", {"range": ["10.0.0.9", "10.0.0.12"]}]}), True),
        (match(SADDR, {"set": ["10.0.0.8"]}, "!="), True),
        (match(DPORT, {"range": [79, 81]}), True),
        (match(DPORT, 80, "<"), False),
        (match(DPORT, 80, ">="), True),
        (match({"payload": {"protocol": "udp", "field": "dport"}}, 80), False),
        (match({"payload": {"protocol": "ip6", "field": "saddr"}}, "fd00::1", "!="), False),
        (match({"meta": {"key": "l4proto"}}, "tcp"), True),
        (match({"meta": {"key": "l4proto"}}, {"set": ["udp", "tcp"]}), True),
        (match({"&": [{"meta": {"key": "mark"}}, 1]}, 1), True),
        (match({"ct": {"key": "state"}}, "new", "in"), True),
        (match({"ct": {"key": "state"}}, ["established", "related"], "in"), False),
        (match({"ct": {"key": "status"}}, "dnat", "in"), False),
        (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), False),
        (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local", "!="), True),
        (match({"ct": {"key": "ip daddr", "dir": "original"}}, "10.0.1.9"), True),
    ],
)
def test_conditions(condition: dict[str, Any], held: bool) -> None:
    found = go(rules([condition, DROP]), mark=3)
    assert found.verdict == ("DROP" if held else "ACCEPT")
    assert not found.undecided


def test_maps_decide_by_what_they_hold() -> None:
    verdicts = {
        "map": {"name": "m", "type": ["inet_proto", "inet_service"], "map": "verdict", "elem": [[{"concat": ["tcp", 80]}, {"drop": None}]]}
    }
    key = {"concat": [{"meta": {"key": "l4proto"}}, {"payload": {"protocol": "th", "field": "dport"}}]}
    text = rules([{"vmap": {"key": key, "data": "@m"}}], more=(verdicts,))
    assert go(text).verdict == "DROP"
    assert go(text, dport=81).verdict == "ACCEPT"


def test_numbers_drawn_at_random_share_the_traffic() -> None:
    places = {"set": [[n, {"concat": [f"10.9.0.{n}", 8080]}] for n in range(3)]}
    draw = {"numgen": {"mode": "random", "mod": 3, "offset": 0}}
    text = rules([{"dnat": {"family": "ip", "addr": {"map": {"key": draw, "data": places}}}}], hook="prerouting", kind="nat", prio=-100)
    assert {d.address: d.probability for d in go(text).destinations} == {f"10.9.0.{n}:8080": Fraction(1, 3) for n in range(3)}
    weighted = rules([match({"numgen": {"mode": "inc", "mod": 10, "offset": 0}}, 3, "<"), DROP])
    assert go(weighted).verdicts == {"DROP": Fraction(3, 10), "ACCEPT": Fraction(7, 10)}


def test_a_client_on_an_affinity_set_is_known_again() -> None:
    affinity = {"set": {"name": "seen", "type": "ipv4_addr", "flags": ["timeout"], "elem": [{"elem": {"val": "10.0.0.9", "expires": 99}}]}}
    text = rules([match(SADDR, "@seen"), DROP], more=(affinity,))
    assert go(text).verdict == "DROP"
    assert go(text, src="10.0.0.8").verdict == "ACCEPT"
    ruleset = nft.parse(text)
    assert trace(ruleset, Packet("10.0.0.8", "10.0.1.9", 80), sets={"seen": ["10.0.0.8"]}).verdict == "DROP"


def test_what_is_not_known_is_said() -> None:
    assert go(rules([match({"meta": {"key": "iifname"}}, "eth7"), DROP])).undecided
    assert not go(rules([match({"meta": {"key": "iifname"}}, "eth7"), DROP]), in_interface="eth0").undecided
    assert go(rules([{"shine": {}}, DROP])).undecided
    found = go(rules([{"queue": {"num": 100}}]))
    assert (found.verdict, len(found.undecided)) == ("ACCEPT", 1)


def test_rules_read_like_nft_writes_them() -> None:
    ruleset = nft.parse((DATA / "trace-packetv4.json").read_text())
    said = {str(rule) for chain in ruleset.chains for rule in chain}
    assert "ip daddr . meta l4proto . th dport vmap @service-ips" in said
    assert "ct state new jump firewall-check" in said


def test_rules_of_iptables_and_nft_are_followed_together() -> None:
    nat = nft.parse(rules([{"dnat": {"addr": "10.9.9.9", "port": 8080}}], hook="prerouting", kind="nat", prio=-100))
    drop = parse("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -d 10.9.9.9/32 -j DROP\nCOMMIT\n")
    found = trace([nat, drop], Packet("10.0.0.9", "10.0.1.9", 80))
    assert [(d.address, d.verdict) for d in found.destinations] == [("10.9.9.9:8080", "DROP")]


def test_a_circle_of_chains_is_named() -> None:
    inner = {"chain": {"name": "a"}}
    text = json.loads(rules([{"jump": {"target": "a"}}], more=(inner,)))
    text["nftables"].append({"rule": {"family": "ip", "table": "t", "chain": "a", "handle": 9, "expr": [{"jump": {"target": "a"}}]}})
    with pytest.raises(BadInput, match="a → a"):
        go(json.dumps(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"nftables": {}}',
        '{"nftables": [1]}',
        '{"nftables": [{"chain": {}}]}',
        '{"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "c", "expr": []}}]}',
        rules([{"jump": {"target": "nowhere"}}]),
        "[" * 100_000,
        b"\xff\xfe{\x00",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_ruleset_is_refused(text: str | bytes) -> None:
    with pytest.raises(ParseError):
        nft.parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 99) | st.sampled_from(["ip", "t", "base", "tcp", "10.0.0.1", "@m", "new"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["match", "vmap", "op", "left", "right", "payload", "meta", "key", "set", "drop", "jump", "target", "dnat", "addr"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@CALM
@given(st.lists(JSON, max_size=4))
def test_any_statements_give_a_trace_or_a_clear_error(statements: list[Any]) -> None:
    with contextlib.suppress(BadInput):
        go(rules(statements))


@CALM
@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        nft.parse(data)
