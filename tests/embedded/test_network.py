"""Choosing addresses and reading the host's, without touching any."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_utils.embedded.network import Plan, free_subnet, leading_somewhere, mac, parse_nameservers
from lab_utils.errors import HostLacks


def test_a_busy_subnet_is_passed_over() -> None:
    first = free_subnet([], 0)
    assert free_subnet([first], 0) != first


def test_a_wide_route_of_the_host_keeps_its_whole_range() -> None:
    chosen = ipaddress.ip_network(free_subnet(["172.16.0.0/12"], 0))
    assert not chosen.overlaps(ipaddress.ip_network("172.16.0.0/12"))


def test_the_default_route_takes_nothing() -> None:
    assert free_subnet(["0.0.0.0/0"], 0) == free_subnet([], 0)


def test_a_vpn_that_takes_everything_in_two_halves_takes_no_address() -> None:
    """OpenVPN's `redirect-gateway def1`."""
    assert free_subnet(["0.0.0.0/1", "128.0.0.0/1"], 0) == free_subnet([], 0)


def test_a_host_without_any_free_network_is_told_so() -> None:
    with pytest.raises(HostLacks, match="no free network"):
        free_subnet(["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16", "198.0.0.0/8"], 0)


@given(st.lists(st.integers(0, 2**24 - 1), max_size=40), st.integers(0, 600))
def test_a_chosen_subnet_overlaps_nothing(numbers: list[int], index: int) -> None:
    taken = [f"{ipaddress.ip_address(number << 8)}/24" for number in numbers]
    chosen = ipaddress.ip_network(free_subnet(taken, index))
    assert not any(chosen.overlaps(ipaddress.ip_network(net)) for net in taken)


def test_a_vpn_that_takes_all_private_networks_leaves_one() -> None:
    assert free_subnet(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], 0).startswith("198.18.")


def test_every_name_that_the_kernel_limits_fits() -> None:
    plan = Plan("a" * 20, 999, "172.31.64.0/24")
    assert len(plan.link) <= 15


def test_addresses_begin_at_eleven_and_cards_keep_their_number() -> None:
    plan = Plan("lab", 0, "172.31.64.0/24")
    assert [plan.address(0), plan.address(1), plan.gateway] == ["172.31.64.11", "172.31.64.12", "172.31.64.1"]
    assert mac("172.31.64.11") == "02:6b:ac:1f:40:0b"


def test_a_name_server_on_the_hosts_loopback_is_of_no_use_to_a_node() -> None:
    text = "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch example.org\nnameserver fe80::1%eth0\nnameserver ::1\n"
    text += "nameserver router.lan\n"  # no address: the resolver passes over it
    assert parse_nameservers(text) == ["192.0.2.1"], "nodes have IPv4 alone"


NOWHERE = """[{"type":"local","dst":"127.0.0.0/8","dev":"lo"},{"type":"local","dst":"192.0.2.2","dev":"eth0"},
 {"dst":"172.31.64.0/24","dev":"kio0","scope":"link"}]"""
LAN = """[{"dst":"192.0.2.0/24","dev":"eth0","scope":"link"},{"type":"unreachable","dst":"10.0.0.0/8","dev":"dummy0"}]"""
VPN = """[{"dst":"default","gateway":"192.0.2.1","dev":"wlan0"},{"dst":"10.8.0.0/16","gateway":"10.8.0.1","dev":"tun0"}]"""
TWO = """[{"dst":"default","nexthops":[{"gateway":"192.0.2.1","dev":"eth0"},{"gateway":"198.51.100.1","dev":"eth1"}]}]"""


@pytest.mark.parametrize(
    ("routes", "devices"),
    [(VPN, ["tun0", "wlan0"]), (TWO, ["eth0", "eth1"]), (LAN, ["eth0"]), (NOWHERE, []), ("", [])],
    ids=["a VPN for a part", "two uplinks", "no default route", "nowhere", "nothing said"],
)
def test_the_ways_out_are_all_that_the_host_has(routes: str, devices: list[str]) -> None:
    assert leading_somewhere(routes) == devices
