"""Random clusters with NetworkPolicies, of the Pods that `pod_wires` has wires for."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lab_utils.policies import World
from tests.kernel.pod_wires import ADDRESSES, NODES, OUTSIDE4, OUTSIDE6, PODS

Object = dict[str, Any]
PORTS = (80, 81, 8080)
OWN = {node: ADDRESSES[node] for node in NODES}  # each node's own addresses

KEYS, VALUES = ("app", "tier"), ("a", "b")
NAMESPACES = ("shop", "vault", "kube-system")
MOSTLY = ("shop", "shop", "shop", "vault", "vault", "kube-system")  # so that policies find Pods to select
NAMES = ("http", "dns")


def some_labels() -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=2)


def expressions() -> st.SearchStrategy[Object]:
    key = st.sampled_from(KEYS)
    values = st.lists(st.sampled_from(VALUES), min_size=1, max_size=2, unique=True)
    of_values = st.builds(lambda k, o, v: {"key": k, "operator": o, "values": v}, key, st.sampled_from(["In", "NotIn"]), values)
    return of_values | st.builds(lambda k, o: {"key": k, "operator": o}, key, st.sampled_from(["Exists", "DoesNotExist"]))


def selectors() -> st.SearchStrategy[Object]:
    some: st.SearchStrategy[Object] = st.fixed_dictionaries(
        {}, optional={"matchLabels": some_labels(), "matchExpressions": st.lists(expressions(), max_size=2)}
    )
    return st.just({}) | st.builds(lambda labels: {"matchLabels": labels}, some_labels()) | some


BLOCKS = {
    # a CIDR → what may be cut out of it
    "0.0.0.0/0": ("10.0.0.0/8", "10.244.1.0/24", "203.0.113.0/24", "172.31.9.12/32"),
    "10.244.0.0/16": ("10.244.1.0/24", "10.244.2.0/30", "10.244.1.3/32"),
    "10.244.1.0/29": ("10.244.1.2/32", "10.244.1.2/31"),
    "203.0.113.0/24": ("203.0.113.64/26", "203.0.113.5/32"),
    "172.31.9.0/24": ("172.31.9.11/32",),
    "198.51.100.9/32": (),
    "::/0": ("fd44::/16", "2001:db8:113::/48"),
    "fd44:1::/64": ("fd44:1::2/127", "fd44:1::4/128"),
    "2001:db8:113::/48": ("2001:db8:113::40/122",),
    "fd09::/64": ("fd09::11/128",),
}


@st.composite
def blocks(draw: Any) -> Object:
    cidr = draw(st.sampled_from(sorted(BLOCKS)))
    cut = draw(st.lists(st.sampled_from(BLOCKS[cidr]), max_size=2, unique=True)) if BLOCKS[cidr] else []
    return {"ipBlock": {"cidr": cidr, **({"except": cut} if cut else {})}}


def peers() -> st.SearchStrategy[Object]:
    named = st.sampled_from(NAMESPACES).map(lambda name: {"matchLabels": {"kubernetes.io/metadata.name": name}})
    spaces = selectors() | named
    return st.one_of(
        st.builds(lambda p: {"podSelector": p}, selectors()),
        st.builds(lambda n: {"namespaceSelector": n}, spaces),
        st.builds(lambda n, p: {"namespaceSelector": n, "podSelector": p}, spaces, selectors()),
        blocks(),
    )


def ports() -> st.SearchStrategy[Object]:
    protocol = st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(["TCP", "UDP", "SCTP"])})
    number = st.sampled_from(PORTS)
    some: st.SearchStrategy[Object] = st.one_of(
        st.just({}),
        number.map(lambda n: {"port": n}),
        st.tuples(number, number).map(lambda two: {"port": min(two), "endPort": max(two)}),
        st.sampled_from(NAMES).map(lambda name: {"port": name}),
    )
    return st.builds(lambda a, b: {**a, **b}, protocol, some)


def rules(ends: str) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries({}, optional={ends: st.lists(peers(), max_size=3), "ports": st.lists(ports(), max_size=3)})


@st.composite
def policies(draw: Any, number: int) -> Object:
    spec: Object = {"podSelector": draw(selectors())}
    if draw(st.booleans()):
        spec["policyTypes"] = draw(st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]))
    for field, ends in (("ingress", "from"), ("egress", "to")):
        if draw(st.booleans()):
            spec[field] = draw(st.lists(rules(ends), max_size=2))
    return {"metadata": {"namespace": draw(st.sampled_from(MOSTLY)), "name": f"policy.{number}"}, "spec": spec}


@st.composite
def pods(draw: Any, wire: str, node: str) -> list[Object]:
    """The Pod at the end of a wire, and perhaps one that had its address before and has ended; or none at all that is known yet."""

    def pod(name: str, phase: str, made: str) -> Object:
        named = draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(PORTS), st.sampled_from(["TCP", "UDP"])), max_size=2))
        ports = [{"name": each, "containerPort": number, "protocol": protocol} for each, number, protocol in dict.fromkeys(named)]
        return {
            "metadata": {
                "namespace": draw(st.sampled_from(MOSTLY)),
                "name": name,
                "labels": draw(some_labels()),
                "creationTimestamp": f"2026-01-01T00:00:0{made}Z",
            },
            "spec": {"nodeName": node, "containers": [{"name": "main", **({"ports": ports} if ports else {})}]},
            "status": {"phase": phase, "podIPs": [{"ip": address} for address in ADDRESSES[wire]]},
        }

    found = [pod(wire, "Running", "1")]
    if draw(st.integers(0, 3)) == 0:
        found.append(pod(f"{wire}-before", draw(st.sampled_from(["Succeeded", "Failed"])), draw(st.sampled_from("02"))))
    return found


@st.composite
def worlds(draw: Any) -> World:
    namespaces = [
        {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **draw(some_labels())}}} for name in NAMESPACES
    ]
    everyone = [each for node in NODES for wire in PODS[node] for each in draw(pods(wire, node))]
    for node in NODES:  # a Pod in the host's network: its labels count for nothing
        host = {"ip": ADDRESSES[node][1]}
        everyone.append(
            {
                "metadata": {"namespace": draw(st.sampled_from(NAMESPACES)), "name": f"host-{node}", "labels": draw(some_labels())},
                "spec": {"nodeName": node, "hostNetwork": True, "containers": [{"name": "main"}]},
                "status": {"phase": "Running", "podIPs": [host]},
            }
        )
    return World([draw(policies(number)) for number in range(draw(st.integers(1, 6)))], everyone, namespaces, OWN)


SOURCES = [*(address for wire in ADDRESSES if wire.startswith("p") for address in ADDRESSES[wire]), *OUTSIDE4, *OUTSIDE6]
SOURCES += [address for node in NODES for address in ADDRESSES[node] if ":" not in address and address.startswith("172")]
SOURCES += [address for node in NODES for address in ADDRESSES[node] if address.startswith("fd09")]
PAIRS = [(src, dst) for src in SOURCES for dst in SOURCES if (":" in src) == (":" in dst) and src != dst]
# Only what a Pod sends or receives.
PAIRS = [(src, dst) for src, dst in PAIRS if "244" in src + dst or "fd44" in src + dst]
