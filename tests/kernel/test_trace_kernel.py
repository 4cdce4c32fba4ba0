"""The kernel is the judge: random rules are loaded, real packets sent, and their fate compared with the trace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from lab_utils.errors import CommandFailed
from lab_utils.iptables import parse
from lab_utils.trace import Destination, Packet, Trace, trace
from tests.kernel.lines import NODE, ROUTES, Fate, Net, net
from tests.kernel.rules import HOOKS, IPV4, IPV6, Pool, Sent, packets, rulesets

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
EXAMPLES = int(os.environ.get("LAB_KERNEL_EXAMPLES", "40"))
CALM = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, *([Phase.shrink] if os.environ.get("LAB_KERNEL_SHRINK") else [])),  # shrinking takes minutes
)


@pytest.fixture(scope="module")
def wires() -> Iterator[Net]:
    with net() as made:
        yield made


def told(ruleset: Any, sent: Sent, sport: int) -> Trace:
    packet = Packet(
        sent.src,
        sent.dst,
        sent.dport,
        protocol=sent.protocol,
        sport=sport,
        in_interface={"client": "n0", "server": "n1", "node": None}[sent.who],
        mark=sent.mark,
    )
    origin = {"client": "external", "server": "pod", "node": "local"}[sent.who]
    return trace(ruleset, packet, NODE, origin, routes=ROUTES)  # type: ignore[arg-type]


def agrees(fate: Fate, outcome: Destination, sent: Sent) -> bool:
    if fate.verdict != outcome.verdict:
        return False
    if fate.verdict != "ACCEPT":
        return True
    if fate.destination != outcome.address:
        return False
    if outcome.masquerade and outcome.source is None:  # by lo: some address of the node
        return fate.source in {address for listed in NODE.values() for address in listed}
    source = outcome.source or sent.src
    if "." in source or source.startswith("["):
        source = source.rpartition(":")[0] if ":" in source else source
    return fate.source == source.strip("[]")


def compare(wires: Net, ruleset: Any, sent: list[Sent], text: str) -> None:
    numbered = {}
    for each in sent:
        sport = wires.next_sport()
        numbered[wires.send(each.who, each.protocol, each.src, each.dst, each.dport, sport, each.mark)] = each, sport
    fates = wires.fates(set(numbered))
    for number, (each, sport) in numbered.items():
        expected = told(ruleset, each, sport)
        assert not expected.undecided, expected.summary
        assert sum(outcome.probability for outcome in expected.outcomes) == 1
        fate = fates[number]
        if not any(agrees(fate, outcome, each) for outcome in expected.outcomes):
            fate = wires.fates({number}, patience=1.0)[number]
        note(text)
        assert any(agrees(fate, outcome, each) for outcome in expected.outcomes), f"{each}\nkernel: {fate}\n{expected}"


def load(wires: Net, restore: str, text: str) -> None:
    """What the kernel or the tool refuses is a fault of the generator, so it must not happen."""
    wires.on_node(restore, text=text)


@pytest.mark.parametrize(
    ("pool", "restore"), [(IPV4, "iptables-nft-restore"), (IPV6, "ip6tables-nft-restore"), (IPV4, "iptables-legacy-restore")]
)
def test_the_kernel_does_what_the_trace_says(wires: Net, pool: Pool, restore: str) -> None:
    # A policy outlives the flushing of its table, so it is set back too.
    tables = "".join(f"*{name}\n" + "".join(f":{hook} ACCEPT [0:0]\n" for hook in hooks) + "COMMIT\n" for name, hooks in HOOKS.items())

    @CALM
    @given(rulesets(pool), st.lists(packets(pool), min_size=6, max_size=12))
    def judge(text: str, sent: list[Sent]) -> None:
        wires.on_node(restore, text=tables)
        try:
            load(wires, restore, text)
        except CommandFailed as error:
            pytest.fail(f"{error}\n{text}")
        compare(wires, parse(text), sent, text)

    try:
        judge()
    finally:
        wires.on_node(restore, text=tables)


# How the traffic is split. χ² at one in a million: with the degrees of freedom of 2 to 8 ends.
CRITICAL = {1: 23.93, 2: 27.63, 3: 30.66, 4: 33.38, 5: 35.89, 6: 38.26, 7: 40.52}


def service(shares: list[str], *, save: bool) -> str:
    """A Service as kube-proxy writes it, with one more endpoint than there are probabilities; some share an address."""
    ends = [f"10.77.1.{11 + n % 3}:{8000 + n}" for n in range(len(shares) + 1)]
    names = "".join(f":KUBE-SEP-{n} - [0:0]\n" for n in range(len(ends)))
    order = "-d 10.96.0.10/32 -p udp -m udp --dport 80" if save else "-m udp -p udp -d 10.96.0.10 --dport 80"
    rules = [f"-A {hook} -j KUBE-SERVICES" for hook in ("PREROUTING", "OUTPUT")]
    rules += [f"-A KUBE-SERVICES {order} -j KUBE-SVC-X", "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000"]
    for n, end in enumerate(ends):
        chance = f"-m statistic --mode random --probability {shares[n]} " if n < len(shares) else ""
        rules += [f"-A KUBE-SVC-X {chance}-j KUBE-SEP-{n}", f"-A KUBE-SEP-{n} -s {end.partition(':')[0]}/32 -j KUBE-MARK-MASQ"]
        rules.append(f"-A KUBE-SEP-{n} -p udp -m udp -j DNAT --to-destination {end}")
    rules.append("-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE")
    chains = ":KUBE-SERVICES - [0:0]\n:KUBE-SVC-X - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n" + names
    return f"*nat\n{chains}" + "\n".join(rules) + "\nCOMMIT\n"


@pytest.mark.parametrize(
    ("shares", "restore"),
    [
        (["0.5000000000"], "iptables-nft-restore"),
        (["0.3333333333", "0.5000000000"], "iptables-nft-restore"),
        (["0.3333333333", "0.5000000000"], "iptables-legacy-restore"),
        ([f"{1 / n:.10f}" for n in range(7, 1, -1)], "iptables-nft-restore"),
        (["0.2", "0.7"], "iptables-nft-restore"),
    ],
)
def test_connections_are_split_as_the_trace_says(wires: Net, shares: list[str], restore: str) -> None:
    count = 1500
    text = service(shares, save=restore.endswith("nft-restore"))
    wires.on_node(restore, text=text)
    try:
        for who, src in (("client", "10.77.0.2"), ("server", "10.77.1.11")):
            sent = Sent(who, src, "10.96.0.10", "udp", 80)
            expected = told(parse(wires.on_node(restore.replace("restore", "save"))), sent, 1000)
            numbers: set[int] = set()
            for _ in range(count // 100):
                batch = {wires.send(who, "udp", src, "10.96.0.10", 80) for _ in range(100)}
                wires.fates(batch, patience=1.0)
                numbers |= batch
            seen: dict[tuple[str, str], int] = {}
            for fate in wires.fates(numbers).values():
                seen[fate.destination, fate.source] = seen.get((fate.destination, fate.source), 0) + 1
            predicted = {(o.address, o.source or src): o.probability for o in expected.outcomes}
            assert sum(predicted.values()) == Fraction(1)
            assert seen.keys() <= predicted.keys(), (seen, predicted)
            odd = sum((seen.get(end, 0) - count * float(share)) ** 2 / (count * float(share)) for end, share in predicted.items())
            assert odd < CRITICAL[len(predicted) - 1], (seen, predicted)
    finally:
        wires.on_node(restore, text="*nat\nCOMMIT\n")
