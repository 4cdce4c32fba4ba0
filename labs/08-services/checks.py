"""Checks of lab 08: what is right is read from the nodes' rules, or measured with real connections."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from fractions import Fraction
from functools import partial
from typing import Literal

from lab_utils.checks import CheckContext, check, cleanup, setup
from lab_utils.cluster import Node
from lab_utils.iptables import Ruleset, parse
from lab_utils.labs.workspace import Workspace
from lab_utils.trace import Packet, Trace, trace

Origin = Literal["external", "pod", "local"]
CLIENTS = {"w1": "client-w1", "w2": "client-w2"}
SERVED = {"web": 3, "shop": 3, "door": 1}  # Services that kube-proxy has to have written before the lab begins
DUMP = "iptables-save -t nat | grep lab-08/"
LOST = "lab-08: addressed to a ClusterIP, and no rule took it"  # the comment of the rule that keeps such packets on their node


# the starting state, and back


@setup
def _(lab: Workspace) -> None:
    keep_lost_packets(lab)
    for deployment in ("web", "door", "mine"):
        lab.kubectl("rollout", "status", f"deployment/{deployment}", "--timeout=180s", timeout=200)
    for client in CLIENTS.values():
        lab.kubectl("wait", f"pod/{client}", "--for=condition=Ready", "--timeout=120s", timeout=140)
    for node in lab.nodes:
        lab.cluster.wait(
            partial(written, lab, node), timeout=60, every=1, why=f"kube-proxy on {node.name} has not written the lab's Services"
        )


def keep_lost_packets(lab: Workspace) -> None:
    """A packet to a ClusterIP without rules would leave the machine by its default route. Here it ends on its node.

    In mangle POSTROUTING the destination of all others has been rewritten already.
    """
    for item in lab.cluster.get("servicecidrs")["items"]:
        for cidr in item["spec"]["cidrs"]:
            rule = f"POSTROUTING -d {cidr} -m comment --comment '{LOST}' -j DROP"
            tool = "ip6tables" if ":" in cidr else "iptables"
            for node in lab.nodes:
                node.run(f"{tool} -w -t mangle -C {rule} 2>/dev/null || {tool} -w -t mangle -A {rule}", check=True)


def written(lab: Workspace, node: Node) -> bool:
    rules = nat(node)
    return all(len(chains(rules, lab, name)[1]) == count for name, count in SERVED.items())


@cleanup
def _(lab: Workspace) -> None:
    """The rules of the learner's own kube-proxy: first the jumps to them, then what is in them, then the chains."""
    script = """
        iptables-save -t nat | grep -E '^-A .*-[jg] MINI-' | sed 's/^-A/-D/' | xargs -r -L1 iptables -w -t nat
        chains=$(iptables-save -t nat | sed -n 's/^:\\(MINI-[^ ]*\\) .*/\\1/p')
        for chain in $chains; do iptables -w -t nat -F "$chain"; done
        for chain in $chains; do iptables -w -t nat -X "$chain"; done
        for tool in iptables ip6tables; do
            $tool-save -t mangle | grep -F '"lab-08: ' | sed 's/^-A/-D/' | xargs -r -L1 $tool -w -t mangle
        done
    """
    for node in lab.nodes:
        node.run(script)


# looking


def nat(node: Node) -> Ruleset:
    return parse(node.run("iptables-save -c -t nat", check=True).stdout)


def chains(rules: Ruleset, lab: Workspace, service: str) -> tuple[str, dict[str, str]]:
    """A Service's chain on a node, and its endpoints' chains with where they lead; ("", {}) where there are none."""
    try:
        found = rules.service(f"{lab.namespace}/{service}")
    except Exception:
        return "", {}
    return found.chains.get("cluster", ""), {each.chain: each.address for each in found.endpoints}


def address_of(lab: Workspace, service: str) -> tuple[str, int]:
    spec = lab.get("service", service)["spec"]
    return spec["clusterIP"], spec["ports"][0]["port"]


def endpoints_of(lab: Workspace, service: str) -> dict[str, str]:
    """Ready endpoints: "ip:port" → the Pod's name, from the API."""
    found = {}
    for each in lab.objects("endpointslices", f"kubernetes.io/service-name={service}"):
        for endpoint in each.get("endpoints") or []:
            if endpoint["conditions"].get("ready"):
                for address in endpoint["addresses"]:
                    found[f"{address}:{each['ports'][0]['port']}"] = endpoint["targetRef"]["name"]
    return found


def node_addresses(node: Node) -> dict[str, str]:
    """Address → interface, of the node's own network namespace."""
    said = json.loads(node.run("ip -j -4 address", check=True).stdout)
    return {each["local"]: link["ifname"] for link in said for each in link.get("addr_info", [])}


def follow(rules: Ruleset, node: Node, src: str, ip: str, port: int, origin: Origin) -> Trace:
    return trace(rules, Packet(src, ip, port), local_addresses=list(node_addresses(node)), origin=origin)


def shares(story: Trace) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {}
    for each in story.destinations:
        total[each.address] = total.get(each.address, Fraction(0)) + each.probability
    return total


def pod_asks(lab: Workspace, pod: str, url: str, times: int) -> list[str]:
    loop = f"for i in $(seq {times}); do timeout {2 * lab.cluster.patience:g} wget -qO- http://{url} 2>/dev/null; echo; done"
    return lab.run_in(pod, loop, timeout=30 + 3 * times).stdout.splitlines()


def node_asks(node: Node, url: str, times: int) -> list[str]:
    loop = f"for i in $(seq {times}); do curl -sf --max-time {2 * node.patience:g} http://{url}; echo; done"
    return node.run(loop, timeout=30 + 3 * times).stdout.splitlines()


def curl(lab: Workspace, url: str) -> str:
    """How a connection from cp ends: answer, refused or timeout."""
    code = lab.http(f"http://{url}/hostname", origin="cp", timeout=3).code
    return {0: "answer", 7: "refused", 28: "timeout"}.get(code, f"curl's error {code}")


def turned_away(lab: Workspace, node: Node) -> bool:
    """Whether kube-proxy on a node without a Pod of `door` drops what comes to its NodePort, as the policy Local asks for."""
    return f'"{lab.namespace}/door:http has no local endpoints"' in node.run("iptables-save -t filter", check=True).stdout


# the steps


@check("address", points=6)
def _(lab: CheckContext) -> None:
    said = lab.answered({"cluster_ip": str, "port": int, "pod_port": int, "owners": [str]})
    spec = lab.get("service", "web")["spec"]
    owners = [node.name for node in lab.nodes if spec["clusterIP"] in node_addresses(node)]
    right = {
        "cluster_ip": spec["clusterIP"],
        "port": spec["ports"][0]["port"],
        "pod_port": spec["ports"][0]["targetPort"],
        "owners": owners,
    }
    lab.compare(right, {**said, "owners": sorted(said["owners"])}, look="kubectl get service web -o yaml; ip -brief address, on every node")


@check("chains", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({"service": str, "endpoints": {str: str}})
    service, endpoints = chains(nat(lab.node("w1")), lab, "web")
    # Of a Service without endpoints there are no chains, and nothing to have read there.
    lab.require(endpoints, expected="the Service web with its endpoints", seen="none on w1", look="kubectl get endpointslices; lab.reset()")
    lab.compare({"service": service, "endpoints": endpoints}, said, look=f"on w1: {DUMP}web")


@check("path", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({"pod": [str], "node": str, "masqueraded": {"pod": bool, "node": bool, "itself": bool}})
    node = lab.node("w1")
    rules = parse(node.run("iptables-save", check=True).stdout)
    service, endpoints = chains(rules, lab, "web")
    ip, port = address_of(lab, "web")
    client = lab.get("pod", "client-w1")["status"]["podIP"]
    itself = next(iter(endpoints.values()))
    from_pod = follow(rules, node, client, ip, port, "pod")
    from_node = follow(rules, node, node.ip, ip, port, "local")
    hairpin = next(each for each in follow(rules, node, itself.split(":")[0], ip, port, "pod").destinations if each.address == itself)
    way = ["PREROUTING", "KUBE-SERVICES", service]
    right = {
        "pod": [*way, said["pod"][-1] if said["pod"] and said["pod"][-1] in endpoints else "one of the endpoints' chains"],
        "node": "OUTPUT",
        "pod is masqueraded": from_pod.masquerade,
        "node is masqueraded": from_node.masquerade,
        "itself is masqueraded": hairpin.masquerade,
    }
    masqueraded = {f"{who} is masqueraded": value for who, value in said["masqueraded"].items()}
    lab.compare(
        right,
        {"pod": said["pod"], "node": said["node"], **masqueraded},
        look=f"on w1: {DUMP}web; and who jumps to KUBE-SERVICES and KUBE-MARK-MASQ?",
    )


@check("split-prediction", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({"written": [float], "overall": [float]})
    rules = nat(lab.node("w1"))
    service, endpoints = chains(rules, lab, "web")
    choosing = [rule.option("--probability") for rule in rules.chain("nat", service) if rule.jump in endpoints]
    written = [float(chance.words[0]) if chance else 1.0 for chance in choosing]
    overall = [float(each.probability) for each in rules.endpoints(service)]
    true = {"written": written, "overall": overall}
    right = {part: said[part] if close(said[part], true[part]) else true[part] for part in true}
    lab.compare(right, said, look="Think of a hundred connections: how many reach the second rule, and how many the third?")


def close(these: list[float], those: list[float]) -> bool:
    """Equal to two digits: 0.33 is an honest third."""
    return len(these) == len(those) and all(abs(a - b) < 0.006 for a, b in zip(these, those, strict=True))


@check("split-measured", points=10)
def _(lab: CheckContext) -> None:
    lab.answered(object, step="split-prediction")  # first predict, then measure
    said = lab.answered({"counts": {str: int}, "chi2": float})
    pods = endpoints_of(lab, "web")
    counts = said["counts"]
    look = f'ask("client-w1", "{":".join(map(str, address_of(lab, "web")))}/hostname", times=300)'
    lab.expect(sorted(pods.values()), sorted(counts), look=look)
    total = sum(counts.values())
    lab.require(total >= 300, expected="at least 300 connections", seen=f"{total} are counted", look=look)

    # The kernel counts too: each new connection is one packet at the endpoint's DNAT rule.
    counted: Counter[str] = Counter()
    for node in lab.nodes:
        for chain, address in chains(rules := nat(node), lab, "web")[1].items():
            counted[pods.get(address, address)] += sum(
                rule.counters[0] for rule in rules.chain("nat", chain) if rule.to_destination and rule.counters
            )
    short = {name: counted[name] for name in counts if counted[name] < counts[name]}
    lab.require(
        not short,
        expected=f"the nodes' rules to have counted at least as many connections as you: {counts}",
        seen=f"they counted fewer for {short}",
        look="iptables-save -c -t nat; the first number in [ ] counts packets",
    )

    expected = total / len(pods)
    chi2 = sum((n - expected) ** 2 / expected for n in counts.values())
    lab.require(
        abs(said["chi2"] - chi2) < 0.05,
        expected=f"χ² of your counts, {chi2:.2f}",
        seen=said["chi2"],
        look="(seen - expected)² / expected, summed",
        earned=6,
    )
    chance = math.exp(-chi2 / 2)  # exact for three classes, that is two degrees of freedom
    lab.require(
        chance > 1e-6,
        expected="counts that an even split can give",
        seen=f"{counts}: one chance in {1 / max(chance, 1e-300):.3g}",
        look="Measure again",
        earned=4,
    )


@check("source-address", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({"cluster": str, "local": str})
    pod = lab.pods("app=door")[0]
    home, outsider = lab.node(pod["spec"]["nodeName"]), lab.node("cp")
    look = f"on {home.name}: ip route get {pod['status']['podIP']}"
    route = json.loads(home.run(f"ip -j route get {pod['status']['podIP']}", check=True).stdout)[0]
    spec = lab.get("service", "door")["spec"]
    lab.require(
        spec["externalTrafficPolicy"] == "Local",
        expected="the Service door with externalTrafficPolicy Local",
        seen=f"it has {spec['externalTrafficPolicy']}",
        look="kubectl get service door -o yaml",
    )
    url = f"{home.ip}:{spec['ports'][0]['nodePort']}/clientip"
    seen = lab.eventually(lambda: (said_now := node_asks(outsider, url, 1)[0].rpartition(":")[0]) == outsider.ip and said_now, timeout=15)
    lab.require(seen, expected="with Local, the Pod sees cp's own address", seen="it does not yet", look=f"curl http://{url}, on cp")
    lab.compare({"cluster": route["prefsrc"], "local": seen}, said, look=look)


@check("no-answer", points=8)
def _(lab: CheckContext) -> None:
    outcome = {"answer", "refused", "timeout"}
    said = lab.answered({"empty": outcome, "home": outcome, "elsewhere": outcome})
    door = lab.get("service", "door")["spec"]
    home = lab.pods("app=door")[0]["spec"]["nodeName"]
    other = next(node for node in lab.cluster.workers if node.name != home)
    if door["externalTrafficPolicy"] == "Local":
        lab.eventually(lambda: turned_away(lab, other), timeout=15)  # kube-proxy there may not have heard of the new policy yet
    ip, port = address_of(lab, "empty")
    node_port = door["ports"][0]["nodePort"]
    right = {
        "empty": curl(lab, f"{ip}:{port}"),
        "home": curl(lab, f"{lab.node(home).ip}:{node_port}"),
        "elsewhere": curl(lab, f"{other.ip}:{node_port}"),
    }
    lab.compare(right, said, look="on the node that is asked: iptables-save -t filter | grep lab-08")


@check("diagnose", points=6)
def _(lab: CheckContext) -> None:
    said = lab.answered({"node": str, "chain": str})
    change = injected(lab)
    known = {"node": change["node"], "chain": change["chain"]}
    lab.compare(known, said, look=f"on each worker: {DUMP}shop")


def injected(lab: CheckContext) -> dict[str, str]:
    """What the lab broke, as it was written down then: the learner may have mended it since."""
    found = [change for fault in lab.store.faults() for change in fault["plan"].get("changes", [])]
    lab.require(
        found, expected="something broken in the chains of shop", seen="nothing was broken yet", look="Run the cell with lab.inject, first"
    )
    return dict(found[0])


@check("repair", points=8)
def _(lab: CheckContext) -> None:
    injected(lab)
    good = endpoints_of(lab, "shop")
    ip, port = address_of(lab, "shop")
    fair = {address: Fraction(1, len(good)) for address in good}
    for node in lab.nodes:
        rules = parse(node.run("iptables-save", check=True).stdout)
        found = shares(follow(rules, node, client_ip(lab), ip, port, "pod"))
        # Which node it is, and what is wrong there, was the question of the step before.
        lab.require(
            found.keys() == fair.keys() and all(abs(found[each] - fair[each]) < Fraction(1, 1000) for each in fair),
            expected=f"on every node, each of {sorted(good)} gets 1/{len(good)}",
            seen="on one of the nodes, something else",
            look=f"on each node: {DUMP}shop",
        )
    for pod in CLIENTS.values():
        lost = Counter(bool(name) for name in pod_asks(lab, pod, f"{ip}:{port}/hostname", 20))[False]
        lab.expect(0, lost, look=f"20 connections from {pod} to shop; this many were not answered")


def client_ip(lab: Workspace) -> str:
    return str(lab.get("pod", "client-w1")["status"]["podIP"])


@check("rules", points=12)
def _(lab: CheckContext) -> None:
    text = lab.answered(str)
    node = lab.node("w1")
    foreign = sorted({name for name in re.findall(r"^:(\S+)", text, re.M) if not name.startswith("MINI-")})
    lab.expect([], foreign, look="Chains of yours begin with MINI-; a line :NAME - [0:0] would empty any other chain")
    rules = loaded_twice(lab, node, text)
    ip, port = address_of(lab, "mine")
    good = sorted(endpoints_of(lab, "mine"))
    before = lab.sighted("endpoints of mine")  # a later step scales the Service; the text was right when it was given
    if before and all(each in text for each in before):
        good = before
    fair = {address: Fraction(1, len(good)) for address in good}

    def leads(src: str, origin: Origin) -> Trace:
        story = follow(rules, node, src, ip, port, origin)
        found = shares(story)
        lab.require(
            found.keys() == fair.keys() and all(abs(found[each] - fair[each]) < Fraction(1, 1000) for each in fair),
            expected=f"from {src}, each of {good} gets 1/{len(good)}",
            seen={address: str(share.limit_denominator(1000)) for address, share in found.items()} or "no rule rewrites the destination",
            look="The rule number k of n needs the probability 1/(n-k), and nothing may be there twice after loading twice",
        )
        return story

    leads(client_ip(lab), "pod")
    right, seen = {"from a Pod": False, "from the node": True}, {}
    seen["from a Pod"] = leads(client_ip(lab), "pod").masquerade
    seen["from the node"] = leads(node.ip, "local").masquerade
    for address in good:
        for each in leads(address.split(":")[0], "pod").destinations:
            who = f"from {address} to {'itself' if each.address == address else each.address}"
            right[who], seen[who] = each.address == address, each.masquerade
    wrong = {who: value for who, value in seen.items() if value != right[who]}
    lab.require(
        not wrong,
        expected=f"masqueraded: {[who for who, value in right.items() if value]}, and nothing else",
        seen=f"masqueraded: {[who for who, value in seen.items() if value]}",
        look="Who jumps to KUBE-MARK-MASQ, and with which -s?",
        earned=6,
    )
    lab.sight("endpoints of mine", good)


def loaded_twice(lab: CheckContext, node: Node, text: str) -> Ruleset:
    """The node's rules with the learner's on top: loaded into a network namespace that lives as long as this command.

    So iptables itself judges the text, and the node stays as it is.
    """
    script = """
        set -e
        iptables-restore
        iptables-restore --noflush "$1"
        iptables-restore --noflush "$1"
        for hook in PREROUTING OUTPUT; do iptables -t nat -A "$hook" -j MINI-SERVICES; done
        iptables-save
    """
    dump = node.run("iptables-save -t nat", check=True).stdout
    # Without what an earlier run of the next step has left, and without counters, which are objects of the node's own namespace.
    dump = "".join(line for line in dump.splitlines(keepends=True) if "MINI-" not in line)
    dump = re.sub(r" -m nfacct --nfacct-name +\S+", "", dump)
    place = f"/run/lab-08-rules-{time.monotonic_ns()}"
    node.put(text.encode(), place)
    try:
        done = node.run(["unshare", "--net", "sh", "-c", script, "sh", place], input=dump)
    finally:
        node.run(["rm", "-f", place])
    lab.require(
        done.ok,
        expected="a text that iptables-restore --noflush loads, with a chain MINI-SERVICES in the table nat",
        seen=done.stderr.strip(),
        look="The first line is *nat, the last is COMMIT, and each chain has a line :NAME - [0:0] before the rules",
    )
    return parse(done.stdout)


def carries(lab: CheckContext, times: int) -> None:
    """Real connections from each worker's client Pod, and from each node itself."""
    ip, port = address_of(lab, "mine")
    pods = set(endpoints_of(lab, "mine").values())
    seen: Counter[str] = Counter()
    for node in lab.cluster.workers:
        client = CLIENTS[node.name]
        answers = Counter(pod_asks(lab, client, f"{ip}:{port}/hostname", times))
        lab.require(
            not answers[""],
            expected=f"{times} answers to {client}",
            seen=f"{answers['']} connections were lost",
            look=f"on {node.name}: iptables-save -t nat | grep MINI",
        )
        seen += answers
        own = lab.get("pod", client)["status"]["podIP"]
        as_seen = {said.rpartition(":")[0] for said in pod_asks(lab, client, f"{ip}:{port}/clientip", 3)}
        lab.expect({own}, as_seen, look=f"Source addresses that the Pods see when {client} asks")
    for node in lab.nodes:
        answers = Counter(node_asks(node, f"{ip}:{port}/hostname", 10))
        lab.require(
            not answers[""],
            expected=f"10 answers to the node {node.name}",
            seen=f"{answers['']} connections were lost",
            look="Packets of a node's own processes never pass PREROUTING",
        )
        seen += answers
    lab.require(
        set(seen) == pods,
        expected=f"answers from {sorted(pods)}",
        seen=f"answers from {sorted(seen)}",
        look="iptables-save -t nat | grep MINI; the endpoints: kubectl get endpointslices",
    )


@check("proxy", points=10, after=["rules"], timeout=240)
def _(lab: CheckContext) -> None:
    service = lab.get("service", "mine")
    label = "service.kubernetes.io/service-proxy-name"
    lab.require(
        label in service["metadata"]["labels"],
        expected=f"mine still has the label {label}",
        seen="it is gone, so kube-proxy serves it",
        look="lab.reset() brings it back",
    )
    carries(lab, 20)
    nudge_kube_proxy(lab)
    try:
        carries(lab, 5)
    except Exception as error:
        if seen := getattr(error, "seen", ""):
            lab.fail(
                expected="traffic goes on when another Service changes",
                seen=f"after a change, {seen}",
                look="Which chains does kube-proxy empty and fill again?",
            )
        raise


def nudge_kube_proxy(lab: CheckContext) -> None:
    """Make a Service, so that every kube-proxy writes its chains anew; wait until each has; remove it."""
    name = "nudge"
    try:
        lab.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
            }
        )
        ip, _ = address_of(lab, name)
        for node in lab.nodes:
            lab.cluster.wait(
                partial(knows, node, ip),
                timeout=30,
                why=f"kube-proxy on {node.name} does not answer to changes",
            )
    finally:
        lab.kubectl("delete", "service", name, "--ignore-not-found")


def knows(node: Node, ip: str) -> bool:
    return f" {ip}/32 " in node.run("iptables-save").stdout


@check("follow", points=8, after=["proxy"], timeout=240)
def _(lab: CheckContext) -> None:
    ready = lab.steady(
        lambda: len(endpoints_of(lab, "mine")) >= 4 and endpoints_of(lab, "mine"),
        expected="at least four ready endpoints of mine",
        seen=lambda: f"{len(endpoints_of(lab, 'mine'))} are",
        look="kubectl scale deployment/mine --replicas=4; kubectl get endpointslices",
        timeout=15,
    )
    carries(lab, 20 * len(ready))
