"""The fraction that a `--probability` means.

The kernel keeps a probability as a whole number of 2⁻³¹ (libxt_statistic.c: lround(0x80000000 * p)), and
iptables-save prints that with eleven digits: kube-proxy's 1/3 comes back as 0.33333333349. kube-proxy itself
writes 1/n with ten digits (before 1.18: five), n being the number of endpoints that are left, thus of rules.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

STEPS = 1 << 31


def steps(value: Fraction) -> int:
    """The number that the kernel keeps: halves are rounded away from zero, as lround(3) does."""
    return int(value * STEPS + Fraction(1, 2))


@lru_cache(maxsize=4096)  # a cluster has thousands of Services and few different numbers of endpoints
def exact(word: str, remaining: int = 0) -> Fraction:
    """What was meant by `word`, in a rule after which, itself included, `remaining` rules of its chain are left."""
    said = Fraction(word)
    if remaining > 1 and _is_nth(said, remaining):
        return Fraction(1, remaining)
    if len(word.partition(".")[2]) < 10:
        return said  # a person wrote this, or kube-proxy long ago; it says what it says
    if said and _is_nth(said, round(1 / said), digits=(10,)):
        return Fraction(1, round(1 / said))
    kept = steps(said)
    for digits in range(1, 8):
        short = round(said, digits)
        if steps(short) == kept:
            return short
    return said if abs(said - Fraction(kept, STEPS)) > Fraction(1, 10**11) else Fraction(kept, STEPS)


def _is_nth(said: Fraction, n: int, digits: tuple[int, ...] = (10, 5)) -> bool:
    nth = Fraction(1, n)
    kept = steps(said)
    return said == nth or any(steps(near) == kept or near == said for near in (nth, *(round(nth, count) for count in digits)))
