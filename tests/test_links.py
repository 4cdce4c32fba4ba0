"""What `ip -j` and `bridge -j` print, read into objects. The matcher has a judge of its own: tests/kernel/test_links_peers.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_utils.errors import BadInput
from lab_utils.links import FOUND, OUTSIDE, Namespace, match_peers, read_namespace
from lab_utils.snapshot import read_snapshot

WIRED = Path(__file__).parent / "data" / "snapshots" / "wired"


@pytest.fixture(scope="module")
def w1() -> Namespace:
    node = read_snapshot(WIRED).node("w1")
    return read_namespace("w1", node.outputs, inode=node.inode, kernel=node.kernel)


def with_routes(*lines: str) -> Namespace:
    routes = [dict(zip(("dst", "gateway", "dev", "metric"), line.split(), strict=False)) for line in lines]
    return read_namespace("x", {"link": "[]", "route": [{**route, "metric": int(route.get("metric", 0))} for route in routes]})


def test_a_bridge_knows_its_ports_and_its_address(w1: Namespace) -> None:
    (cni0,) = w1.bridges
    assert (cni0.name, cni0.kind, [str(a) for a in cni0.usable_addresses]) == ("cni0", "bridge", ["10.244.1.1/24"])
    assert {port.kind for port in w1.ports("cni0")} == {"veth"}
    assert len(w1.ports("cni0")) == 2


def test_a_vxlan_device_tells_its_number_its_port_and_what_carries_it(w1: Namespace) -> None:
    flannel = w1.device("flannel.1")
    assert flannel is not None and flannel.vxlan is not None
    assert (flannel.vxlan.vni, flannel.vxlan.port, flannel.vxlan.local, flannel.vxlan.underlay) == (1, 8472, "172.31.77.12", "eth0")
    assert not flannel.vxlan.learning


def test_arp_and_fdb_of_the_tunnel_lead_to_the_other_machine(w1: Namespace) -> None:
    neighbour = w1.neighbour("10.244.2.0", "flannel.1")
    assert neighbour is not None
    entry = w1.vtep(neighbour.mac, "flannel.1")
    assert entry is not None and entry.to == "172.31.77.13"


def test_the_bridge_has_learned_where_each_pod_is(w1: Namespace) -> None:
    neighbour = w1.neighbour("10.244.1.2", "cni0")
    assert neighbour is not None
    entry = w1.port(neighbour.mac, "cni0")
    assert entry is not None and entry.learned and entry.device in {port.name for port in w1.ports("cni0")}


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("10.244.1.7", "10.244.1.0/24 dev cni0 src 10.244.1.1"),
        ("10.244.2.7", "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"),
        ("8.8.8.8", "default via 172.31.77.1 dev eth0"),
    ],
)
def test_the_longest_prefix_wins(w1: Namespace, target: str, route: str) -> None:
    assert str(w1.route(target)) == route


def test_of_equally_long_prefixes_the_lower_metric_wins() -> None:
    ns = with_routes("10.0.0.0/8 1.1.1.1 slow 200", "10.0.0.0/8 2.2.2.2 fast 100")
    found = ns.route("10.1.2.3")
    assert found is not None and found.device == "fast"


def test_an_address_without_a_route_has_none() -> None:
    assert with_routes("10.0.0.0/8 1.1.1.1 eth0").route("192.0.2.1") is None
    assert with_routes("default 1.1.1.1 eth0").route("2001:db8::1") is None


def test_a_route_with_several_next_hops_keeps_them_all() -> None:
    line = {
        "dst": "default",
        "nexthops": [{"gateway": "10.0.0.1", "dev": "a", "weight": 1}, {"gateway": "10.0.0.2", "dev": "b", "weight": 3}],
    }
    (route,) = read_namespace("x", {"link": [], "route": [line]}).routes
    assert [(hop.gateway, hop.weight) for hop in route.hops] == [("10.0.0.1", 1), ("10.0.0.2", 3)]
    assert str(route) == "default nexthop via 10.0.0.1 dev a nexthop via 10.0.0.2 dev b"


def test_a_blackhole_route_says_that_it_is_one() -> None:
    (route,) = read_namespace("x", {"link": [], "route": [{"type": "blackhole", "dst": "10.9.0.0/16", "flags": []}]}).routes
    assert (route.kind, route.hops, str(route)) == ("blackhole", (), "blackhole 10.9.0.0/16")


@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=12))
def test_the_chosen_route_is_never_shorter_than_another_that_fits(target: int, prefixes: list[tuple[int, int]]) -> None:
    from ipaddress import ip_address, ip_network

    networks = [ip_network((number, length), strict=False) for number, length in prefixes]
    ns = with_routes(*(f"{network} 192.0.2.1 eth{index}" for index, network in enumerate(networks)))
    found = ns.route(str(ip_address(target)))
    fitting = [network.prefixlen for network in networks if ip_address(target) in network]
    assert (found.destination.prefixlen if found else None) == max(fitting, default=None)


def test_ends_in_one_namespace_are_matched_by_name() -> None:
    """Within one namespace `ip -j` names the other end instead of giving its index."""
    link = [
        {"ifindex": 5, "ifname": "a", "link": "b", "linkinfo": {"info_kind": "veth"}},
        {"ifindex": 6, "ifname": "b", "link": "a", "linkinfo": {"info_kind": "veth"}},
    ]
    peers = match_peers([read_namespace("x", {"link": link})])
    assert {end.name: peer.end.name for end, peer in peers.items() if peer.end} == {"a": "b", "b": "a"}


def veth(index: int, link_index: int, nsid: int) -> dict[str, object]:
    return {"ifindex": index, "ifname": f"v{index}", "link_index": link_index, "link_netnsid": nsid, "linkinfo": {"info_kind": "veth"}}


def test_namespaces_of_different_machines_are_never_joined() -> None:
    """Two virtual machines: the indexes fit, but no cable runs from one kernel to another."""
    one = read_namespace("one", {"link": [veth(2, 5, 0)]}, kernel="aaaa")
    other = read_namespace("other", {"link": [veth(5, 2, 0)]}, kernel="bbbb")
    assert {peer.verdict for peer in match_peers([one, other]).values()} == {OUTSIDE}
    same = read_namespace("other", {"link": [veth(5, 2, 0)]}, kernel="aaaa")
    assert {peer.verdict for peer in match_peers([one, same]).values()} == {FOUND}


def test_a_netns_id_decides_between_equal_indexes() -> None:
    pods = [read_namespace(name, {"link": [veth(2, index, 0)]}, inode=inode) for name, index, inode in (("a", 7, 70), ("b", 8, 80))]
    node = read_namespace("node", {"link": [veth(7, 2, 2), veth(8, 2, 1)], "nsids": {1: "cni-a", 2: "cni-b"}}, inode=10)
    peers = match_peers([node, *pods], {"cni-a": 80, "cni-b": 70})
    assert {str(end): str(peer.end) for end, peer in peers.items()} == {
        "node:v7": "a:v2",
        "node:v8": "b:v2",
        "a:v2": "node:v7",
        "b:v2": "node:v8",
    }
    assert all(peer.certain for peer in peers.values())


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({}, "no output of `ip -j -d link`"),
        ({"link": "1: lo: <LOOPBACK>"}, "not JSON"),
        ({"link": "{}"}, "not a list"),
        ({"link": "[1]"}, "not a list of objects"),
        ({"link": "[]", "route": '[{"dst": "10.0.0.300"}]'}, "makes no sense"),
        ({"link": '[{"ifindex": "x"}]'}, "makes no sense"),
        ({"link": "[]", "addr": '[{"ifindex": 1, "addr_info": [{"local": "nowhere"}]}]'}, "makes no sense"),
    ],
)
def test_what_ip_did_not_print_is_refused_with_the_namespace_named(outputs: dict[str, str], says: str) -> None:
    with pytest.raises(BadInput, match="'broken'") as caught:
        read_namespace("broken", outputs)
    assert says in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "ifindex",
                        "ifname",
                        "dst",
                        "gateway",
                        "dev",
                        "addr_info",
                        "local",
                        "linkinfo",
                        "info_kind",
                        "info_data",
                        "nexthops",
                        "mac",
                        "lladdr",
                        "flags",
                        "link",
                        "nsid",
                        "name",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    for key in ("link", "addr", "route", "route6", "neigh", "fdb", "nsids"):
        try:
            read_namespace("x", {"link": "[]", key: json.dumps([value])})
        except BadInput:
            pass
