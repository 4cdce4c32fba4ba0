"""Benchmarks are ratios: two things measured in turn in one run, on whatever machine this is. Seconds alone say little."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """`ours` and `reference` as people read them, and ours divided by the reference."""

    name: str
    ours: str
    reference: str
    ratio: str


def compare(name: str, ours: Callable[[], object], reference: Callable[[], object], *, rounds: int = 5) -> Row:
    """Run the two in turn, A B A B …, after one round that does not count; medians, and the median of the ratios pair by pair."""
    ours(), reference()
    return of_pairs(name, [(seconds(ours), seconds(reference)) for _ in range(rounds)], digits=3)


def of_pairs(name: str, pairs: Sequence[tuple[float, float]], *, digits: int = 1) -> Row:
    """Medians of what was measured in turn, in seconds, and the median of the ratios pair by pair."""
    mine, other = statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
    return Row(name, f"{mine:.{digits}f} s", f"{other:.{digits}f} s", f"{statistics.median(a / b for a, b in pairs):.2f}")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def table(rows: list[Row]) -> str:
    lines = [("", "ours", "reference", "ratio"), *rows]
    widths = [max(len(str(line[i])) for line in lines) for i in range(4)]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
