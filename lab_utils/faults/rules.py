"""Faults in the rules that kube-proxy writes in iptables mode.

How long they last: kube-proxy writes rules when a Service, an endpoint or its node changes, and then its top chains
(KUBE-SERVICES, KUBE-NODEPORTS, KUBE-POSTROUTING) whole, but of the chains of single Services (KUBE-SVC-…, KUBE-SEP-…) only
those of the Service that changed. All of them it writes when it starts, when it finds its KUBE-PROXY-CANARY chain gone (it
looks every `iptables.syncPeriod`, 30 s, which is also how soon it tries again after a failure), and in the full sync
once an hour (`FullSyncPeriod`; pkg/proxy/iptables/proxier.go, `NewBoundedFrequencyRunner` and `Monitor`). So these faults break
chains of one Service, and last.
"""

from __future__ import annotations

import re
import shlex
import time
from abc import abstractmethod

from lab_utils.cluster import Node
from lab_utils.errors import BadInput, CommandFailed
from lab_utils.faults import Fault, Plan
from lab_utils.labs.workspace import Workspace

Table = dict[str, list[str]]  # chain → rules, without the leading `-A CHAIN`
HEALS = "when the Service or its endpoints change, when kube-proxy starts anew on the node, and in its full sync once an hour"


class ChainFault(Fault):
    """One chain of the nat table, on some nodes, with other rules in it than kube-proxy wrote."""

    heals = HEALS

    @abstractmethod
    def edited(self, chain: str, table: Table) -> tuple[str, list[str]]:
        """Given a Service's chain: the chain to change (it, or one it jumps to), and its rules then."""

    def plan(self, lab: Workspace, *, service: str, node: str = "", namespace: str = "") -> Plan:
        """`node` is one node's name; without it, every node is changed."""
        where = f"{namespace or lab.namespace}/{service}"
        changes = []
        for each in [lab.node(node)] if node else lab.nodes:
            table = _when_written(each, where)
            chain = service_chain(table, where, each.name)
            target, after = self.edited(chain, table)
            changes.append({"node": each.name, "chain": target, "before": table[target], "after": after})
        return {"changes": changes}

    def do(self, lab: Workspace, plan: Plan) -> None:
        for change in plan["changes"]:
            write_chain(lab.node(change["node"]), change["chain"], change["after"])

    def undo(self, lab: Workspace, plan: Plan) -> None:
        for change in plan["changes"]:
            node = lab.node(change["node"])
            if read_nat(node).get(change["chain"]) == change["after"]:
                write_chain(node, change["chain"], change["before"])

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        return any(read_nat(lab.node(change["node"])).get(change["chain"]) == change["after"] for change in plan["changes"])


class RuleLost(ChainFault):
    name = "rule-lost"
    about = "the last rule of a Service's chain is gone: what the others leave over finds no endpoint"

    def edited(self, chain: str, table: Table) -> tuple[str, list[str]]:
        last = to_endpoints(table[chain])[-1]
        return chain, [rule for rule in table[chain] if rule != last]


class RuleDoubled(ChainFault):
    name = "rule-doubled"
    about = "the first endpoint's rule stands twice: the split is no longer even"

    def edited(self, chain: str, table: Table) -> tuple[str, list[str]]:
        rules = table[chain]
        place = rules.index(to_endpoints(rules)[0])
        return chain, [*rules[:place], rules[place], *rules[place:]]


class EndpointRuleWrong(ChainFault):
    name = "endpoint-rule-wrong"
    about = "one endpoint's DNAT leads to a port where nobody listens"

    def edited(self, chain: str, table: Table) -> tuple[str, list[str]]:
        endpoint = re.findall(r"-j (KUBE-SEP-\S+)", to_endpoints(table[chain])[0])[0]

        def next_port(match: re.Match[str]) -> str:
            return f"{match[1]}{int(match[2]) % 65535 + 1}"

        return endpoint, [re.sub(r"(--to-destination \S+:)(\d+)", next_port, rule) for rule in table[endpoint]]


def to_endpoints(rules: list[str]) -> list[str]:
    return [rule for rule in rules if "-j KUBE-SEP-" in rule]


def read_nat(node: Node) -> Table:
    """The nat table as iptables-save writes it."""
    table: Table = {}
    for line in node.run("iptables-save -t nat", check=True).stdout.splitlines():
        if line.startswith(":"):
            table[line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            table[chain].append(rule)
    return table


def service_chain(table: Table, service: str, node: str) -> str:
    """The KUBE-SVC- chain of NAMESPACE/NAME (of its first port), found by the comment that kube-proxy writes."""
    for rule in table.get("KUBE-SERVICES", []):
        words = shlex.split(rule)
        comment = words[words.index("--comment") + 1] if "--comment" in words else ""
        if re.fullmatch(rf"{re.escape(service)}(:\S+)? cluster IP", comment) and words[-1].startswith("KUBE-SVC-"):
            return words[-1]
    raise BadInput(
        f"the Service {service} has no chain in the nat table of node {node}",
        "It needs a ClusterIP and ready endpoints, and kube-proxy in iptables mode",
    )


def _when_written(node: Node, service: str, seconds: float = 15) -> Table:
    """kube-proxy needs a moment after endpoints become ready; do not break a chain that it is about to rewrite."""
    deadline = time.monotonic() + seconds * node.patience
    before: Table = {}
    while True:
        table = read_nat(node)
        try:
            chain = service_chain(table, service, node.name)
            if to_endpoints(table[chain]) and before.get(chain) == table[chain]:
                return table
        except BadInput:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise BadInput(f"the Service {service} has no ready endpoints on node {node.name}")
        before = table
        time.sleep(1)


def write_chain(node: Node, chain: str, rules: list[str]) -> None:
    """Put these rules in place of a chain's, all at once: `:CHAIN` empties the one chain, --noflush keeps all others."""
    text = "\n".join(["*nat", f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules), "COMMIT", ""])
    done = node.run(["iptables-restore", "--wait", "5", "--noflush"], input=text)
    if not done.ok:
        raise CommandFailed(["iptables-restore", "--wait", "5", "--noflush"], done.code, done.stdout, done.stderr)


FAULTS: list[Fault] = [RuleLost(), RuleDoubled(), EndpointRuleWrong()]
