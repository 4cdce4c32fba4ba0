"""The exact fraction behind a `--probability`."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from lab_utils.iptables import exact, parse
from tests.bench.big_cluster import kept


@pytest.mark.parametrize("count", [2, 3, 6, 7, 11, 49, 97, 333, 1000, 4999])
def test_every_endpoint_has_the_same_share_whatever_their_number(count: int) -> None:
    ways: list[Callable[[int], str]] = [lambda n: f"{1 / n:.10f}", lambda n: kept(1 / n), lambda n: kept(float(f"{1 / n:.10f}"))]
    for how in ways:
        chains = "".join(f":KUBE-SEP-{n} - [0:0]\n" for n in range(count))
        rules = "".join(
            f"-A KUBE-SVC-X {f'-m statistic --mode random --probability {how(count - n)} ' if n < count - 1 else ''}-j KUBE-SEP-{n}\n"
            f"-A KUBE-SEP-{n} -p tcp -j DNAT --to-destination 10.{n // 250}.{n % 250}.1:80\n"
            for n in range(count)
        )
        found = parse(f"*nat\n:KUBE-SVC-X - [0:0]\n{chains}{rules}COMMIT\n").endpoints("KUBE-SVC-X")
        assert [endpoint.probability for endpoint in found] == [Fraction(1, count)] * count


@pytest.mark.parametrize(
    ("word", "remaining", "meant"),
    [
        ("0.33333333349", 3, Fraction(1, 3)),
        ("0.3333333333", 3, Fraction(1, 3)),
        ("0.33333", 3, Fraction(1, 3)),  # kube-proxy before 1.18
        ("0.33332999982", 3, Fraction(1, 3)),  # and what the kernel made of that
        ("0.33333333349", 1, Fraction(1, 3)),  # a rule of one's own, with nothing after it
        ("0.50000000000", 2, Fraction(1, 2)),
        ("0.2", 3, Fraction(1, 5)),
        ("0.20000000019", 3, Fraction(1, 5)),
        ("0.70000000019", 2, Fraction(7, 10)),
        ("0.33", 3, Fraction(33, 100)),
        ("0.14286", 3, Fraction(14286, 100000)),
        ("0.00000000000", 2, Fraction(0)),
        ("1.00000000000", 1, Fraction(1)),
        ("1", 1, Fraction(1)),
    ],
)
def test_what_was_meant_is_recovered_and_what_was_said_is_kept(word: str, remaining: int, meant: Fraction) -> None:
    assert exact(word, remaining) == meant


def test_odd_shares_are_what_they_say() -> None:
    text = """*nat
:C - [0:0]
-A C -p tcp -m statistic --mode random --probability 0.20000000019 -j DNAT --to-destination 10.0.0.1:80
-A C -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.0.0.2:80
-A C -p tcp -j DNAT --to-destination 10.0.0.3:80
COMMIT
"""
    assert [e.probability for e in parse(text).endpoints("C")] == [Fraction(1, 5), Fraction(2, 5), Fraction(2, 5)]


def test_every_nth_packet_is_a_share_too() -> None:
    text = """*nat
:C - [0:0]
-A C -p tcp -m statistic --mode nth --every 3 --packet 0 -j DNAT --to-destination 10.0.0.1:80
-A C -p tcp -m statistic --mode nth --every 2 --packet 0 -j DNAT --to-destination 10.0.0.2:80
-A C -p tcp -j DNAT --to-destination 10.0.0.3:80
COMMIT
"""
    assert [e.probability for e in parse(text).endpoints("C")] == [Fraction(1, 3)] * 3
