"""The kernel is the judge: random rules are loaded, real packets sent, and their fate compared with the trace."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from lab_utils.errors import CommandFailed
from lab_utils.iptables import parse
from lab_utils.trace import Destination, Packet, Trace, trace
from tests.kernel.lines import NODE, ROUTES, Fate, Net, net
from tests.kernel.rules import IPV4, IPV6, Pool, Sent, packets, rulesets

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
EXAMPLES = int(os.environ.get("LAB_KERNEL_EXAMPLES", "60"))
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


def told(text: str, sent: Sent, sport: int) -> Trace:
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
    return trace(parse(text), packet, NODE, origin, routes=ROUTES)  # type: ignore[arg-type]


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


def compare(wires: Net, text: str, sent: list[Sent]) -> None:
    numbered = {}
    for each in sent:
        sport = wires.next_sport()
        numbered[wires.send(each.who, each.protocol, each.src, each.dst, each.dport, sport, each.mark)] = each, sport
    fates = wires.fates(set(numbered))
    for number, (each, sport) in numbered.items():
        expected = told(text, each, sport)
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
    tables = "".join(f"*{name}\nCOMMIT\n" for name in ("raw", "mangle", "nat", "filter"))

    @CALM
    @given(rulesets(pool), st.lists(packets(pool), min_size=6, max_size=12))
    def judge(text: str, sent: list[Sent]) -> None:
        wires.on_node(restore, text=tables)
        try:
            load(wires, restore, text)
        except CommandFailed as error:
            pytest.fail(f"{error}\n{text}")
        compare(wires, text, sent)

    try:
        judge()
    finally:
        wires.on_node(restore, text=tables)
