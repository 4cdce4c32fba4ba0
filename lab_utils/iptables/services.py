"""What kube-proxy's chains say about Services.

    KUBE-SERVICES   one rule or two for each cluster, external and load-balancer address
    KUBE-NODEPORTS  one for each node port
    KUBE-SVC-…      a Service port's endpoints, all of them (the Cluster policy)
    KUBE-SVL-…      its endpoints on this node (the Local policy)
    KUBE-EXT-…      what is special about traffic from outside
    KUBE-FW-…       the source ranges of a load balancer
    KUBE-SEP-…      one endpoint

(pkg/proxy/iptables/proxier.go. Comments name the Service: `namespace/name:port cluster IP`.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from lab_utils.errors import BadInput
from lab_utils.iptables.probability import exact
from lab_utils.iptables.rules import Rule
from lab_utils.iptables.values import Place, show_address

if TYPE_CHECKING:
    from lab_utils.iptables.ruleset import Ruleset, Table

ROLES = {"KUBE-SVC-": "cluster", "KUBE-SVL-": "local", "KUBE-EXT-": "external", "KUBE-FW-": "firewall", "KUBE-XLB-": "external"}
NAMED = re.compile(r"(?P<name>[^\s/]+/[^\s:]+(?::\S*)?)(?: (?P<what>cluster IP|external IP|loadbalancer IP|has no .*))?")
DEEPEST = 64


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place a Service leads to; `chain` is the chain that rewrites the destination."""

    address: str
    probability: Fraction
    chain: str


@dataclass(slots=True)
class Service:
    """One port of one Service, as the rules of one address family describe it."""

    name: str
    family: int = 4
    cluster_ip: str = ""
    port: int = 0
    protocol: str = "tcp"
    external_ips: list[str] = field(default_factory=list)
    load_balancer_ips: list[str] = field(default_factory=list)
    node_port: int = 0
    chains: dict[str, str] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
    local_endpoints: tuple[Endpoint, ...] = ()
    rejected: bool = False
    rules: list[Rule] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.name.partition("/")[0]

    @property
    def service(self) -> str:
        """The Service's own name, without namespace and port."""
        return self.name.partition("/")[2].partition(":")[0]

    @property
    def port_name(self) -> str:
        return self.name.partition(":")[2]


def rewrite(place: Place, keep_port: int | None = None) -> str:
    """A `--to-destination` as one address with its port."""
    where = place.addresses
    address = "" if where is None else show_address(where.version, where.first)
    if where is not None and where.last != where.first:
        address += f"-{show_address(where.version, where.last)}"
    if where is not None and where.version == 6:
        address = f"[{address}]"
    if place.ports is not None:
        return f"{address}:{place.ports.first}" + (f"-{place.ports.last}" if place.ports.last != place.ports.first else "")
    return f"{address}:{keep_port}" if keep_port else address


def share(rule: Rule, remaining: int) -> Fraction:
    """How much of the traffic that reaches the rule it takes, as far as chance decides it."""
    match = rule.match("statistic")
    if match is None:
        return Fraction(1)
    if (probability := match.get("--probability")) is not None:
        value = exact(probability.words[0], remaining)
        return 1 - value if probability.negated else value
    every = match.get("--every")
    return Fraction(1, every.value) if every is not None and every.value else Fraction(1)


def endpoints_of(table: Table, chain: str) -> tuple[Endpoint, ...]:
    if chain not in table.chains:
        raise BadInput(f"there is no chain {chain!r} in the table {table.name}")
    found: dict[tuple[str, str], Fraction] = {}
    _walk(table, chain, Fraction(1), (), found)
    return tuple(Endpoint(address, probability, home) for (address, home), probability in found.items())


def _walk(table: Table, name: str, reach: Fraction, above: tuple[str, ...], found: dict[tuple[str, str], Fraction]) -> Fraction:
    """Follow a chain from its top; returns what is left over for the rule after the one that jumped here."""
    if name in above or len(above) > DEEPEST:
        raise BadInput(f"the chains {' → '.join([*above, name])} jump in a circle")
    rules = table.chains[name]
    for place in range(len(rules)):
        rule = rules[place]
        if not reach:
            break
        if rule.target is None or (rule.match("recent") is not None and "--set" not in (rule.match("recent") or ())):
            continue  # session affinity only decides for clients seen before
        here = reach * share(rule, len(rules) - place)
        if rule.to_destination is not None:
            key = rewrite(rule.to_destination), name
            found[key] = found.get(key, Fraction(0)) + here
            reach -= here
        elif rule.jump in table.chains and rule.jump not in ("KUBE-MARK-MASQ", "KUBE-MARK-DROP"):
            left = _walk(table, rule.jump, here, (*above, name), found)
            reach -= here - left
        elif rule.jump in ("DROP", "REJECT", "ACCEPT") or (rule.jump == "RETURN" and not rule.matches):
            return reach - here if rule.jump != "RETURN" else reach
    return reach


def find_services(ruleset: Ruleset) -> tuple[Service, ...]:
    """Read the comments and matches of KUBE-SERVICES, KUBE-NODEPORTS and the filter table's refusals."""
    services: dict[tuple[str, str, int], Service] = {}

    def named(rule: Rule, family: int) -> tuple[Service, str] | None:
        said = NAMED.match(rule.comment)
        if said is None:
            return None
        name = said["name"].removesuffix(":") if said["name"].endswith(":") else said["name"]
        protocol = rule.protocol or "tcp"
        family = family or (rule.destination.version if rule.destination else 4)
        service = services.setdefault((name, protocol, family), Service(name, family, protocol=protocol))
        service.rules.append(rule)
        return service, said["what"] or ""

    for table in ruleset.in_effect:
        for chain in ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"):
            for rule in table.chains.get(chain, ()):
                if (found := named(rule, table.family)) is not None:
                    _learn(found[0], found[1], rule, chain, table.name)
    for service in services.values():
        _chains(ruleset, service)
    return tuple(services.values())


def _learn(service: Service, what: str, rule: Rule, chain: str, table: str) -> None:
    address = show_address(rule.destination.version, rule.destination.address) if rule.destination and rule.destination.single else ""
    ports = rule.dport
    if chain == "KUBE-NODEPORTS" and table == "nat":
        service.node_port = ports.first if ports else 0
    elif what == "cluster IP" or (what.startswith("has no") and chain == "KUBE-SERVICES"):
        service.cluster_ip, service.port = address or service.cluster_ip, ports.first if ports else service.port
        service.rejected = service.rejected or what.startswith("has no")
    elif what == "external IP" and address not in service.external_ips:
        service.external_ips.append(address)
    elif what == "loadbalancer IP" and address not in service.load_balancer_ips:
        service.load_balancer_ips.append(address)
    for prefix, role in ROLES.items():
        if rule.jump is not None and rule.jump.startswith(prefix):
            service.chains[role] = rule.jump


def _chains(ruleset: Ruleset, service: Service) -> None:
    """From the chains that KUBE-SERVICES names to those behind them, and to the endpoints."""
    tables = ruleset.tables_for(service.family, "nat")
    for table in tables:
        todo = [name for name in service.chains.values() if name in table.chains]
        seen = set(todo)
        while todo:
            for name in _next(table, todo.pop()):
                for prefix, role in ROLES.items():
                    if name.startswith(prefix) and name not in seen:
                        service.chains.setdefault(role, name)
                        todo.append(name)
                        seen.add(name)
        for role in ("cluster", "local"):
            if (chain := service.chains.get(role)) in table.chains and chain is not None:
                found = endpoints_of(table, chain)
                if role == "cluster":
                    service.endpoints = found
                else:
                    service.local_endpoints = found


def _next(table: Table, chain: str) -> Iterator[str]:
    for rule in table.chains[chain]:
        if rule.jump is not None and rule.jump in table.chains:
            yield rule.jump
