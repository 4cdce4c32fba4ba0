"""Whatever the text, `parse` gives rules or says which line is wrong. Nothing else."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from lab_utils.errors import ParseError
from lab_utils.iptables import parse
from lab_utils.iptables.shape import SHAPE
from lab_utils.iptables.spec import PatientReader, plainly
from lab_utils.iptables.words import split_words
from tests.bench.big_cluster import dump

CALM = settings(derandomize=True, database=None, deadline=None, max_examples=150)
PIECES = """-A -I -s -d -p -j -g -m ! --dport --sport --comment -i -o tcp udp comment statistic --mode random --probability 0.5
0.33333333349 1 10.0.0.1 10.0.0.0/8 10.0.0.300 fd00::1 80 99999 80:90 "a b" "a "b" \\" DNAT --to-destination 10.0.0.1:80 ACCEPT DROP
RETURN A B INPUT mark --mark 0x4000/0x4000 MARK --set-xmark conntrack --ctstate NEW addrtype --dst-type LOCAL -c 1 2 set --match-set x
src,dst --unknown [1:2] COMMIT *nat :A"""
WORDS = st.sampled_from(PIECES.split())


@CALM
@given(st.text())
def test_any_text(text: str) -> None:
    with contextlib.suppress(ParseError):
        parse(text)


@CALM
@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        parse(data)


@CALM
@given(st.lists(st.lists(WORDS, max_size=14).map(" ".join), max_size=5))
def test_any_words_where_rules_should_be(lines: list[str]) -> None:
    text = "\n".join(["*filter", ":INPUT ACCEPT [0:0]", ":A - [0:0]", ":B - [0:0]", *lines, "COMMIT"])
    try:
        ruleset = parse(text)
    except ParseError as error:
        assert error.line
        return
    again = parse(str(ruleset))
    assert list(again.rules) == list(ruleset.rules)
    assert str(again) == str(ruleset)


@CALM
@given(st.lists(WORDS, max_size=12))
def test_the_quick_ways_of_reading_a_rule_agree_with_the_patient_one(words: list[str]) -> None:
    spec = " ".join(words)
    try:
        split = split_words(spec)
        patient = PatientReader(list(split)).read()
    except ValueError:
        patient = None
    if SHAPE.fullmatch(" " + spec):
        assert patient is not None, spec
        shaped = SHAPE.fullmatch(" " + spec)
        assert shaped is not None and (patient.target.name if patient.target else None) == shaped["j"]
    if patient is not None and (quick := plainly(list(split))) is not None:
        assert quick == patient


@CALM
@given(st.text(min_size=0, max_size=40).filter(lambda text: not set(text) & set("\0\n\r")))
def test_any_comment_is_given_back(comment: str) -> None:
    said = comment.replace("\\", "\\\\").replace('"', '\\"')
    ruleset = parse(f'*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment "{said}" -j DROP\nCOMMIT\n')
    assert ruleset.chain("filter", "INPUT")[0].comment == comment
    assert parse(str(ruleset)).chain("filter", "INPUT")[0].comment == comment


@CALM
@given(st.integers(0, 400))
def test_a_text_cut_off_anywhere_is_refused_or_whole(cut: int) -> None:
    text = dump(2)
    with contextlib.suppress(ParseError):
        assert len(parse(text[: cut * 7])) <= len(parse(text))


def test_a_file_of_garbage_ends_at_once() -> None:
    """A stream is read only as far as it makes sense."""
    seen = 0

    def endless() -> object:
        nonlocal seen
        while True:
            seen += 1
            yield "lorem ipsum dolor\n"

    with contextlib.suppress(ParseError):
        parse(endless())  # type: ignore[arg-type]
    assert seen == 1


def test_hostile_lines_take_no_longer_than_they_are_long() -> None:
    tricky = [
        "-m comment --comment " * 400,
        "! " * 5000,
        "-s 1.1.1.1 " * 900,
        '"' * 9999,
        "-A A " + "a" * 9000,
        "-A A " + '-m comment --comment "' * 400,
    ]
    start = time.process_time()
    for line in tricky:
        with contextlib.suppress(ParseError):
            parse(f"*filter\n:A - [0:0]\n-A A {line}\nCOMMIT\n")
    assert time.process_time() - start < 2


def test_a_long_stream_costs_the_memory_of_its_rules_only() -> None:
    def lines() -> Iterator[str]:
        yield from ("*filter", ":A - [0:0]")
        for number in range(300_000):
            yield f"# remark {number} {'x' * 100}"
        yield "-A A -j DROP"
        yield "COMMIT"

    tracemalloc.start()
    try:
        assert len(parse(lines())) == 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
