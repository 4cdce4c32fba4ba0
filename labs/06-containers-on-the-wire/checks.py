"""Checks of lab 06: what is right is read from the nodes, or tried in network namespaces that end with the command."""

from __future__ import annotations

import json
import secrets
from typing import Any

from lab_utils.checks import CheckContext, check, cleanup, setup
from lab_utils.cluster import Node
from lab_utils.labs.workspace import Workspace
from lab_utils.namespaces import pids_of
from lab_utils.snapshot.record import record
from lab_utils.topology import Topology

HOSTS = {"red": 2, "blue": 3}
OTHER = {"w1": "w2", "w2": "w1"}
PODS = ("one", "two", "three")


@setup
def _(lab: Workspace) -> None:
    for pod in (*PODS, "four"):
        lab.cluster.wait(f"pod/{pod} condition=Ready -n {lab.namespace}", timeout=120)
    # Whoever tries what happens without NAT has w2 answer to a network that nobody knows. Such packets shall not leave the machine.
    lab.node("w2").run(f"ip route replace {answers(lab)}", check=True)


@cleanup
def _(lab: Workspace) -> None:
    for node in lab.nodes:
        node.run(f"""
        for name in red blue; do ip link del to-$name; ip netns del $name; done
        ip link del hand0
        iptables-save -t nat | grep -F -- '-s {net(lab)}.' | sed 's/^-A/-D/' | xargs -r -L1 iptables -w -t nat
        true
        """)
    lab.node("w2").run(f"ip route del {answers(lab)}")


def answers(lab: Workspace) -> str:
    return f"blackhole {net(lab)}.0/24 metric 9999"


def net(lab: Workspace) -> str:
    return f"192.168.{lab.params['net']}"


def json_of(node: Node, command: str) -> Any:
    shown = node.run(command)
    return json.loads(shown.stdout or "[]") if shown.ok else []


# ── by hand ─────────────────────────────────────────────────────────────────


@check("wire", points=10)
def _(lab: CheckContext) -> None:
    node = lab.node("w1")
    outside = {link["ifindex"]: link for link in node.links()}
    earned = 0
    for name, host in HOSTS.items():
        (eth0,) = json_of(node, f"ip -n {name} -j -d address show dev eth0") or [{}]
        lab.require(
            eth0,
            expected=f"a network namespace {name} with an eth0",
            seen=node.run("ip netns").stdout.strip() or "no such",
            look="ip netns; ip -n red link",
            earned=earned,
        )
        addresses = {f"{each['local']}/{each['prefixlen']}" for each in eth0["addr_info"] if each["family"] == "inet"}
        lab.require(
            f"{net(lab)}.{host}/24" in addresses,
            expected=f"{name}'s eth0 has {net(lab)}.{host}/24",
            seen=sorted(addresses) or "no address",
            look=f"ip -n {name} address",
            earned=earned,
        )
        end = outside.get(eth0.get("link_index"), {})
        lab.require(
            end.get("master") == "hand0" and "UP" in end["flags"],
            expected=f"{name}'s cable ends at the bridge hand0, and is up",
            seen=f"its other end is {end.get('ifname', 'not on the node')}, at {end.get('master', 'no bridge')}",
            look="ip -d link",
            earned=earned,
        )
        earned += 3
    for name, host in (("red", 3), ("blue", 2)):
        said = node.run(f"nsenter --net=/run/netns/{name} ping -c 1 -W 2 {net(lab)}.{host}")
        lab.require(
            said.ok,
            expected=f"{name} reaches {net(lab)}.{host}",
            seen=said.stdout.strip() or said.stderr.strip(),
            look="is everything up, on both sides, and the bridge?",
            earned=earned,
        )
    lab.sight("red and blue")


TWO = """
mount -t tmpfs none /run/netns; ip link set lo up
ip link add hand0 type bridge; ip link set hand0 up
for name in red:2 blue:3; do
  host=${name#*:} name=${name%:*}
  ip netns add $name
  ip link add to-$name type veth peer name eth0 netns $name
  ip link set to-$name master hand0 up
  ip -n $name address add 10.99.0.$host/24 dev eth0
  ip -n $name link set eth0 up
done
# A datagram to a port where nobody listens is answered, by the kernel. A later one tells whether the answer came.
say() {
  nsenter --net=/run/netns/$1 bash -c "exec 3> /dev/udp/$2/9
    for turn in {1..30}; do echo 2> /dev/null >&3 || { echo answered; break; }; sleep 0.1; done"
}
"""
TABLES = (
    TWO
    + """
say red 10.99.0.3
red=$(ip -n red -j link show eth0 | jq -r '.[0].address') blue=$(ip -n blue -j link show eth0 | jq -r '.[0].address')
test_() { if sh -c "$2" > /dev/null 2>&1; then echo "$1 yes"; else echo "$1 no"; fi; }
test_ red_knows_blue "ip -n red neighbour show 10.99.0.3 | grep -i $blue"
test_ node_knows_red "ip neighbour | grep -F 10.99.0.2"
test_ bridge_knows_both "bridge fdb show br hand0 | grep -i '$red dev to-red' && bridge fdb show br hand0 | grep -i '$blue dev to-blue'"
test_ bridge_knows_addresses "bridge fdb show br hand0 | grep -F 10.99.0."
"""
)
WITHOUT_NAT = (
    TWO
    + """
echo 1 > /proc/sys/net/ipv4/ip_forward
ip address add 10.99.0.1/24 dev hand0; ip -n red route add default via 10.99.0.1
ip netns add w2; ip link add eth0 type veth peer name eth0 netns w2; ip address add 192.0.2.1/24 dev eth0; ip link set eth0 up
ip -n w2 address add 192.0.2.2/24 dev eth0; ip -n w2 link set eth0 up
ip -n w2 route add default via 192.0.2.254
nsenter --net=/run/netns/w2 timeout 20 tcpdump -l -n -i eth0 -c 1 'udp port 9' 2> /run/netns/began > /run/netns/heard &
for turn in {1..50}; do grep -q listening /run/netns/began && break; sleep 0.1; done
say red 192.0.2.2; wait
sed -n 's/.* IP \\([0-9.]*\\)\\.[0-9]* > .*/source \\1/p' /run/netns/heard
"""
)


def tried(node: Node, script: str) -> list[str]:
    done = node.run(["unshare", "--net", "--mount", "bash", "-c", script], timeout=60)
    return list(done.stdout.split("\n"))


@check("tables", points=6)
def _(lab: CheckContext) -> None:
    names = ("red_knows_blue", "node_knows_red", "bridge_knows_both", "bridge_knows_addresses")
    said = lab.answered(dict.fromkeys(names, bool))
    seen = dict(line.split() for line in tried(lab.node("w1"), TABLES) if " " in line)
    right = {name: seen[name] == "yes" for name in names}
    lab.compare(right, said, look="on w1: ip -n red neighbour; ip -4 neighbour show dev hand0; bridge fdb show br hand0")


@check("out", points=8, after=["wire"])
def _(lab: CheckContext) -> None:
    node, there = lab.node("w1"), lab.node("w2").ip
    for name in HOSTS:
        said = node.run(f"nsenter --net=/run/netns/{name} ping -c 1 -W 2 {there}")
        lab.require(
            said.ok,
            expected=f"{name} gets an answer from w2, {there}",
            seen=said.stdout.strip() or said.stderr.strip(),
            look="ip -n red route; ip address show hand0; iptables -t nat -S POSTROUTING. Where does it end? tcpdump -n -i eth0 icmp",
        )


@check("without-nat", points=6)
def _(lab: CheckContext) -> None:
    said = lab.answered({"leaves": bool, "arrives": bool, "answered": bool, "source": str})
    lines = tried(lab.node("w1"), WITHOUT_NAT)
    heard = [line.split()[1] for line in lines if line.startswith("source ")]
    source = heard[0].replace("10.99.0", net(lab)) if heard else ""
    right = {"leaves": bool(heard), "arrives": bool(heard), "answered": "answered" in lines, "source": source}
    lab.compare(right, said, look="take the rule away on w1, and listen on w2: tcpdump -n -i eth0 icmp. Put it back afterwards")


# ── under Pods ──────────────────────────────────────────────────────────────


@check("match", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({str: str})
    right = {name: cable_of(lab, name) for name in PODS}
    lab.compare(right, said, look="kubectl exec POD -- cat /sys/class/net/eth0/iflink; ip -o link, on the Pod's node")


def cable_of(lab: CheckContext, name: str) -> str:
    """The device on its node that is the other end of a Pod's eth0."""
    pod = lab.find("pod", name)
    lab.require(pod, expected=f"the Pod {name}", seen="none", look="lab.reset() makes it anew")
    assert pod
    node = lab.node(pod["spec"]["nodeName"])
    pause = pids_of(node, lab.namespace, name)["pause"]
    (inside,) = json_of(node, f"nsenter --target {pause} --net ip -j link show dev eth0")
    return str(next(link["ifname"] for link in node.links() if link["ifindex"] == inside["link_index"]))


@check("way", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered([str])
    path = Topology.from_snapshot(record(lab.cluster)).path(f"{lab.namespace}/one", f"{lab.namespace}/three")
    right: list[str] = []
    for hop in path.hops:
        here = f"{hop.namespace.rpartition('/')[2]}:{hop.device}"
        if hop.device and right[-1:] != [here]:
            right.append(here)
    fits = sum(a == b for a, b in zip(right, said, strict=False)) if len(said) <= len(right) else 0
    lab.require(
        said == right,
        expected=f"the {len(right)} devices on the way, in order",
        seen=f"{len(said)} devices; from the beginning, {fits} in their places",
        look='lab.show("path", start="one", end="three") draws it',
        earned=round(lab.points * fits / len(right) / 2, 2),
    )


@check("mend", points=6)
def _(lab: CheckContext) -> None:
    lab.injected("ip-forward-off")
    home = lab.params["home"]
    asker, asked = ("one", "three") if home == "w1" else ("three", "one")
    address = lab.get("pod", asked)["status"]["podIP"]

    def answers() -> bool:
        return lab.run_in(asker, f"timeout 3 wget -qO- http://{address}:8080/hostname").ok

    lab.steady(
        answers,
        expected=f"{asker} on {home} reaches {asked} on {OTHER[home]}",
        seen="no answer",
        look="sysctl -a | grep forward",
        timeout=20,
    )


# ── the program ─────────────────────────────────────────────────────────────

TRIAL = """
mount -t tmpfs none /run/netns; mount -t tmpfs none /mnt; ip link set lo up
program=$1
wire() { timeout -k 1 20 python3 "$program" $1 10.98.0.0/24 > /mnt/said 2>&1 < /dev/null; }
fine() { if eval "$2"; then echo "ok $1"; else echo "wrong $1: $(tail -1 /mnt/said)"; fi; }
ip netns add beyond; ip link add eth0 type veth peer name eth0 netns beyond; ip address add 192.0.2.1/24 dev eth0; ip link set eth0 up
ip -n beyond address add 192.0.2.2/24 dev eth0; ip -n beyond link set eth0 up
# A line goes from one to the other. The listener ends with the connection, or is ended when none came about.
listener='import socket; socket.setdefaulttimeout(5); print(socket.create_server(("", 7)).accept()[0].makefile().readline())'
talk() { nsenter --net=/run/netns/$2 python3 -c "$listener" < /dev/null > /mnt/got 2> /dev/null &
  for turn in {1..40}; do
    sleep 0.1; kill -0 $! 2> /dev/null || break; nsenter --net=/run/netns/$2 ss -Hltn | grep -q ':7 ' && break
  done
  nsenter --net=/run/netns/$1 timeout 2 bash -c "echo hi > /dev/tcp/$3/7" 2> /dev/null || kill $! 2> /dev/null
  wait; grep -q hi /mnt/got; }
fine 'add' 'wire add'
fine 'red reaches blue' 'talk red blue 10.98.0.3'
fine 'blue reaches red' 'talk blue red 10.98.0.2'
fine 'red reaches what lies beyond the node' 'talk red beyond 192.0.2.2'
was=$(ip -o link | wc -l; iptables-save -t nat | grep -c -- -A)
fine 'add again' 'wire add'
fine 'the second time changes nothing' '[ "$(ip -o link | wc -l; iptables-save -t nat | grep -c -- -A)" = "$was" ]'
fine 'they still talk' 'talk blue red 10.98.0.2'
fine 'del' 'wire del'
fine 'no device is left' '[ "$(ip -o link | grep -cvE ": (lo|eth0@)")" = 0 ]'
fine 'no namespace is left' '[ "$(ip netns | grep -cE "red|blue")" = 0 ]'
fine 'no rule is left' '[ "$(iptables-save -t nat | grep -c MASQ)" = 0 ]'
fine 'del again' 'wire del'
"""


@check("program", points=14, timeout=180)
def _(lab: CheckContext) -> None:
    text, node = lab.answered(str), lab.node("w1")
    lab.need(node.run("python3 -c 'import pyroute2'").ok, "python3 with pyroute2 on its nodes")
    place = f"/run/lab-06-{secrets.token_hex(4)}.py"
    node.put(text.encode(), place)
    try:
        done = node.run(["unshare", "--net", "--mount", "bash", "-c", TRIAL, "trial", place], timeout=150)
    finally:
        node.run(["rm", "-f", place])
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok ", "wrong "))]
    wrong = [line.removeprefix("wrong ") for line in lines if line.startswith("wrong ")]
    works = not any(each.startswith(("add:", "red reaches blue")) for each in wrong)
    lab.require(
        lines and not wrong,
        expected="all of: " + "; ".join(line.partition(" ")[2].partition(":")[0] for line in lines),
        seen="not so: " + "; ".join(wrong),
        look="The text after a colon is the last line that your program said",
        earned=round(lab.points * (len(lines) - len(wrong)) / len(lines), 2) if works and lines else 0,
    )


@check("tidy", points=4)
def _(lab: CheckContext) -> None:
    left = things_left(lab)
    if left and lab.sighted("red and blue"):  # with its namespace a cable goes a moment later
        lab.eventually(lambda: not things_left(lab), timeout=5)
        left = things_left(lab)
    lab.gone("red and blue", exists=bool(left), look=f"left on w1: {'; '.join(left) or 'nothing'}")


def things_left(lab: CheckContext) -> list[str]:
    node = lab.node("w1")
    left = [f"the namespace {name}" for name in HOSTS if node.run(["test", "-e", f"/run/netns/{name}"]).ok]
    left += [f"the device {name}" for name in ("hand0", "to-red", "to-blue") if node.run(["ip", "link", "show", "dev", name]).ok]
    return left + [f"the rule {line}" for line in node.run("iptables-save -t nat").stdout.splitlines() if f"-s {net(lab)}." in line]
