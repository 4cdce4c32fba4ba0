"""What a trace says in the situations that rules are written for."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lab_utils.errors import BadInput
from lab_utils.iptables import parse, parse_sets
from lab_utils.trace import Packet, Trace, trace

DATA = Path(__file__).parent.parent / "data" / "iptables"
NODE = {"lo": ["127.0.0.1"], "eth0": ["192.168.0.2"], "docker0": ["172.17.0.1"]}


def table(name: str, *rules: str, chains: str = "") -> str:
    declared = "".join(f":{chain} - [0:0]\n" for chain in chains.split())
    return f"*{name}\n{declared}" + "".join(f"-A {rule}\n" for rule in rules) + "COMMIT\n"


def go(text: str, src: str = "10.0.0.9", dst: str = "10.0.1.9", dport: int | None = 80, origin: Any = "external", **more: Any) -> Trace:
    known = {name: more.pop(name) for name in ("sets", "recent", "routes", "explain", "local_addresses") if name in more}
    return trace(parse(text), Packet(src, dst, dport, **more), known.pop("local_addresses", NODE), origin, **known)


def addresses(found: Trace) -> dict[str, Fraction]:
    return {destination.address: destination.probability for destination in found.destinations}


# The way through the hooks


def test_without_rules_everything_passes() -> None:
    found = go("")
    assert (found.verdict, found.destinations, found.masquerade, found.undecided) == ("ACCEPT", (), False, ())
    assert [step.hook for step in found.steps] == ["routing"]


@pytest.mark.parametrize(
    ("origin", "dst", "hooks"),
    [
        ("external", "10.0.1.9", ["PREROUTING", "FORWARD", "POSTROUTING"]),
        ("pod", "192.168.0.2", ["PREROUTING", "INPUT"]),
        ("local", "10.0.1.9", ["OUTPUT", "POSTROUTING"]),
        ("local", "192.168.0.2", ["OUTPUT", "POSTROUTING", "PREROUTING", "INPUT"]),
    ],
)
def test_each_origin_has_its_own_way(origin: str, dst: str, hooks: list[str]) -> None:
    text = table("mangle", *(f"{hook} -j MARK --or-mark 0x1" for hook in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")))
    assert [step.hook for step in go(text, dst=dst, origin=origin).steps if step.hook != "routing"] == hooks


def test_tables_come_in_the_kernels_order() -> None:
    every = "".join(table(name, "PREROUTING -p tcp") for name in ("nat", "raw", "mangle"))
    out = "".join(table(name, "OUTPUT -p tcp") for name in ("security", "filter", "nat", "raw", "mangle"))
    assert [step.table for step in go(every).steps if step.table] == ["raw", "mangle", "nat"]
    assert [step.table for step in go(out, origin="local").steps if step.table] == ["raw", "mangle", "nat", "filter", "security"]


def test_a_policy_decides_where_no_rule_does() -> None:
    found = go("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n")
    assert found.verdict == "DROP"
    assert found.steps[-1].rule == "policy DROP"
    assert go("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n", protocol="udp").verdict == "ACCEPT"


def test_return_leads_back_and_goto_skips_the_caller() -> None:
    rules = ("FORWARD -j A", "FORWARD -j DROP", "A -g B", "A -j ACCEPT", "B -p tcp -j RETURN")
    assert go(table("filter", *rules, chains="A B")).verdict == "DROP"
    assert go(table("filter", "FORWARD -g A", "FORWARD -j DROP", "A -j RETURN", chains="A")).verdict == "ACCEPT"


def test_rejected_is_told_from_dropped() -> None:
    assert go(table("filter", "FORWARD -p tcp -j REJECT --reject-with tcp-reset")).verdict == "REJECT"
    assert go(table("mangle", "PREROUTING -j DROP")).verdict == "DROP"


# Rewriting


def test_a_rewritten_destination_is_routed_and_filtered_as_such() -> None:
    text = table("nat", "PREROUTING -p tcp --dport 80 -j DNAT --to-destination 192.168.0.2:8080") + table(
        "filter", "INPUT -p tcp --dport 8080 -j DROP"
    )
    found = go(text)
    assert found.verdict == "DROP"
    assert [(d.address, d.verdict) for d in found.destinations] == [("192.168.0.2:8080", "DROP")]


def test_the_first_nat_decision_stands() -> None:
    text = table("nat", "PREROUTING -s 10.0.0.9 -j ACCEPT", "PREROUTING -j DNAT --to-destination 10.9.9.9")
    assert go(text).destinations == ()
    assert addresses(go(text, src="10.0.0.8")) == {"10.9.9.9:80": 1}


@pytest.mark.parametrize("state", ["ESTABLISHED", "INVALID", "UNTRACKED"])
def test_only_a_new_connection_is_rewritten(state: str) -> None:
    assert go(table("nat", "PREROUTING -j DNAT --to-destination 10.9.9.9"), ctstate=state).destinations == ()


def test_an_untracked_packet_is_not_rewritten() -> None:
    text = table("raw", "PREROUTING -j CT --notrack") + table("nat", "PREROUTING -j DNAT --to-destination 10.9.9.9")
    text += table("filter", "FORWARD -m conntrack --ctstate UNTRACKED -j DROP")
    found = go(text)
    assert (found.verdict, found.destinations) == ("DROP", ())


def test_redirect_leads_to_the_node() -> None:
    assert addresses(go(table("nat", "PREROUTING -p tcp -j REDIRECT --to-ports 9000"), in_interface="eth0")) == {"192.168.0.2:9000": 1}
    assert addresses(go(table("nat", "OUTPUT -p tcp -j REDIRECT"), origin="local")) == {"127.0.0.1:80": 1}


def test_ports_of_a_range_are_kept_or_the_first_is_taken() -> None:
    text = table("nat", "PREROUTING -p tcp -j DNAT --to-destination 10.9.9.9:8000-8010")
    assert addresses(go(text)) == {"10.9.9.9:8000": 1}
    assert addresses(go(text, dport=8005)) == {"10.9.9.9:8005": 1}


def test_netmap_exchanges_the_network() -> None:
    assert addresses(go(table("nat", "PREROUTING -d 10.0.1.0/24 -j NETMAP --to 10.8.8.0/24"))) == {"10.8.8.9:80": 1}


def test_masquerade_and_snat_change_the_source() -> None:
    found = go(table("nat", "POSTROUTING -j MASQUERADE"), routes={"0.0.0.0/0": "eth0"})
    assert found.masquerade and found.outcomes[0].source == "192.168.0.2"
    found = go(table("nat", "POSTROUTING -j SNAT --to-source 1.2.3.4"))
    assert not found.masquerade and found.outcomes[0].source == "1.2.3.4"


def test_ipv6_destinations_have_brackets() -> None:
    found = go(table("nat", "PREROUTING -p tcp -j DNAT --to-destination [fd00::1]:8080"), src="fd00::9", dst="fd01::9")
    assert addresses(found) == {"[fd00::1]:8080": 1}


# Chance


def test_shares_are_exact_and_add_up() -> None:
    rules = [
        f"S -p tcp -m statistic --mode random --probability {1 / left:.10f} -j DNAT --to-destination 10.9.0.{left}"
        for left in range(7, 1, -1)
    ]
    found = go(table("nat", "PREROUTING -j S", *rules, "S -p tcp -j DNAT --to-destination 10.9.0.1", chains="S"))
    assert list(addresses(found).values()) == [Fraction(1, 7)] * 7
    assert found.verdicts == {"ACCEPT": 1}


def test_what_chance_leaves_alone_is_told_as_well() -> None:
    found = go(table("nat", "PREROUTING -p tcp -m statistic --mode random --probability 0.2 -j DNAT --to-destination 10.9.9.9"))
    assert addresses(found) == {"10.9.9.9:80": Fraction(1, 5), "10.0.1.9:80": Fraction(4, 5)}
    assert [destination.rewritten for destination in found.destinations] == [True, False]


def test_branches_may_end_differently() -> None:
    text = table(
        "nat",
        "PREROUTING -p tcp -m statistic --mode random --probability 0.25 -j DNAT --to-destination 10.9.9.9",
        "PREROUTING -p tcp -j DNAT --to-destination 10.9.9.8",
    )
    found = go(text + table("filter", "FORWARD -d 10.9.9.9 -j REJECT"))
    assert found.verdict == "ACCEPT"
    assert found.verdicts == {"ACCEPT": Fraction(3, 4), "REJECT": Fraction(1, 4)}
    assert {d.address: d.verdict for d in found.destinations} == {"10.9.9.9:80": "REJECT", "10.9.9.8:80": "ACCEPT"}
    assert "REJECT (1/4)" in found.summary


def test_many_rules_of_chance_do_not_explode() -> None:
    rules = [f"FORWARD -m statistic --mode random --probability 0.5 -j MARK --or-mark {1 << (n % 4):#x}" for n in range(60)]
    found = go(table("mangle", *rules))
    assert sum(outcome.probability for outcome in found.outcomes) == 1


# Marks, states, kinds of address


@pytest.mark.parametrize(
    ("how", "before", "after"),
    [
        ("--set-xmark 0x4000/0x4000", 0x1, 0x4001),
        ("--set-xmark 0x4000/0xffffffff", 0x1, 0x4000),
        ("--set-xmark 0x1/0x0", 0x1, 0x0),
        ("--set-mark 0x2/0x3", 0x5, 0x6),
        ("--and-mark 0xf0", 0xFF, 0xF0),
        ("--or-mark 0x4000", 0x1, 0x4001),
        ("--xor-mark 0x4000", 0x4001, 0x1),
    ],
)
def test_marks_are_set_as_the_kernel_does(how: str, before: int, after: int) -> None:
    assert go(table("mangle", f"FORWARD -j MARK {how}"), mark=before).mark == after


def test_a_connections_mark_is_saved_and_restored() -> None:
    text = table(
        "mangle", "PREROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff", "PREROUTING -j MARK --set-xmark 0x0/0xffffffff"
    )
    assert go(text + table("filter", "FORWARD -j CONNMARK --restore-mark"), mark=0x123).mark == 0x23


def test_the_states_of_a_connection_include_that_it_was_rewritten() -> None:
    nat = table("nat", "PREROUTING -d 10.0.1.9 -j DNAT --to-destination 10.9.9.9")
    rule = table("filter", "FORWARD -m conntrack ! --ctstate DNAT -j DROP")
    assert go(nat + rule).verdict == "ACCEPT"
    assert go(nat + rule, dst="10.0.1.8").verdict == "DROP"


def test_local_is_what_the_node_owns() -> None:
    text = table("nat", "PREROUTING -m addrtype --dst-type LOCAL -j DNAT --to-destination 10.9.9.9")
    assert go(text, dst="192.168.0.2").destinations
    assert go(text, dst="127.0.0.5", origin="external").destinations
    assert not go(text, dst="192.168.0.3").destinations
    assert not trace(parse(text), Packet("10.0.0.9", "192.168.0.2", 80), []).destinations


def test_a_bridged_frame_is_told_from_a_routed_packet() -> None:
    text = table("filter", "FORWARD -m physdev --physdev-is-bridged -j DROP")
    assert go(text).verdict == "ACCEPT"
    assert go(text, physdev_in="veth1", physdev_out="veth2").verdict == "DROP"


# Lists and sets


def test_session_affinity_keeps_a_client_with_its_endpoint() -> None:
    text = (DATA / "kube-proxy" / "trace-packet.restore.txt").read_text()
    text = text.replace(
        '-A KUBE-SVC-4SW47YFZTEDKD3PK -m comment --comment "ns4/svc4:p80 -> 10.180.0.4:80" -m statistic',
        "-A KUBE-SVC-4SW47YFZTEDKD3PK -m recent --name SEP5 --rcheck --seconds 10800 --reap -j KUBE-SEP-C6EBXVWJJZMIWKLZ\n"
        '-A KUBE-SVC-4SW47YFZTEDKD3PK -m comment --comment "ns4/svc4:p80 -> 10.180.0.4:80" -m statistic',
    )

    def ends(**more: Any) -> dict[str, Fraction]:
        return addresses(go(text, src="10.0.0.2", dst="172.30.0.44", origin="pod", **more))

    both = {"10.180.0.4:80": Fraction(1, 2), "10.180.0.5:80": Fraction(1, 2)}
    assert ends() == both
    assert ends(recent={"SEP5": ["10.0.0.2"]}) == {"10.180.0.5:80": 1}
    assert ends(recent={"SEP5": ["10.0.0.3"]}) == both
    assert ends(recent={"SEP5": {"10.0.0.2": 20000}}) == both


def test_a_packet_may_meet_the_list_that_it_was_put_on() -> None:
    text = table("filter", "FORWARD -m recent --name x --set", "FORWARD -m recent --name x --rcheck -j DROP")
    assert go(text).verdict == "DROP"
    assert go(table("filter", "FORWARD -m recent --name x --rcheck -j DROP")).verdict == "ACCEPT"


SETS = """create NETS hash:net family inet
add NETS 10.0.0.0/8
add NETS 10.0.0.9 nomatch
create PORTS hash:ip,port family inet
add PORTS 10.0.1.9,tcp:80
add PORTS 10.0.1.8,udp:53
create BOTH list:set size 8
add BOTH NETS
"""


@pytest.mark.parametrize(
    ("match", "src", "dst", "held"),
    [
        ("NETS src", "10.0.0.8", "1.1.1.1", True),
        ("NETS src", "10.0.0.9", "1.1.1.1", False),
        ("BOTH src", "10.0.0.8", "1.1.1.1", True),
        ("PORTS dst,dst", "9.9.9.9", "10.0.1.9", True),
        ("PORTS dst,dst", "9.9.9.9", "10.0.1.8", False),
    ],
)
def test_sets_are_looked_into(match: str, src: str, dst: str, held: bool) -> None:
    text = table("filter", f"FORWARD -m set --match-set {match} -j DROP")
    assert go(text, src=src, dst=dst, sets=parse_sets(SETS)).verdict == ("DROP" if held else "ACCEPT")


# What cannot be known


@pytest.mark.parametrize(
    "rule",
    [
        "FORWARD -m set --match-set X src -j DROP",
        "FORWARD -i eth7 -j DROP",
        "FORWARD -o eth7 -j DROP",
        "FORWARD -m shiny --gloss -j DROP",
        "FORWARD -p tcp -m tcp --sport 1234 -j DROP",
        "FORWARD -j NFQUEUE --queue-num 1",
        "FORWARD -j POLISH",
        "FORWARD -m string --string x --algo bm -j DROP",
    ],
)
def test_a_rule_that_cannot_be_decided_is_named(rule: str) -> None:
    found = go(table("filter", rule))
    assert found.verdict == "ACCEPT"
    assert [each.rule for each in found.undecided] == [f"-A {rule}"]
    assert "DROP" in found.undecided[0].otherwise
    assert "undecided" in found.summary


def test_an_undecided_rule_is_not_named_where_it_changes_nothing() -> None:
    rules = ("FORWARD -i eth7 -j DROP", "FORWARD -s 10.0.0.9 -j DROP")
    assert go(table("filter", *rules)).undecided == ()
    assert go(table("filter", "FORWARD -i eth7 -p udp -j DROP")).undecided == ()
    assert go(table("filter", "FORWARD -m limit --limit 3/min -j LOG")).undecided == ()


def test_what_is_known_decides() -> None:
    rule = table("nat", "PREROUTING ! -i docker0 -p tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80")
    assert addresses(go(rule, in_interface="eth0")) == {"172.17.0.2:80": 1}
    assert not go(rule, in_interface="docker0").destinations
    assert go(rule).undecided


def test_rules_of_the_other_family_say_nothing() -> None:
    found = go(table("filter", "FORWARD -s fd00::/8 -j DROP"))
    assert found.undecided and "IPv6" in str(found.undecided[0])


# Circles and other faults


def test_a_circle_of_chains_is_named() -> None:
    with pytest.raises(BadInput, match="A → B → A"):
        go(table("filter", "FORWARD -j A", "A -j B", "B -j A", chains="A B"))


def test_chains_may_not_nest_without_end() -> None:
    chains = [f"C{n}" for n in range(1000)]
    rules = [f"{one} -j {other}" for one, other in pairwise(chains)]
    with pytest.raises(BadInput, match="deep"):
        go(table("filter", "FORWARD -j C0", *rules, chains=" ".join(chains)))


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        ({"src": "nowhere"}, "src"),
        ({"dst": "10.0.0.1.1"}, "dst"),
        ({"dst": "fd00::1"}, "IPv6"),
        ({"dport": 70000}, "not a port"),
        ({"protocol": "carrier-pigeon"}, "not a protocol"),
        ({"ctstate": "OLD"}, "state"),
        ({"origin": "mars"}, "origin"),
        ({"local_addresses": ["x"]}, "local address"),
        ({"local_addresses": "10.0.0.1"}, "list"),
        ({"routes": {"x": "eth0"}}, "route"),
    ],
)
def test_a_packet_that_cannot_be_is_refused(packet: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        go("", **packet)


def test_the_zone_of_an_address_is_its_interface() -> None:
    packet = Packet("fe80::1%eth0", "fe80::2%eth0", 80)
    assert (packet.src, packet.dst, packet.in_interface) == ("fe80::1", "fe80::2", "eth0")


# The story


def test_a_near_miss_is_explained_when_asked() -> None:
    text = table("filter", "FORWARD -d 10.0.1.9 -p tcp --dport 81 -j DROP", "FORWARD -s 10.0.0.8 -j DROP")
    assert all(step.matched for step in go(text).steps)
    missed = [step for step in go(text, explain=True).steps if not step.matched]
    assert [step.why for step in missed] == ["the destination port is 80", "the source is 10.0.0.9"]


def test_the_story_can_be_written_as_json_and_as_text() -> None:
    text = (DATA / "kube-proxy" / "trace-packet.save.txt").read_text()
    found = go(text, src="10.0.0.2", dst="172.30.0.44", origin="pod", local_addresses=["192.168.0.2"])
    read = json.loads(json.dumps(found.to_dict()))
    assert read["destinations"][0] == {
        "address": "10.180.0.4:80",
        "probability": "1/2",
        "verdict": "ACCEPT",
        "masquerade": False,
        "source": None,
        "rewritten": True,
    }
    assert "KUBE-SVC-4SW47YFZTEDKD3PK" in str(found)
    assert [step.chain for step in found.destinations[1].steps if step.table == "nat"][:4] == [
        "PREROUTING",
        "KUBE-SERVICES",
        "KUBE-SVC-4SW47YFZTEDKD3PK",
        "KUBE-SEP-C6EBXVWJJZMIWKLZ",
    ]


def test_rules_of_a_real_cluster_are_followed() -> None:
    ruleset = parse((DATA / "cluster" / "w1.iptables.save.txt").read_text())
    assert not ruleset.unknown
    node = ["172.31.64.12", "10.244.2.1"]
    dns = trace(ruleset, Packet("10.244.2.13", "10.96.0.10", 53, protocol="udp"), node, "pod")
    assert addresses(dns) == {"10.244.0.2:53": Fraction(1, 2), "10.244.0.3:53": Fraction(1, 2)}
    assert (dns.masquerade, dns.undecided) == (False, ())
    out = trace(ruleset, Packet("10.244.2.13", "8.8.8.8", 53, protocol="udp"), node, "pod")
    assert (out.verdict, out.masquerade, out.destinations) == ("ACCEPT", True, ())
    none = trace(ruleset, Packet("10.244.2.13", "10.96.191.70", 8938), node, "pod")
    assert none.verdict == "REJECT"
