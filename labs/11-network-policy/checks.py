"""Checks of lab 11: what the policies say is read from the API, what the rules do from a table that nft has loaded, the rest is tried."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import yaml

from lab_utils import nft
from lab_utils.checks import CheckContext, check, cleanup, setup
from lab_utils.cluster import Node
from lab_utils.iptables import parse
from lab_utils.labs.workspace import Workspace
from lab_utils.policies import Request, World, addresses, allowed, fits, full_name, selecting
from lab_utils.trace import Packet, trace

PODS = ("lab-11/web", "lab-11/api", "lab-11/client", "lab-11/stranger", "lab-11-vault/safe", "lab-11-vault/guard")
GIVEN = ("web-in", "api-in", "client-out", "by-address", "closed", "safe-in", "guard-out")
TABLES = 'nft -j list tables | grep -o \'"name": *"policy-[^"]*"\' | sort -u'

ASKED: dict[str, Any] = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "asked-by-the-check"}}


# the starting state, and back


@setup
def _(lab: Workspace) -> None:
    for name in PODS:
        namespace, _, pod = name.partition("/")
        lab.kubectl("-n", namespace, "wait", f"pod/{pod}", "--for=condition=Ready", "--timeout=120s", timeout=140)
    lab.apply(by_address(lab))
    lab.cluster.wait(lambda: lab.find("endpoints", "client") is not None, timeout=30, why="the Service client has no endpoints")


def by_address(lab: Workspace) -> dict[str, Any]:
    """The stranger takes traffic from the Pod network but for w1's part of it. Which part that is, the node's object says."""
    part = next(each["spec"]["podCIDR"] for each in lab.get("nodes")["items"] if each["metadata"]["name"] == "w1")
    around = str(ip_network(part).supernet(new_prefix=16))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "by-address"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "stranger"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": around, "except": [part]}}]}],
        },
    }


@cleanup
def _(lab: Workspace) -> None:
    """First the learner's agent, which would write its rules again, then the rules."""
    lab.kubectl("delete", "daemonsets", "--all", "--ignore-not-found", "--timeout=60s", check=False)
    lab.cluster.wait(lambda: not lab.objects("pods", "app=policy-agent"), timeout=60, why="the agent's Pods do not end")
    script = "nft list tables | awk '$3 ~ /^policy-/ {print \"delete table\", $2, $3}' | nft -f -"
    for node in lab.nodes:
        node.run(script)


def starting(kind: str, name: str) -> Any:
    """An object as setup.yaml has it."""
    documents = yaml.safe_load_all(Path(__file__).with_name("setup.yaml").read_text())
    return next(each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name))


# what the policies say


def world(lab: Workspace, only: Iterable[str] | None = None) -> World:
    """As the API tells it; with `only`, as if the policies of these names were all."""
    policies = [each for each in items(lab, "networkpolicies") if only is None or each["metadata"]["name"] in only]
    nodes = {node.name: node_addresses(node) for node in lab.nodes}
    return World(policies, items(lab, "pods"), items(lab, "namespaces"), nodes)


def items(lab: Workspace, kind: str) -> list[Any]:
    return list(lab.get(kind, "-A")["items"])


def node_addresses(node: Node) -> list[str]:
    said = json.loads(node.run("ip -j address", check=True).stdout)
    return [each["local"] for link in said for each in link.get("addr_info", [])]


def port_of(pod: Any) -> int:
    return int(pod["spec"]["containers"][0]["ports"][0]["containerPort"])


def truth(seen: World) -> dict[str, list[str]]:
    """Receiver → who may connect to its port "http"."""
    found = {name: seen.pod(name) for name in PODS}
    address = {name: addresses(pod)[0] for name, pod in found.items()}
    return {
        receiver: [
            sender
            for sender in PODS
            if sender != receiver and allowed(seen, Request(address[sender], address[receiver], "TCP", port_of(found[receiver])))
        ]
        for receiver in PODS
    }


# what comes of real connections


def connections(lab: Workspace, senders: Iterable[str], receivers: Iterable[str]) -> dict[tuple[str, str], str]:
    """(sender, receiver) → answer, refused or timeout, each tried once, all senders side by side."""
    pods = {name: lab.get("pod", name.partition("/")[2], "-n", name.partition("/")[0]) for name in PODS}
    targets = {name: f"{addresses(pods[name])[0]}:{port_of(pods[name])}" for name in receivers}

    def tried(sender: str) -> dict[tuple[str, str], str]:
        others = [name for name in targets if name != sender]
        line = "for to in {}; do /agnhost connect $to --timeout=2s 2>&1 >/dev/null | head -c 12 | tr '\\n' ' '; echo; done"
        namespace, _, pod = sender.partition("/")
        script = line.format(" ".join(shlex.quote(targets[name]) for name in others))
        said = lab.kubectl("-n", namespace, "exec", pod, "--", "sh", "-c", script, timeout=90).stdout.split("\n")
        return {(sender, name): word.strip().lower() or "answer" for name, word in zip(others, said, strict=False)}

    with ThreadPoolExecutor(6) as pool:
        return {key: value for found in pool.map(tried, list(senders)) for key, value in found.items()}


def agrees(lab: CheckContext, seen: World, look: str, earned: float = 0) -> None:
    """Every connection between the Pods fares as the policies say. What was just changed may take a moment."""
    right = truth(seen)

    def wrong() -> dict[str, str]:
        found = connections(lab, PODS, PODS)
        told = {pair: ("answer" if pair[0] in right[pair[1]] else "none") for pair in found}
        return {f"{a} to {b}": found[a, b] for (a, b), word in told.items() if (found[a, b] == "answer") != (word == "answer")}

    if wrong():
        time.sleep(3)
        left = wrong()
        open_ = [pair for pair, came in left.items() if came == "answer"]
        shut = [pair for pair, came in left.items() if came != "answer"]
        lab.require(
            not left,
            expected="every connection fares as the policies say",
            seen="; ".join(
                filter(None, [f"open and should not be: {', '.join(open_)}" * bool(open_), f"shut: {', '.join(shut)}" * bool(shut)])
            ),
            look=look,
            earned=earned,
        )


# the steps


@check("wish", points=5)
def _(lab: CheckContext) -> None:
    said = lab.answered({"answer", "refused", "timeout"})
    found = connections(lab, ["lab-11/client"], ["lab-11-vault/guard"])["lab-11/client", "lab-11-vault/guard"]
    if enforced(lab):  # the learner's own agent runs by now; what there was before it is known
        found = "answer"
    lab.expect(found, said, look='connect("lab-11/client", "lab-11-vault/guard")')


def enforced(lab: Workspace) -> bool:
    return any(node.run(TABLES).stdout.strip() for node in lab.nodes)


@check("isolated", points=7)
def _(lab: CheckContext) -> None:
    said = lab.answered({"ingress": [str], "egress": [str]})
    seen = world(lab, GIVEN)
    right = {
        "ingress": sorted(name for name in PODS if selecting(seen, seen.pod(name), "Ingress")),
        "egress": sorted(name for name in PODS if selecting(seen, seen.pod(name), "Egress")),
    }
    given = {way: sorted(set(names)) for way, names in said.items()}
    lab.compare(right, given, look="podSelector and policyTypes of each policy, and its namespace")


@check("truth-table", points=12)
def _(lab: CheckContext) -> None:
    said = lab.answered({name: [str] for name in PODS})
    right = sighted_truth(lab)
    lab.compare(
        {name: sorted(senders) for name, senders in right.items()},
        {name: sorted(set(senders)) for name, senders in said.items()},
        look="For each connection: may the sender send it, and may the receiver take it?",
    )


def sighted_truth(lab: CheckContext) -> dict[str, list[str]]:
    """As it was before a later step changes a policy: the prediction was about that."""
    if not lab.sighted("truth"):
        lab.sight("truth", truth(world(lab, GIVEN)))
    return dict(lab.sighted("truth"))


@check("engine", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({"pod_chain": str, "policy_chain": str, "mark": str, "destinations": [str]})
    data = starting("ConfigMap", "recorded")["data"]
    # The dump is a piece of one: with its first and last line, and a line for each chain, it can be parsed.
    rules = data["iptables-save"].replace("$$", "$")
    named = dict.fromkeys(re.findall(r"-(?:A|j) (KUBE-\S+)", rules))
    dump = parse("*filter\n:FORWARD ACCEPT [0:0]\n" + "".join(f":{chain} - [0:0]\n" for chain in named) + rules + "COMMIT\n")
    pod_chain = next(rule.jump for rule in dump.chain("filter", "KUBE-ROUTER-FORWARD") if "-s 10.244.1.10/32" in str(rule))
    texts = [str(rule) for rule in dump.chain("filter", str(pod_chain))]
    policy_chain = next(re.search(r"-j (KUBE-NWPLCY-\S+)", text)[1] for text in texts if "nw policy cage" in text)  # type: ignore[index]
    mark = next(re.search(r"! --mark (0x\w+)", text)[1] for text in texts if "REJECT" in text)  # type: ignore[index]
    ranged = next(str(rule) for rule in dump.chain("filter", policy_chain) if "8000:8090" in str(rule))
    name = re.search(r"--match-set (\S+) dst", ranged)[1]  # type: ignore[index]
    members = re.findall(rf"^add {name} (\S+)", data["ipset-save"], re.M)
    right = {"pod_chain": pod_chain, "policy_chain": policy_chain, "mark": mark, "destinations": sorted(members)}
    seen = {**said, "mark": said["mark"].partition("/")[0], "destinations": sorted(said["destinations"])}
    lab.compare(right, seen, look="The comments of the rules name Pods and policies")


# The same as in the notebook: what `matches` is asked about.
LABELS: list[dict[str, str]] = [{}, {"app": "web"}, {"app": "api"}, {"app": "web", "tier": "front"}, {"tier": "back"}, {"app": ""}]
SELECTORS: list[dict[str, Any]] = [
    {},
    {"matchLabels": {}},
    {"matchLabels": {"app": "web"}},
    {"matchLabels": {"app": "web", "tier": "front"}},
    *({"matchExpressions": [{"key": "app", "operator": how, "values": ["web", "db"]}]} for how in ("In", "NotIn")),
    *({"matchExpressions": [{"key": "tier", "operator": how}]} for how in ("Exists", "DoesNotExist")),
    {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}]},
    {"matchExpressions": [{"key": "app", "operator": "Exists"}, {"key": "app", "operator": "NotIn", "values": ["api"]}]},
]


@check("selectors", points=10)
def _(lab: CheckContext) -> None:
    said = lab.answered({str: bool})
    right = {json.dumps([each, labels]): fits(each, labels) for each in SELECTORS for labels in LABELS}
    wrong = [question for question in right if said.get(question) != right[question]]
    lab.require(
        not wrong,
        expected=f"{len(right)} right answers",
        seen=f"{len(wrong)} are not; the first: {wrong[0] if wrong else ''} gives {said.get(wrong[0]) if wrong else ''}",
        look="kubectl explain networkpolicy.spec.podSelector.matchExpressions",
        earned=round(10 - 20 * len(wrong) / len(right), 2) if len(wrong) < len(right) / 4 else 0,
    )


# A rule of the notebook's → what it means. The address of the stranger is filled in.
RULES: dict[str, dict[str, Any]] = {
    "everybody": {},
    "nobody yet": {"from": [{"podSelector": {"matchLabels": {"app": "none"}}}]},
    "one label": {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]},
    "both in one peer": {
        "from": [{"namespaceSelector": {"matchLabels": {"kind": "secret"}}, "podSelector": {"matchLabels": {"app": "client"}}}]
    },
    "two peers": {
        "from": [{"namespaceSelector": {"matchLabels": {"kind": "secret"}}}, {"podSelector": {"matchLabels": {"app": "client"}}}]
    },
    "all namespaces": {"from": [{"namespaceSelector": {}}]},
    "addresses": {"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["STRANGER/32"]}}]},
    "ports": {"ports": [{"port": 8080}, {"protocol": "UDP", "port": 5000, "endPort": 6000}, {"protocol": "SCTP"}]},
    "a port by name": {"ports": [{"port": "http"}]},
}


@check("peers", points=12)
def _(lab: CheckContext) -> None:
    said = lab.answered({name: [str] for name in RULES})
    seen = world(lab, ())
    web = addresses(seen.pod("lab-11/web"))[0]
    stranger = addresses(seen.pod("lab-11/stranger"))[0]
    senders = [(name, addresses(seen.pod(name))[0]) for name in PODS if name != "lab-11/web"] + [("a host outside", "192.0.2.7")]
    packets = [("TCP", 8080), ("TCP", port_of(seen.pod("lab-11/api"))), ("UDP", 5500), ("UDP", 6001)]
    wrong: dict[str, str] = {}
    for name, rule in RULES.items():
        rule = json.loads(json.dumps(rule).replace("STRANGER", stranger))
        policy = {
            "metadata": {"namespace": "lab-11", "name": "asked"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]},
        }
        asked = World([policy], seen.pods, seen.namespaces)
        lines = "\n".join(f"  {line} accept" for line in said[name])
        text = f"table ip asked {{\n chain forward {{\n  type filter hook forward priority filter; policy drop;\n{lines}\n }}\n}}\n"
        try:
            rules = loaded(lab, lab.node("w1"), text)
        except ValueError as problem:
            wrong[name] = f"nft does not take it: {problem}"
            continue
        for who, src in senders:
            for protocol, port in packets:
                came = trace(rules, Packet(src, web, port, protocol=protocol.lower()), origin="pod").verdict == "ACCEPT"
                if came != allowed(asked, Request(src, web, protocol, port)):
                    wrong.setdefault(name, f"{'lets' if came else 'does not let'} {who} in on {protocol} {port}")
    lab.require(
        not wrong,
        expected=f"all {len(RULES)} rules translated",
        seen="; ".join(f"{name}: {why}" for name, why in wrong.items()),
        look="conditions(RULES[…]) shows what your functions make of a rule",
        earned=round(12 * (len(RULES) - len(wrong)) / len(RULES), 2) if len(wrong) < 5 else 0,
    )


def loaded(lab: CheckContext, node: Node, text: str) -> nft.NftRuleset:
    """The text in a network namespace that lives as long as this command: nft and the kernel judge it, and the node stays as it is."""
    done = node.run(["unshare", "--net", "sh", "-c", "nft -f - && nft -j list ruleset"], input=text)
    if not done.ok:
        raise ValueError(" ".join(done.stderr.split())[:300])
    return nft.parse(done.stdout)


@check("tables", points=12, after=["peers"])
def _(lab: CheckContext) -> None:
    said = lab.answered({"w1": str, "w2": str})
    seen = world(lab)
    if lab.sighted("tables") == said:  # a later step changes policies and Pods; the text was right when it was given
        return
    rules = {}
    for node, text in said.items():
        try:
            rules[node] = loaded(lab, lab.node(node), f"table ip policy-asked {{\n{text}\n}}\n")
        except ValueError as problem:
            lab.fail(expected=f"a table that nft loads on {node}", seen=str(problem), look=f'print(tables()["{node}"])')
    wrong = []
    pods = {name: seen.pod(name) for name in PODS}
    outside = ("a host outside", "192.0.2.7")
    ends = [(name, addresses(pod)[0]) for name, pod in pods.items()] + [outside]
    for sender, src in ends:
        for receiver, dst in ends:
            for port in (8080, port_of(pods["lab-11/api"])):
                homes = {pods[name]["spec"]["nodeName"] for name in (sender, receiver) if name in pods}
                came = all(
                    trace(rules[home], Packet(src, dst, port), local_addresses=seen.nodes[home], origin="pod").verdict == "ACCEPT"
                    for home in homes
                )
                if sender != receiver and came != allowed(seen, Request(src, dst, "TCP", port)):
                    wrong.append(f"{sender} {'reaches' if came else 'does not reach'} {receiver} on {port}")
    lab.require(not wrong, expected="every connection fares as the policies say", seen="; ".join(wrong[:6]), look="print(tables()[…])")
    lab.sight("tables", said)


@check("agent", points=16, after=["tables"], timeout=300)
def _(lab: CheckContext) -> None:
    version = lab.answered(str)
    pods = [pod for pod in lab.pods("app=policy-agent") if pod["metadata"].get("annotations", {}).get("version") == version]
    lab.expect(sorted(node.name for node in lab.nodes), sorted(pod["spec"]["nodeName"] for pod in pods), look="kubectl get pods -o wide")
    seen = world(lab)
    agrees(lab, seen, "kubectl logs daemonset/policy-agent; nft list ruleset, on a node")
    follows(lab)
    comes_back(lab)
    nothing_slips_through(lab)


def follows(lab: CheckContext) -> None:
    """A policy that comes is kept within seconds; one that goes is forgotten."""
    pair = ("lab-11/web", "lab-11/client")
    came = partial(lambda: connections(lab, [pair[0]], [pair[1]])[pair])
    try:
        lab.apply({**ASKED, "spec": {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Ingress"]}})
        shut = lab.eventually(lambda: came() != "answer", timeout=15)
        lab.require(shut, expected="a new policy is kept within 15 seconds", seen="it is not", look="kubectl logs daemonset/policy-agent")
    finally:
        lab.kubectl("delete", "networkpolicy", ASKED["metadata"]["name"], "--ignore-not-found")
    free = lab.eventually(lambda: came() == "answer", timeout=15)
    lab.require(free, expected="without the policy the connection is free again", seen="it is not", look="DELETED events of the watch")


def comes_back(lab: CheckContext) -> None:
    """Rules that somebody took away are there again, before long, without anything changing in the API."""
    home = "w1"
    lab.node(home).run("nft list tables | awk '$3 ~ /^policy-/ {print \"delete table\", $2, $3}' | nft -f -")
    back = lab.eventually(lambda: lab.node(home).run(TABLES).stdout.strip(), timeout=45)
    lab.require(
        back,
        expected=f"rules that were deleted on {home} come back",
        seen="45 seconds later they are not there",
        look="changed.wait(LOOK_AGAIN)",
    )


def nothing_slips_through(lab: CheckContext) -> None:
    """The stranger knocks at web without pause, and is never let in, while another policy for web changes 40 times."""
    web = lab.get("pod", "web")
    once = f"timeout 0.5 bash -c ': <>/dev/tcp/{addresses(web)[0]}/{port_of(web)}' 2>/dev/null && n=$((n+1))"
    script = f"n=0; t=0; while [ ! -e /tmp/stop ] && [ $t -lt 9000 ]; do t=$((t+1)); {once}; done; echo $n of $t"
    lab.run_in("stranger", "rm -f /tmp/stop")
    with ThreadPoolExecutor(1) as pool:
        knocking = pool.submit(lab.run_in, "stranger", script, timeout=120)
        try:
            for number in range(40):
                block = {"ipBlock": {"cidr": f"192.0.2.{number}/32"}}
                spec = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"], "ingress": [{"from": [block]}]}
                lab.apply({**ASKED, "spec": spec})
                time.sleep(0.25)  # so that each change is one for the agent, too
        finally:
            lab.run_in("stranger", "touch /tmp/stop")
            said = knocking.result().stdout.split()
            lab.kubectl("delete", "networkpolicy", ASKED["metadata"]["name"], "--ignore-not-found")
    lab.require(
        said[:1] == ["0"],
        expected="no connection that is forbidden before and after a change gets through meanwhile",
        seen=f"{' '.join(said)} got through",
        look="Kernel.load: is there a moment without rules?",
        earned=10,
    )


@check("cage", points=9, after=["tables"])
def _(lab: CheckContext) -> None:
    lab.require(
        lab.find("networkpolicy", "cage"), expected="a NetworkPolicy cage", seen="there is none", look="kubectl get networkpolicies"
    )
    fetched = lab.eventually(
        lambda: lab.run_in("api", ["curl", "-sS", "--max-time", "5", "http://client/hostname"]).stdout == "client", timeout=20
    )
    lab.require(
        fetched,
        expected="api fetches http://client/hostname",
        seen="it does not",
        look="Is the name found? Is the Pod reached, on its own port?",
    )
    wide = reach_of_the_cage(world(lab))
    lab.require(
        not wide,
        expected="nothing else",
        seen=f"it may also send to {', '.join(wide[:4])}",
        look="kubectl get networkpolicy cage -o yaml",
        earned=4,
    )
    came = connections(lab, ["lab-11/api"], ["lab-11/stranger"])["lab-11/api", "lab-11/stranger"]
    lab.require(
        came != "answer", expected="api does not reach stranger any more", seen="it does", look="kubectl logs daemonset/policy-agent"
    )


def reach_of_the_cage(seen: World) -> list[str]:
    """What the policies of api let it send, beside the Pod client on its port, and questions for names."""
    api = seen.pod("lab-11/api")
    alone = World(selecting(seen, api, "Egress"), seen.pods, seen.namespaces, {})  # whether the other side takes it is not asked
    others = {full_name(pod): addresses(pod)[0] for pod in seen.pods if addresses(pod) and pod is not api}
    others["a host outside"] = "192.0.2.7"
    return [
        f"{name} on {protocol} {port}"
        for name, address in others.items()
        for protocol, port in (("TCP", 80), ("TCP", 8080), ("TCP", 443), ("UDP", 123))
        if (name, port) != ("lab-11/client", 8080) and allowed(alone, Request(addresses(api)[0], address, protocol, port))
    ]


@check("repair", points=9, after=["tables"])
def _(lab: CheckContext) -> None:
    plan = lab.injected("peer-split")
    said = lab.answered({"from": str, "to": str})
    before = lab.sighted("truth") or truth(given_with(lab, plan, "before"))
    after = truth(given_with(lab, plan, "after"))
    lab.require(
        said["from"] in set(after.get(said["to"], ())) - set(before.get(said["to"], ())),
        expected="a connection that this edit made possible",
        seen=f"not {said['from']} to {said['to']}",
        look="Your truth table, and connect()",
    )
    lab.require(
        truth(world(lab, GIVEN)) == before,
        expected="the policies that you were given allow what they did before, and no more",
        seen="they do not",
        look="kubectl get networkpolicy api-in -o yaml",
        earned=3,
    )
    agrees(lab, world(lab), "kubectl logs daemonset/policy-agent", earned=6)


def given_with(lab: CheckContext, plan: dict[str, Any], when: str) -> World:
    """The given policies, and the one that somebody edited as it was before or after the edit."""
    seen = world(lab, [name for name in GIVEN if name != plan["name"]])
    edited = starting("NetworkPolicy", plan["name"])
    edited["spec"]["ingress"][0]["from"] = plan[when]
    return World([*seen.policies, edited], seen.pods, seen.namespaces, seen.nodes)
