"""The kernel is the judge of nftables rules as well."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_utils import nft
from lab_utils.errors import CommandFailed
from tests.kernel.lines import Net, net
from tests.kernel.nft_rules import rulesets
from tests.kernel.rules import IPV4, IPV6, Pool, Sent, packets
from tests.kernel.test_trace_kernel import CALM, compare

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]


@pytest.fixture(scope="module")
def wires() -> Iterator[Net]:
    with net() as made:
        yield made


@pytest.mark.parametrize("pool", [IPV4, IPV6], ids=["IPv4", "IPv6"])
def test_the_kernel_does_what_the_trace_says_of_nft_rules(wires: Net, pool: Pool) -> None:
    @CALM
    @given(rulesets(pool), st.lists(packets(pool), min_size=6, max_size=12))
    def judge(text: str, sent: list[Sent]) -> None:
        wires.on_node("nft", "flush ruleset")
        try:
            wires.on_node("nft", "-f", "-", text=text)
        except CommandFailed as error:
            pytest.fail(f"{error}\n{error.stderr}\n{text}")
        listed = wires.on_node("nft", "-j", "list", "ruleset")
        compare(wires, nft.parse(listed), sent, text)

    try:
        judge()
    finally:
        wires.on_node("nft", "flush ruleset")
