"""What `parse` reads, and that `str` gives it back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from lab_utils.errors import BadInput, LabError, ParseError
from lab_utils.iptables import Rule, parse

DATA = Path(__file__).parent.parent / "data" / "iptables"
DUMPS = sorted(DATA.rglob("*.txt"))


def filter_table(*rules: str) -> str:
    return "\n".join(
        ["*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":A - [0:0]", *rules, "COMMIT", ""]
    )


def one(rule: str) -> Rule:
    return next(parse(filter_table(rule)).rules)


@pytest.mark.parametrize("path", DUMPS, ids=lambda path: path.stem)
def test_a_recorded_dump_is_given_back_rule_for_rule(path: Path) -> None:
    text = path.read_text()
    ruleset = parse(text)
    again = parse(str(ruleset))
    assert str(again) == str(ruleset)
    assert list(again.rules) == list(ruleset.rules)
    assert len(ruleset) == sum(line.partition("] ")[2].startswith("-A ") or line.startswith("-A ") for line in text.splitlines())


@pytest.mark.parametrize("path", [path for path in DUMPS if path.name.endswith(".save.txt")], ids=lambda path: path.stem)
def test_what_iptables_save_printed_is_given_back_letter_for_letter(path: Path) -> None:
    def rules(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("#")]

    assert sorted(rules(str(parse(path.read_text())))) == sorted(rules(path.read_text()))


def test_counters_of_rules_and_chains_are_kept() -> None:
    text = "*filter\n:INPUT ACCEPT [12:3456]\n[7:890] -A INPUT -j DROP\n-A INPUT -j ACCEPT\nCOMMIT\n"
    ruleset = parse(text)
    first, second = ruleset["filter"].chains["INPUT"]
    assert (first.counters, second.counters) == ((7, 890), None)
    assert ruleset["filter"].chains["INPUT"].packets == 12
    assert str(ruleset) == text


@pytest.mark.parametrize(
    "rule",
    [
        "-A INPUT -m tcp -p tcp -d 10.0.0.1 --dport 80 ! -s 10.0.0.0/8 -j ACCEPT",
        "-A INPUT ! -s 10.0.0.0/8 -d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j ACCEPT",
        "-A INPUT --protocol tcp --destination 10.0.0.1 --destination-port 80 --source ! 10.0.0.0/8 --jump ACCEPT",
        "-A INPUT -ptcp --dport=80 -d10.0.0.1/255.255.255.255 ! --src 10.0.0.0/255.0.0.0 -j ACCEPT",
    ],
)
def test_the_order_and_spelling_of_options_do_not_matter(rule: str) -> None:
    read = one(rule)
    assert read.protocol == "tcp"
    assert read.dport == (80, 80)
    assert str(read.destination) == "10.0.0.1/32"
    negated = read.option("-s")
    assert negated is not None and negated.negated and str(negated.value) == "10.0.0.0/8"
    assert read.jump == "ACCEPT"


@pytest.mark.parametrize(
    "comment", ['say \\"hi\\"', "a back\\\\slash", "-j DROP -d 1.2.3.4", "it\\'s", "", "ünïcode → ✓", "two  blanks\tand a tab"]
)
def test_a_comment_keeps_its_quotes_and_escapes(comment: str) -> None:
    read = one(f'-A INPUT -m comment --comment "{comment}" -j ACCEPT')
    meant = comment.replace('\\"', '"').replace("\\'", "'").replace("\\\\", "\\")
    assert read.comment == meant
    assert read.jump == "ACCEPT"
    assert parse(filter_table(str(read))).chain("filter", "INPUT")[0].comment == meant


def test_unquoted_comments_are_read_as_kube_proxys_fake_prints_them() -> None:
    read = one("-A INPUT -m comment --comment kubernetes service portals -j ACCEPT")
    assert read.comment == "kubernetes service portals"
    assert str(read) == '-A INPUT -m comment --comment "kubernetes service portals" -j ACCEPT'


def test_inserted_rules_stand_before_appended_ones() -> None:
    ruleset = parse(filter_table("-A A -j ACCEPT", "-I A -j DROP", "-I A 2 -j RETURN"))
    assert [rule.jump for rule in ruleset.chain("filter", "A")] == ["DROP", "RETURN", "ACCEPT"]
    assert [line for line in str(ruleset).splitlines() if line.startswith("-A A")] == ["-A A -j DROP", "-A A -j RETURN", "-A A -j ACCEPT"]


def test_rules_and_chains_are_deleted_replaced_and_flushed_as_iptables_restore_does() -> None:
    lines = (
        "-A A -j ACCEPT",
        "-A A -s 1.1.1.1/32 -j DROP",
        "-D A -s 1.1.1.1 -j DROP",
        "-R A 1 -j RETURN",
        "-N B",
        "-A B -j A",
        "-F B",
        "-X B",
        "-P INPUT DROP",
    )
    ruleset = parse(filter_table(*lines))
    assert [rule.jump for rule in ruleset.chain("filter", "A")] == ["RETURN"]
    assert "B" not in ruleset["filter"]
    assert ruleset.chain("filter", "INPUT").policy == "DROP"


def test_several_addresses_stand_for_several_rules() -> None:
    ruleset = parse(filter_table("-A A -s 1.1.1.1,2.2.2.0/24 -d 3.3.3.3,4.4.4.4 -j DROP"))
    assert [(str(r.source), str(r.destination)) for r in ruleset.chain("filter", "A")] == [
        ("1.1.1.1/32", "3.3.3.3/32"),
        ("1.1.1.1/32", "4.4.4.4/32"),
        ("2.2.2.0/24", "3.3.3.3/32"),
        ("2.2.2.0/24", "4.4.4.4/32"),
    ]


def test_goto_is_told_from_jump() -> None:
    read = one("-A INPUT -g A")
    assert read.target is not None and read.target.goto and read.jump == "A"


def test_several_dumps_in_one_text_keep_their_families_apart() -> None:
    table = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j {}\nCOMMIT\n# Completed on Sat\n"
    four = "# Generated by iptables-save v1.8.9 (nf_tables) on Sat\n" + table.format("DROP")
    six = "# Generated by ip6tables-save v1.8.9 (nf_tables) on Sat\n" + table.format("REJECT")
    ruleset = parse(four + six + "*nat\nCOMMIT\n")
    assert [table.chains["INPUT"][0].jump for table in ruleset.tables_for(4, "filter")] == ["DROP"]
    assert [table.chains["INPUT"][0].jump for table in ruleset.tables_for(6, "filter")] == ["REJECT"]
    assert "nat" in ruleset
    assert len(ruleset) == 2


def test_of_one_table_twice_the_last_counts_but_legacy_and_nft_stand_side_by_side() -> None:
    def dump(target: str, head: str = "") -> str:
        return f"{head}*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 1.1.1.1/32 -j {target}\nCOMMIT\n"

    assert [r.jump for r in parse(dump("DROP") + dump("REJECT")).rules] == ["REJECT"]
    legacy, nft = (f"# Generated by iptables-save v1.8.9 ({backend}) on Sat\n" for backend in ("legacy", "nf_tables"))
    assert [r.jump for r in parse(dump("DROP", legacy) + dump("REJECT", nft)).rules] == ["DROP", "REJECT"]


def test_ipv6_addresses_are_read() -> None:
    rules = "-A A -s fd00::/64 ! -d ::1/128 -p tcp -j DNAT --to-destination [fd00::1]:8080\n-A A -j SNAT --to-source fd00::2\n"
    ruleset = parse(f"*nat\n:A - [0:0]\n{rules}COMMIT\n")
    rule = ruleset.chain("nat", "A")[0]
    place = rule.to_destination
    assert place is not None and place.ports == (8080, 8080) and place.addresses is not None and place.addresses.version == 6
    assert str(rule.source) == "fd00::/64"
    assert ruleset["nat"].family == 6


def test_unknown_matches_and_targets_are_kept_and_reported() -> None:
    rules = (
        "-A A -m shiny --gloss 3 --really -p tcp -j ACCEPT",
        "-A A -j POLISH --with cloth",
        "-A A -p tcp -m tcp --new-thing 5 -j DROP",
        "-A A -j NO-SUCH-CHAIN",
    )
    ruleset = parse(filter_table(*rules))
    assert [str(rule) for rule in ruleset.chain("filter", "A")] == list(rules)
    assert [(each.what, each.rule.line) for each in ruleset.unknown] == [
        ("match shiny", 6),
        ("target POLISH", 7),
        ("option --new-thing of tcp", 8),
        ("target NO-SUCH-CHAIN", 9),
    ]


def test_values_are_typed() -> None:
    matches = "-m multiport --dports 80,8000:8010 -m conntrack ! --ctstate INVALID,NEW -m mark --mark 0x4000/0x4000"
    rule = one(f"-A INPUT -p tcp {matches} -m set --match-set K src,dst -j A")
    values = {option.name: option.value for match in rule.matches for option in match.options}
    assert values["-p"] == 6
    assert values["--dports"] == ((80, 80), (8000, 8010))
    assert values["--ctstate"] == {"INVALID", "NEW"}
    assert values["--mark"] == (0x4000, 0x4000)
    assert values["--match-set"] == ("K", ("src", "dst"))


def test_a_stream_of_lines_is_read_as_well() -> None:
    text = filter_table("-A A -j DROP")
    assert (
        str(parse(iter(text.splitlines(keepends=True))))
        == str(parse(text))
        == str(parse(text.encode()))
        == str(parse(text.replace("\n", "\r\n")))
    )


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("-A NOWHERE -j ACCEPT", "no chain `NOWHERE`"),
        ('-A A -m comment --comment "open -j DROP', "never closed"),
        ("-A A -s 10.0.0.300 -j DROP", "not an address"),
        ("-A A -s 10.0.0.0/33 -j DROP", "longer than"),
        ("-A A -s fe80::1%eth0 -j DROP", "zone"),
        ("-A A -p tcp --dport 70000 -j DROP", "ports end at 65535"),
        ("-A A -p tcp --dport 90:80 -j DROP", "runs backwards"),
        ("-A A --dport 80 -j DROP", "-p tcp"),
        ("-A A -p tcp --dport", "line ends"),
        ("-A A stray -j DROP", "stands where an option should"),
        ("-A A -j DROP -j ACCEPT", "one target"),
        ("-A A -s 1.1.1.1 -s 2.2.2.2 -j DROP", "given twice"),
        ("-A A -m statistic --mode random --probability 1.5 -j DROP", "probability"),
        ("-A A -m conntrack --ctstate NEWISH -j DROP", "not a state"),
        ("-A A ! -j DROP", "cannot stand before"),
        ("-A A -p tcp ! --dport ! 80 -j DROP", "negated twice"),
        ("-A A -g NOWHERE", "no such chain"),
        ("-A A -t nat -j DROP", "no place here"),
        ("-A", "line ends"),
        ("garbage", "neither a rule"),
        ("[1:2 -A A -j DROP", "counters"),
        ("-I A 9 -j DROP", "no place 9"),
        ("-D A -j DROP", "no such rule"),
        ("*nat", "no COMMIT"),
        (":A", "declared as"),
        (":A MAYBE [0:0]", "not a policy"),
        ("-A A -j \0DROP", "zero byte"),
    ],
)
def test_a_bad_line_is_named(rule: str, said: str) -> None:
    with pytest.raises(ParseError, match=said) as caught:
        parse(filter_table("-A A -j RETURN", rule))
    assert caught.value.line == 7
    assert str(caught.value).startswith("line 7: ")
    assert isinstance(caught.value, (ValueError, BadInput, LabError))


@pytest.mark.parametrize(
    ("data", "said", "line"),
    [
        ("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j DR", "ends inside the table filter", 3),
        ("-A INPUT -j DROP\n", "outside of a table", 1),
        ("-P INPUT ACCEPT\n-N A\n", "iptables-save", 1),
        ("*filter\nCOMMIT\n".encode("utf-16"), "UTF-16", 1),
        (b"*filter\n:INPUT ACCEPT [0:0]\n\xff\xfe\x00\nCOMMIT\n", "not UTF-8", 3),
        ("\x7fELF\x02\x01\x01\0\0\0", "zero byte", 1),
        ("*filter\n" + "x" * 200_000, "no rule is that long", 2),
    ],
)
def test_what_is_no_dump_is_refused_with_its_line(data: str | bytes, said: str, line: int) -> None:
    with pytest.raises(ParseError, match=said) as caught:
        parse(data)
    assert caught.value.line == line


def test_a_message_repeats_nothing_that_a_terminal_would_obey() -> None:
    with pytest.raises(ParseError) as caught:
        parse("*filter\n\x1b[2Jboo\n")
    assert "\x1b" not in str(caught.value)


def test_an_empty_text_has_no_rules() -> None:
    assert len(parse("")) == 0
    assert str(parse("\n# a remark\n\n")) == ""


def test_a_bom_and_blank_lines_do_no_harm() -> None:
    assert len(parse("\ufeff" + filter_table("", "  ", "-A A -j DROP"))) == 1


def test_overlapping_networks_are_all_found() -> None:
    ruleset = parse(filter_table("-A A -s 10.0.0.0/8 -j DROP", "-A A -s 10.1.0.0/16 -j ACCEPT", "-A A -s 10.1.2.3/8 -j DROP"))
    assert [str(rule.source) for rule in ruleset.rules] == ["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"]


def test_chains_that_jump_in_a_circle_are_found() -> None:
    ruleset = parse("*filter\n:A - [0:0]\n:B - [0:0]\n:C - [0:0]\n-A A -j B\n-A B -p tcp -j C\n-A C -g A\nCOMMIT\n")
    assert ruleset.cycles() == [("filter", ("A", "B", "C"))]
    with pytest.raises(BadInput, match="circle"):
        ruleset.endpoints("A", "filter")


def test_thousands_of_nested_chains_are_no_trouble_to_the_circle_finder() -> None:
    count = 5000
    names = "".join(f":C{n} - [0:0]\n" for n in range(count))
    jumps = "".join(f"-A C{n} -j C{(n + 1) % count}\n" for n in range(count))
    assert len(parse(f"*filter\n{names}{jumps}COMMIT\n").cycles()[0][1]) == count


def test_who_jumps_where() -> None:
    ruleset = parse((DATA / "kube-proxy" / "trace-packet.restore.txt").read_text())
    assert {rule.chain for rule in ruleset.jumps_to("KUBE-SERVICES", "nat")} == {"PREROUTING", "OUTPUT"}
    assert ruleset.jumps_from("nat", "KUBE-SVC-4SW47YFZTEDKD3PK") == [
        "KUBE-MARK-MASQ",
        "KUBE-SEP-UKSFD7AGPMPPLUHC",
        "KUBE-SEP-C6EBXVWJJZMIWKLZ",
    ]
    with pytest.raises(BadInput, match="no chain"):
        ruleset.chain("nat", "KUBE-NOTHING")


def test_a_service_tells_its_chains_and_endpoints() -> None:
    ruleset = parse((DATA / "kube-proxy" / "trace-packet.restore.txt").read_text())
    service = ruleset.service("ns4/svc4")
    assert (service.name, service.cluster_ip, service.port, service.protocol) == ("ns4/svc4:p80", "172.30.0.44", 80, "tcp")
    assert service.external_ips == ["192.168.99.33"]
    assert service.chains == {"cluster": "KUBE-SVC-4SW47YFZTEDKD3PK", "external": "KUBE-EXT-4SW47YFZTEDKD3PK"}
    assert [(e.address, e.probability) for e in service.endpoints] == [("10.180.0.4:80", Fraction(1, 2)), ("10.180.0.5:80", Fraction(1, 2))]
    assert ruleset.service("ns5/svc5:p80").chains["firewall"] == "KUBE-FW-NUKIZ6OKUXPJNT4C"
    assert ruleset.service("ns5/svc5:p80").load_balancer_ips == ["5.6.7.8"]
    assert ruleset.service("ns6/svc6").rejected
    assert ruleset.service("svc2").node_port == 3001
    with pytest.raises(BadInput, match="no rule here speaks of"):
        ruleset.service("ns9/nothing")
