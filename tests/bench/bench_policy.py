"""What lab 11's agent costs with 10, 100 and 1,000 policies: `python -m tests.bench policy`.

One node of a cluster of ten, with 100 of its 1,000 Pods. A policy selects one of 50 groups of Pods in one of 10 namespaces and lets
in two others by label, Pods of a third of all namespaces, and two CIDRs. Computing is the agent's own work; the reference for it is
loading: `nft -f` into a throw-away network namespace that holds a table already, as in each pass but the first. The reference for
both together is ten times what a tenth of the policies took: growth that is no worse than linear.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from lab_utils.run import run
from tests.bench.report import Row, seconds, table
from tests.kernel import agent_source

Object = dict[str, Any]
NODES, PODS, SPACES, GROUPS = 10, 1000, 10, 50


def cluster(policies: int) -> tuple[list[Object], list[Object], list[Object]]:
    spaces = [{"metadata": {"name": f"ns-{n}", "labels": {"team": f"t{n % 3}"}}} for n in range(SPACES)]
    pods = [
        {
            "metadata": {"namespace": f"ns-{n % SPACES}", "name": f"pod-{n}", "labels": {"app": f"app-{n % GROUPS}", "tier": f"t{n % 4}"}},
            "spec": {"nodeName": f"node-{n % NODES}", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIPs": [{"ip": f"10.244.{n % NODES}.{n // NODES + 2}"}]},
        }
        for n in range(PODS)
    ]
    return [policy(n) for n in range(policies)], pods, spaces


def policy(n: int) -> Object:
    peers = [
        {"podSelector": {"matchLabels": {"app": f"app-{(n + 10) % GROUPS}"}}},
        {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["t0", "t1"]}]}},
        {"namespaceSelector": {"matchLabels": {"team": f"t{n % 3}"}}, "podSelector": {"matchLabels": {"tier": "t2"}}},
        {"ipBlock": {"cidr": f"172.16.{n % 250}.0/24"}},
        {"ipBlock": {"cidr": "192.168.0.0/16", "except": [f"192.168.{n % 250}.0/24"]}},
    ]
    spec: Object = {"podSelector": {"matchLabels": {"app": f"app-{n % GROUPS}"}}, "policyTypes": ["Ingress", "Egress"]}
    spec["ingress"] = [{"from": peers, "ports": [{"port": 8080}, {"port": 9000, "endPort": 9100}]}]
    spec["egress"] = [{"to": peers[:3], "ports": [{"port": "http"}]}, {"ports": [{"protocol": "UDP", "port": 53}]}]
    return {"metadata": {"namespace": f"ns-{n % SPACES}", "name": f"policy-{n}"}, "spec": spec}


def best(times: int, work: Any) -> float:
    return min(seconds(work) for _ in range(times))


def measured(rules: ModuleType, namespace: str, policies: int) -> tuple[float, float, str]:
    """Seconds to compute and to load, and what is loaded."""
    enter = ["nsenter", f"--net=/run/netns/{namespace}", "nft"]
    what = cluster(policies)
    contents = rules.ruleset(*what, "node-3", ["10.244.3.0/24"])
    text = rules.in_tables("policy-a", contents)
    compute = best(3, lambda: rules.ruleset(*what, "node-3", ["10.244.3.0/24"]))
    run([*enter, "-f", "-"], input=text)
    load = best(3, lambda: run([*enter, "-f", "-"], input=text, timeout=300))
    lines = [line.strip() for line in contents["ip"].splitlines()]
    count = sum(line.startswith(("ip ", "tcp ", "udp ", "jump ", "ct ", "goto ", "reject", "accept")) for line in lines)
    members = sum(line.count(",") + 1 for line in lines if "{ " in line and "}" in line)
    return compute, load, f"{count:,} rules, {members:,} elements, {len(text) / 1000:,.0f} kB"


def rows() -> list[Row]:
    namespace = f"kbench{os.getpid()}"
    found: list[Row] = []
    before = 0.0
    with tempfile.TemporaryDirectory() as folder:
        rules = agent_source.rules(Path(folder))
        run(["ip", "netns", "add", namespace])
        try:
            for policies in (10, 100, 1000):
                compute, load, size = measured(rules, namespace, policies)
                name = f"{policies:,} policies ({size})"
                found.append(Row(f"{name}: compute | load", f"{compute:.3f} s", f"{load:.3f} s", f"{compute / load:.2f}"))
                if before:
                    both = compute + load
                    linear = f"{10 * before:.3f} s"
                    found.append(Row(f"{policies:,} policies: a whole pass | linear", f"{both:.3f} s", linear, f"{both / 10 / before:.2f}"))
                before = compute + load
        finally:
            run(["ip", "netns", "del", namespace])
    return found


if __name__ == "__main__":
    print(table(rows()))
