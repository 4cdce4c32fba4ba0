"""The rules of lab 11's agent do what NetworkPolicies mean: the kernel is the judge.

Random clusters and policies; on each of two nodes the rules that the agent computes for it; real packets between all Pods, nodes and
the world outside; and `lab_utils.policies.allowed`, which reads the API's sentences directly, to compare with.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from lab_utils.errors import CommandFailed
from lab_utils.policies import Request, World, allowed
from tests.kernel import agent_source
from tests.kernel.lines import inside
from tests.kernel.pod_wires import ADDRESSES, NODES, RANGES, PodWires, pod_wires
from tests.kernel.policies import PAIRS, PORTS, worlds
from tests.kernel.test_trace_kernel import CALM

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
PACKETS = 600  # of each random cluster


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return agent_source.rules(tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def wires() -> Iterator[PodWires]:
    with pod_wires() as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_is_left(wires: PodWires) -> Iterator[None]:
    yield
    for node in NODES:
        wires.on(node, "nft", "flush ruleset")


def text_for(rules: ModuleType, world: World, node: str, name: str = "policy-a") -> str:
    return str(rules.in_tables(name, rules.ruleset(world.policies, world.pods, world.namespaces, node, RANGES[node])))


def enforce(rules: ModuleType, wires: PodWires, world: World) -> str:
    said = ""
    for node in NODES:
        text = text_for(rules, world, node)
        try:
            wires.on(node, "nft", "-f", "-", text=text)
        except CommandFailed as error:
            pytest.fail(f"{error.stderr}\n{text}")
        said += f"# {node}\n{text}\n"
    return said


def judge(rules: ModuleType, wires: PodWires, world: World, sent: list[Request]) -> None:
    """Every packet fares as the policies say."""
    note(enforce(rules, wires, world))
    for node in NODES:
        wires.on(node, "conntrack", "-F", check=False)
    wrong = differences(wires, world, sent)
    if wrong:  # a busy machine may deliver late: what was lost is sent once more
        wrong = differences(wires, world, list(wrong), patience=1.5)
    assert not wrong, "\n".join(f"{each}: {said}" for each, said in wrong.items())


def differences(wires: PodWires, world: World, sent: list[Request], patience: float = 0.4) -> dict[Request, str]:
    fates = wires.fates(sent, patience)
    right = {each: "arrived" if allowed(world, each) else "refused" for each in fates}
    return {each: f"{fate}, and the policies say {right[each]}" for each, fate in fates.items() if fate != right[each]}


def some(seed: int, count: int = PACKETS) -> list[Request]:
    dice = random.Random(seed)
    return list({Request(*dice.choice(PAIRS), dice.choice(("TCP", "TCP", "UDP", "SCTP")), dice.choice((*PORTS, 82))) for _ in range(count)})


def test_the_kernel_does_what_the_policies_say(rules: ModuleType, wires: PodWires) -> None:
    @CALM
    @given(worlds(), st.integers(0, 1 << 30))
    def every_world(world: World, seed: int) -> None:
        judge(rules, wires, world, some(seed))

    every_world()


# The sentences of the API, one by one. Pods of node n1 are a, b and c, those of n2 d, e and f.

WIRES = dict(zip("abcdef", ("p11", "p12", "p13", "p21", "p22", "p23"), strict=True))


def pod(letter: str, namespace: str = "shop", ports: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
    wire = WIRES[letter]
    listed = [{"name": name, "containerPort": number} for name, number in (ports or {}).items()]
    return {
        "metadata": {"namespace": namespace, "name": letter, "labels": {"pod": letter}},
        "spec": {"nodeName": f"n{wire[1]}", "containers": [{"name": "main", "ports": listed}]},
        "status": {"phase": "Running", "podIPs": [{"ip": address} for address in ADDRESSES[wire]]},
        **more,
    }


def policy(spec: dict[str, Any], namespace: str = "shop", name: str = "policy") -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


def named(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **labels}}}


SPACES = [named("shop"), named("vault", kind="secret")]
SHOP = [pod(letter, "shop" if letter in "abde" else "vault") for letter in "abcdef"]


def only(letter: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"pod": letter}}}


B = {"matchLabels": {"pod": "b"}}


def who_reaches(world: World, wires: PodWires, target: str, protocol: str = "TCP", port: int = 80, family: int = 4) -> str:
    """The letters of the Pods that do, in order; O for the host outside, N for the node of the first three."""
    place = 0 if family == 4 else -1
    sources = {letter: ADDRESSES[wire][place] for letter, wire in WIRES.items() if letter != target}
    sources |= {"O": "203.0.113.5" if family == 4 else "2001:db8:113::5", "N": ADDRESSES["n1"][0 if family == 4 else 2]}
    fates = wires.fates(Request(src, ADDRESSES[WIRES[target]][place], protocol, port) for src in sources.values())
    arrived = {sent.src for sent, fate in fates.items() if fate == "arrived"}
    return "".join(letter for letter, src in sources.items() if src in arrived)


CASES: dict[str, tuple[dict[str, Any], str]] = {
    # what the policy says: (its spec, who then reaches b on port 80)
    "without a rule, isolation is complete": ({"podSelector": B}, "N"),
    "a rule without peers means everybody": ({"podSelector": B, "ingress": [{"from": []}]}, "acdefON"),
    "an empty rule allows everything": ({"podSelector": B, "ingress": [{}]}, "acdefON"),
    "an empty podSelector of a policy selects all of its namespace": ({"podSelector": {}}, "N"),
    "an empty podSelector of a peer means the policy's own namespace": (
        {"podSelector": B, "ingress": [{"from": [{"podSelector": {}}]}]},
        "adeN",
    ),
    "an empty namespaceSelector means the Pods of all namespaces": (
        {"podSelector": B, "ingress": [{"from": [{"namespaceSelector": {}}]}]},
        "acdefN",
    ),
    "inside one peer both selectors must hold": (
        {"podSelector": B, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kind": "secret"}}, **only("c")}]}]},
        "cN",
    ),
    "between two peers one is enough": (
        {"podSelector": B, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kind": "secret"}}}, only("a")]}]},
        "acfN",
    ),
    "an ipBlock means addresses, of Pods too, but for its exceptions": (
        {"podSelector": B, "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24", "10.244.2.4/32"]}}]}]},
        "deN",
    ),
    "an address that does not begin its network means that network": (
        {"podSelector": B, "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.2.77/24"}}]}]},
        "defN",
    ),
    "exceptions may overlap": (
        {"podSelector": B, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.244.0.0/16"]}}]}]},
        "ON",
    ),
    "ports may overlap": ({"podSelector": B, "ingress": [{"ports": [{"port": 80}, {"port": 70, "endPort": 90}, {"port": 80}]}]}, "acdefON"),
    "a port of one protocol is not one of another": ({"podSelector": B, "ingress": [{"ports": [{"protocol": "UDP", "port": 80}]}]}, "N"),
    "endPort is the last port": ({"podSelector": B, "ingress": [{"ports": [{"port": 70, "endPort": 80}]}]}, "acdefON"),
    "after endPort nothing": ({"podSelector": B, "ingress": [{"ports": [{"port": 70, "endPort": 79}]}]}, "N"),
    "egress rules alone imply both types": ({"podSelector": B, "egress": [{}]}, "N"),
    "with policyTypes Egress, ingress stays open": ({"podSelector": B, "policyTypes": ["Egress"]}, "acdefON"),
    "NotIn holds for who has no such label": (
        {
            "podSelector": B,
            "ingress": [{"from": [{"podSelector": {"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["y"]}]}}]}],
        },
        "adeN",
    ),
    "a rule with an address that cannot be read allows nothing, and the others hold": (
        {"podSelector": B, "ingress": [{"from": [{"ipBlock": {"cidr": "010.0.0.0/8"}}]}, {"from": [only("a")]}]},
        "aN",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_sentence_of_the_api(case: str, rules: ModuleType, wires: PodWires) -> None:
    spec, right = CASES[case]
    world = World([policy(spec)], SHOP, SPACES)
    enforce(rules, wires, world)
    assert who_reaches(world, wires, "b") == right


def test_policies_add_up(rules: ModuleType, wires: PodWires) -> None:
    """Two policies allow what either allows; a third that allows nothing takes nothing away."""
    specs = [{"podSelector": B, "ingress": [{"from": [only(letter)]}]} for letter in "ad"] + [{"podSelector": {}}]
    world = World([policy(spec, name=f"p{n}") for n, spec in enumerate(specs)], SHOP, SPACES)
    enforce(rules, wires, world)
    assert who_reaches(world, wires, "b") == "adN"


def test_both_ends_have_a_say(rules: ModuleType, wires: PodWires) -> None:
    """d may send to nobody but e, so b, which takes everything, does not hear from it."""
    cage = {"podSelector": {"matchLabels": {"pod": "d"}}, "policyTypes": ["Egress"], "egress": [{"to": [only("e")]}]}
    world = World([policy(cage), policy({"podSelector": B, "ingress": [{}]}, name="open")], SHOP, SPACES)
    enforce(rules, wires, world)
    assert who_reaches(world, wires, "b") == "acefON"
    assert "d" in who_reaches(world, wires, "e")


def test_a_named_port_is_what_each_pod_calls_so(rules: ModuleType, wires: PodWires) -> None:
    """a calls 80 "web", b calls 8080 so, c nothing."""
    ports = {"a": {"web": 80}, "b": {"web": 8080}, "c": {"other": 80}}
    pods = [pod(letter, ports=ports.get(letter)) for letter in "abcdef"]
    world = World([policy({"podSelector": {}, "ingress": [{"ports": [{"port": "web"}]}]})], pods, SPACES)
    enforce(rules, wires, world)
    reached = {(letter, port): bool(set(who_reaches(world, wires, letter, port=port)) - {"N"}) for letter in "abc" for port in (80, 8080)}
    assert [key for key, value in reached.items() if value] == [("a", 80), ("b", 8080)]


def test_a_named_port_of_egress_is_the_receivers(rules: ModuleType, wires: PodWires) -> None:
    ports = {"a": {"web": 80}, "d": {"web": 8080}}
    pods = [pod(letter, ports=ports.get(letter)) for letter in "abcdef"]
    spec = {"podSelector": B, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "web"}]}]}
    world = World([policy(spec)], pods, SPACES)
    enforce(rules, wires, world)
    sent = [Request(ADDRESSES["p12"][0], ADDRESSES[WIRES[letter]][0], "TCP", port) for letter in "acd" for port in (80, 8080)]
    assert list(wires.fates(sent).values()) == ["arrived", "refused", "refused", "refused", "refused", "arrived"]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
def test_each_family_and_protocol(rules: ModuleType, wires: PodWires, family: int, protocol: str) -> None:
    spec = {"podSelector": B, "ingress": [{"from": [only("a"), only("d")], "ports": [{"protocol": protocol, "port": 80}]}]}
    world = World([policy(spec)], SHOP, SPACES)
    enforce(rules, wires, world)
    assert who_reaches(world, wires, "b", protocol, 80, family) == "adN"
    assert who_reaches(world, wires, "b", protocol, 81, family) == "N"


def test_isolated_pods_still_find_their_neighbours_by_ipv6(rules: ModuleType, wires: PodWires) -> None:
    """Neighbour discovery is ICMPv6 between Pods of one bridge; without it not even allowed packets would find their way."""
    spec: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    spec |= {side: [{"ports": [{"port": 80}]}] for side in ("ingress", "egress")}
    world = World([policy(spec)], [pod(letter) for letter in "abcdef"], SPACES)
    enforce(rules, wires, world)
    for who in ("p11", "p12"):
        wires.on(who, "ip", "-6", "neigh", "flush", "dev", "eth0")
    sent = Request(ADDRESSES["p11"][1], ADDRESSES["p12"][1], "TCP", 80)
    assert wires.fates([sent], patience=3) == {sent: "arrived"}


def test_an_address_that_no_known_pod_has_is_held(rules: ModuleType, wires: PodWires) -> None:
    """b has just started, and the agent has not heard of its address: whatever a policy will say, nothing gets through yet."""
    world = World([], [each for each in SHOP if each["metadata"]["name"] != "b"], SPACES)
    enforce(rules, wires, world)
    assert who_reaches(world, wires, "b") == "N"
    sent = Request(ADDRESSES["p12"][0], ADDRESSES["p21"][0], "TCP", 80)
    assert wires.fates([sent]) == {sent: "lost"}  # dropped, not refused: it will be sent again
    enforce(rules, wires, World([], SHOP, SPACES))
    assert who_reaches(world, wires, "b") == "acdefON"


def test_of_two_pods_with_one_address_the_younger_has_it(rules: ModuleType, wires: PodWires) -> None:
    """The older is terminating; its address was given to another before its object was gone."""

    def aged(each: dict[str, Any], second: int, **labels: str) -> dict[str, Any]:
        metadata = {**each["metadata"], "creationTimestamp": f"2026-01-01T00:00:0{second}Z"}
        return {**each, "metadata": {**metadata, "name": f"{metadata['name']}{second}", "labels": labels or metadata["labels"]}}

    old, new = aged(pod("a"), 1), aged(pod("a"), 2, pod="x")
    spec = {"podSelector": B, "ingress": [{"from": [only("a")]}]}
    for pods in ([old, new], [new, old]):
        world = World([policy(spec)], [*pods, pod("b")], SPACES)
        enforce(rules, wires, world)
        assert who_reaches(world, wires, "b") == "N"


def test_names_as_long_as_they_may_be(rules: ModuleType, wires: PodWires) -> None:
    """The kernel takes 255 characters for a chain's name; these are 63 and 253, and differ only at the end."""
    space, names = "n" * 63, [f"{'p' * 252}{end}" for end in "ab"]
    pods = [pod("a", space), pod("b", space)]
    pods[1]["metadata"]["name"] = names[0]
    specs: list[dict[str, Any]] = [{"podSelector": B, "ingress": [{"from": [only("a")]}]}, {"podSelector": B}]
    world = World([policy(spec, space, name) for spec, name in zip(specs, names, strict=True)], pods, [named(space)])
    enforce(rules, wires, world)
    assert who_reaches(world, wires, "b") == "aN"


def test_a_service_is_judged_by_the_pod_behind_it(rules: ModuleType, wires: PodWires) -> None:
    """DNAT comes before the filter: a rule that names the ClusterIP would never match, one that names the Pod does."""
    vip, pod_ip, caged = "10.96.0.80", ADDRESSES["p21"][0], ADDRESSES["p12"][0]
    change = f"ip daddr {vip} tcp dport 80 dnat to {pod_ip}:8080"
    nat = f"table ip nat {{ chain pre {{ type nat hook prerouting priority dstnat; {change}\n }}\n }}"
    sent = Request(caged, vip, "TCP", 80)
    for cidr, port, right in ((f"{vip}/32", 80, "refused"), (f"{pod_ip}/32", 80, "refused"), (f"{pod_ip}/32", 8080, "arrived")):
        spec = {"podSelector": B, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": port}]}]}
        wires.on("n1", "nft", "flush ruleset")
        wires.on("n1", "nft", "-f", "-", text=nat)
        enforce(rules, wires, World([policy(spec)], SHOP, SPACES))
        assert wires.fates([sent]) == {sent: right}, cidr


@pytest.mark.parametrize("there", ["p11", "p21"], ids=["on the same node", "on another"])
def test_whoever_asks_a_service_is_refused_at_once_wherever_its_pod_is(rules: ModuleType, wires: PodWires, there: str) -> None:
    """A reset for a bridged packet is sent as it is, from the Pod's address (nf_send_reset), and the sender asked the Service's."""
    vip, pod_ip, caged = "10.96.0.80", ADDRESSES[there][0], ADDRESSES["p12"][0]
    change = f"ip daddr {vip} tcp dport 80 dnat to {pod_ip}:8080"
    wires.on("n1", "nft", "-f", "-", text=f"table ip nat {{ chain pre {{ type nat hook prerouting priority dstnat; {change}\n }}\n }}")
    enforce(rules, wires, World([policy({"podSelector": B, "policyTypes": ["Egress"]})], SHOP, SPACES))
    for address in (vip, pod_ip):
        with pytest.raises(ConnectionRefusedError):
            inside(wires.namespace("p12"), partial(socket.create_connection, (address, 80), timeout=5, source_address=(caged, 0)))


def test_a_pod_reaches_itself_through_its_service(rules: ModuleType, wires: PodWires) -> None:
    """The hairpin: out to the bridge and back, with the node's address as source. "A pod cannot block access to itself.\""""
    vip, own = "10.96.0.80", ADDRESSES["p12"][0]
    nat = f"""table ip nat {{
        chain pre {{ type nat hook prerouting priority dstnat; ip daddr {vip} tcp dport 80 dnat to {own}:80
        }}
        chain post {{ type nat hook postrouting priority srcnat; ip saddr {own} ip daddr {own} masquerade
        }}
    }}"""
    wires.on("n1", "nft", "-f", "-", text=nat)
    enforce(rules, wires, World([policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})], SHOP, SPACES))
    sent = Request(own, vip, "TCP", 80)
    assert wires.fates([sent]) == {sent: "arrived"}
    assert set(wires.arrived.values()) >= {(own, ADDRESSES["n1"][0])}


def test_what_is_established_goes_on_when_a_policy_comes(rules: ModuleType, wires: PodWires) -> None:
    """The API leaves this open; this agent, like kube-router, lets connections live. A new one is refused."""
    world = World([], SHOP, SPACES)
    enforce(rules, wires, world)
    there = ADDRESSES["p21"][0]
    server = inside(wires.namespace("p21"), lambda: socket.create_server((there, 8080)))
    client = inside(wires.namespace("p12"), lambda: socket.create_connection((there, 8080), timeout=5))
    accepted, _ = server.accept()
    accepted.settimeout(5)
    try:
        enforce(rules, wires, World([policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})], SHOP, SPACES))
        client.sendall(b"still?")
        assert accepted.recv(16) == b"still?"
        accepted.sendall(b"yes")
        assert client.recv(16) == b"yes"
        with pytest.raises(ConnectionRefusedError):
            inside(wires.namespace("p12"), lambda: socket.create_connection((there, 8080), timeout=5))
    finally:
        for each in (client, accepted, server):
            each.close()
