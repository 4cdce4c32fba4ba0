"""Benchmarks are ratios: two things measured in turn in one run, on whatever machine this is. Seconds alone say little."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
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
    pairs = [(seconds(ours), seconds(reference)) for _ in range(rounds)]
    mine, other = statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
    return Row(name, f"{mine:.3f} s", f"{other:.3f} s", f"{statistics.median(a / b for a, b in pairs):.2f}")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def table(rows: list[Row]) -> str:
    lines = [("", "ours", "reference", "ratio"), *rows]
    widths = [max(len(str(line[i])) for line in lines) for i in range(4)]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
