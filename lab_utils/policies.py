"""What NetworkPolicies mean, read sentence by sentence from the API's documentation. Pure: objects of the API in, yes or no out.

    world = World(policies, pods, namespaces, {"w1": ["192.168.56.12", "10.244.1.1"]})
    allowed(world, Request("10.244.1.7", "10.244.2.3", "TCP", 8080))
    table(world, ["lab-11/client", "lab-11/web"], port=8080)      # who reaches whom

It knows nothing of chains, sets or tables. So it can judge what an engine has written on a node, and a learner's prediction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Literal, NamedTuple

Object = Mapping[str, Any]
Direction = Literal["Ingress", "Egress"]
FIELDS: dict[str, tuple[str, str]] = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}


class Request(NamedTuple):
    """The first packet of a connection as the receiver's node sees it: a Service's address has become a Pod's already."""

    src: str
    dst: str
    protocol: str  # TCP, UDP, SCTP
    port: int


@dataclass(frozen=True)
class World:
    policies: Sequence[Object]
    pods: Sequence[Object]
    namespaces: Sequence[Object]
    nodes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # each node's own addresses

    def pod_at(self, address: str) -> Object | None:
        return next((pod for pod in self.pods if address in addresses(pod)), None)

    def pod(self, name: str) -> Object:
        return next(pod for pod in self.pods if full_name(pod) == name)


def allowed(world: World, request: Request) -> bool:
    sender, receiver = world.pod_at(request.src), world.pod_at(request.dst)
    if sender is not None and sender is receiver:
        return True  # "a pod cannot block access to itself"
    for pod, other in ((sender, request.dst), (receiver, request.src)):
        if pod is not None and other in world.nodes.get(pod["spec"].get("nodeName", ""), ()):
            return True  # "traffic to and from the node where a Pod is running is always allowed"
    leaves = sender is None or _lets(world, sender, "Egress", request.dst, request, receiver)
    enters = receiver is None or _lets(world, receiver, "Ingress", request.src, request, receiver)
    return leaves and enters


def selecting(world: World, pod: Object, direction: Direction) -> list[Object]:
    """The policies that isolate a Pod in one direction; none, and everything is allowed."""
    here = pod["metadata"]["namespace"]
    return [
        policy
        for policy in world.policies
        if policy["metadata"]["namespace"] == here and direction in directions(policy) and fits(policy["spec"]["podSelector"], labels(pod))
    ]


def directions(policy: Object) -> list[str]:
    """What the API server fills in where an author wrote no policyTypes."""
    spec = policy["spec"]
    return list(spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]))


def _lets(world: World, pod: Object, direction: Direction, other: str, request: Request, receiver: Object | None) -> bool:
    """What any of the policies that select a Pod allows is allowed, and nothing else; where none selects it, everything."""
    chosen = selecting(world, pod, direction)
    field_name, ends = FIELDS[direction]
    for policy in chosen:
        home = policy["metadata"]["namespace"]
        for rule in policy["spec"].get(field_name) or ():
            who = not rule.get(ends) or any(means(world, peer, home, other) for peer in rule[ends])
            what = not rule.get("ports") or any(_is_port(port, request, receiver) for port in rule["ports"])
            if who and what:
                return True
    return not chosen


def means(world: World, peer: Object, home: str, address: str) -> bool:
    """Whether one item of `from` or `to` means who has this address."""
    if "ipBlock" in peer:
        block, at = peer["ipBlock"], ip_address(address)
        inside = at in ip_network(block["cidr"], strict=False)
        return inside and not any(at in ip_network(each, strict=False) for each in block.get("except") or ())
    pod = world.pod_at(address)
    if pod is None:
        return False
    there = pod["metadata"]["namespace"]
    if peer.get("namespaceSelector") is not None:
        namespace = next((each for each in world.namespaces if each["metadata"]["name"] == there), None)
        if namespace is None or not fits(peer["namespaceSelector"], labels(namespace)):
            return False
    elif there != home:
        return False
    return fits(peer.get("podSelector") or {}, labels(pod))


def _is_port(port: Object, request: Request, receiver: Object | None) -> bool:
    if port.get("protocol", "TCP") != request.protocol:
        return False
    wanted = port.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, int):
        return wanted <= request.port <= (port.get("endPort") or wanted)
    containers = receiver["spec"]["containers"] if receiver else ()
    listed = [each for container in containers for each in container.get("ports") or ()]
    named = [each for each in listed if each.get("name") == wanted and each.get("protocol", "TCP") == request.protocol]
    return any(each["containerPort"] == request.port for each in named)


def fits(selector: Object, having: Mapping[str, str]) -> bool:
    """Whether a label selector selects an object with these labels; an empty one does."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if having.get(key) != value:
            return False
    for each in selector.get("matchExpressions") or ():
        key, operator, values = each["key"], each["operator"], each.get("values") or ()
        right = {
            "Exists": key in having,
            "DoesNotExist": key not in having,
            "In": key in having and having[key] in values,
            "NotIn": key not in having or having[key] not in values,
        }
        if not right[operator]:
            return False
    return True


def addresses(pod: Object) -> list[str]:
    """Its own. A Pod in the host's network has none, one that has ended has none any more."""
    status = pod.get("status") or {}
    if pod["spec"].get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return []
    return [each["ip"] for each in status.get("podIPs") or ()]


def labels(thing: Object) -> dict[str, str]:
    return dict(thing["metadata"].get("labels") or {})


def full_name(thing: Object) -> str:
    return f"{thing['metadata']['namespace']}/{thing['metadata']['name']}"


def table(world: World, names: Iterable[str], port: int, protocol: str = "TCP") -> dict[str, dict[str, bool]]:
    """Receiver → sender → whether a connection is allowed, for the first address of each Pod."""
    found = {name: addresses(world.pod(name))[0] for name in names}
    return {
        receiver: {sender: allowed(world, Request(src, dst, protocol, port)) for sender, src in found.items() if sender != receiver}
        for receiver, dst in found.items()
    }
