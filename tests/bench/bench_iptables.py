"""How fast dumps of large clusters are read and traced: `python -m tests.bench.bench_iptables`.

The reference for reading is `iptables-restore --test` on the same text (in a throw-away namespace); for a trace it is
the goal, 1 ms. Both sides are measured as processor time, the best of several runs, so that a busy machine tells the same.
"""

from __future__ import annotations

import gc
import os
import resource
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

from lab_utils.iptables import Ruleset, parse
from lab_utils.run import run
from lab_utils.trace import Packet, trace
from tests.bench.big_cluster import address, dump
from tests.bench.report import Row, table

SERVICES = 5000
CLUSTER = 10 << 24 | 96 << 16


def line(name: str, ours: float, reference: float, unit: str = "ms") -> Row:
    """A ratio below 1 is faster, or smaller, than the reference."""
    return Row(name, f"{ours:.4g} {unit}", f"{reference:.4g} {unit}", f"{ours / reference:.2f}")


def best(work: Callable[[], Any], times: int = 3) -> float:
    """Milliseconds of processor time."""
    taken = []
    for _ in range(times):
        gc.collect()
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken) * 1000


def read(text: str) -> Ruleset:
    return parse(text).index()


def restore_test(text: str, tool: str, times: int = 3) -> float:
    """What `iptables-restore --test` takes, in a network namespace made for it."""
    namespace = f"bench{os.getpid()}"
    run(["ip", "netns", "add", namespace])
    try:
        taken = []
        for _ in range(times):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run(["nsenter", f"--net=/run/netns/{namespace}", tool, "--test"], input=text)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(taken) * 1000
    finally:
        run(["ip", "netns", "del", namespace])


def one_trace(ruleset: Ruleset, warm: bool, count: int = 50, times: int = 6) -> float:
    """Mean milliseconds of a trace, the best of several rounds; cold: each to a Service that no trace went to before."""
    taken = []
    trace(ruleset, Packet("10.128.0.9", address(CLUSTER, 1), 80), origin="pod")  # what every packet meets is read once, as by an index
    for number in range(times):
        packets = [Packet("10.128.0.9", address(CLUSTER, 2 if warm else 3 + number + times * each), 80) for each in range(count)]
        taken.append(best(partial(follow, ruleset, packets), times=1) / count)
    return min(taken)


def follow(ruleset: Ruleset, packets: list[Packet]) -> None:
    for packet in packets:
        trace(ruleset, packet, origin="pod")


def bytes_per_rule(text: str) -> float:
    gc.collect()
    tracemalloc.start()
    try:
        ruleset = parse(text).index()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / len(ruleset)
    finally:
        tracemalloc.stop()


def rows(services: int = SERVICES) -> list[Row]:
    text = dump(services)
    ruleset = parse(text).index()
    ours = best(partial(read, text))
    found = []
    for tool in ("iptables-nft-restore", "iptables-legacy-restore"):
        theirs = restore_test(text, tool)
        found.append(line(f"parse and index {len(ruleset):,} rules | {tool} --test", ours, theirs))
    for warm in (False, True):
        taken = one_trace(ruleset, warm)
        found.append(line(f"one trace, {'again' if warm else 'first to its Service'} | goal", taken, 1.0))
    found.append(line("memory per rule | its text", bytes_per_rule(text), len(text) / len(ruleset), "bytes"))
    curve = []
    for count in (services // 8, services // 4, services // 2, services):
        part = dump(count)
        curve.append((count, best(partial(read, part))))
    for count, taken in curve:
        linear = curve[0][1] * count / curve[0][0]
        found.append(line(f"parse and index {count:,} Services | linear from {curve[0][0]:,}", taken, linear))
    return found


if __name__ == "__main__":
    print(table(rows()))
