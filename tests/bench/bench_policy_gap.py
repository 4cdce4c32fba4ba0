"""What slips through while the rules of lab 11's agent are replaced 300 times, in three ways: `python -m tests.bench policy_gap`.

A Pod that no version of the policy allows sends datagrams to another as fast as Python can. Ours is what arrived, the reference what was
sent. The first two ways are what one would write first; the third is the agent's.
"""

from __future__ import annotations

import os
import select
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from lab_utils.policies import Request
from tests.bench.report import Row
from tests.kernel import agent_source
from tests.kernel.pod_wires import ADDRESSES, PodWires, hear, packet, pod_wires
from tests.kernel.test_policy_agent import SPACES, B, only, pod, policy

TIMES = 300
SENDER, RECEIVER = "p11", "p12"  # the Pods a and b; the policy lets c in
Load = Callable[[str], Any]


def text(rules: ModuleType, number: int, table: str = "policy-a") -> str:
    """Each time another policy, that never lets a in."""
    others = [{"ipBlock": {"cidr": f"192.168.{n}.0/24"}} for n in range(number % 7)]
    spec = {"podSelector": B, "ingress": [{"from": [only("c"), *others]}]}
    contents = rules.ruleset([policy(spec)], [pod(letter) for letter in "abc"], SPACES, "n1", ["10.244.1.0/24"])
    return str(rules.in_tables(table, contents))


def gone(table: str) -> str:
    return "".join(f"table {family} {table}\ndelete table {family} {table}\n" for family in ("ip", "ip6"))


def two_steps(rules: ModuleType, load: Load, number: int) -> None:
    load(gone("policy-a"))
    load(text(rules, number))


def one_transaction(rules: ModuleType, load: Load, number: int) -> None:
    load(text(rules, number))  # it begins with deleting the table of that name


def two_tables(rules: ModuleType, load: Load, number: int) -> None:
    new, old = ("policy-a", "policy-b") if number % 2 else ("policy-b", "policy-a")
    load(text(rules, number, new))
    load(gone(old))


def slipped(wires: PodWires, rules: ModuleType, way: Callable[[ModuleType, Load, int], None]) -> tuple[int, int]:
    """How many datagrams arrived, and how many were sent."""

    def load(rules_of_now: str) -> None:
        wires.on("n1", "nft", "-f", "-", text=rules_of_now)

    wires.on("n1", "nft", "flush", "ruleset")
    load(text(rules, 1))
    src, dst = ADDRESSES[SENDER][0], ADDRESSES[RECEIVER][0]
    datagrams = [packet(Request(src, dst, "UDP", 80), 20000 + n, n + 1) for n in range(2000)]
    stop, sent, arrived = threading.Event(), 0, 0

    def send() -> None:
        nonlocal sent
        while not stop.is_set():
            for each in datagrams:
                wires.senders[SENDER, 4].sendto(each, (dst, 0))
            sent += len(datagrams)

    def listen() -> None:
        nonlocal arrived
        while not stop.is_set() or select.select(wires.catchers, [], [], 0.3)[0]:
            for ear in select.select(wires.catchers, [], [], 0.1)[0]:
                while hear(ear) is not None:
                    arrived += 1

    threads = [threading.Thread(target=work) for work in (send, listen)]
    for thread in threads:
        thread.start()
    try:
        for number in range(TIMES):
            way(rules, load, number)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return arrived, sent


def rows() -> list[Row]:
    if os.geteuid() != 0:
        return [Row("network namespaces need root", "", "", "")]
    with tempfile.TemporaryDirectory() as folder, pod_wires() as wires:
        rules = agent_source.rules(Path(folder))
        found = []
        for name, way in (("delete, then load", two_steps), ("in one transaction", one_transaction), ("two tables take turns", two_tables)):
            arrived, sent = slipped(wires, rules, way)
            found.append(Row(f"{name}: arrived | sent", f"{arrived:,}", f"{sent:,}", f"{arrived / sent:.6f}"))
        return found
