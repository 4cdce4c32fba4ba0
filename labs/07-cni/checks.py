"""Checks of lab 07: what is right is read from the nodes, and a learner's plugin is called as a runtime would call it."""

from __future__ import annotations

import json
import secrets
from importlib.resources import files
from ipaddress import ip_address, ip_network
from typing import Any

from lab_utils.checks import CheckContext, check, cleanup, setup
from lab_utils.cluster import Node
from lab_utils.labs.workspace import Workspace
from lab_utils.namespaces import pids_of

WORKERS = ("w1", "w2")
CONFLIST, FLANNEL = "/etc/cni/net.d/05-lab-07.conflist", "/etc/cni/net.d/10-flannel.conflist"
STATE = "/var/lib/cni/networks/lab-07"
CROWD = 50


# the starting state, and back


@setup
def _(lab: Workspace) -> None:
    for pod in ("alpha", "beta"):
        lab.cluster.wait(f"pod/{pod} condition=Ready -n {lab.namespace}", timeout=120)


@cleanup
def _(lab: Workspace) -> None:
    """Away with the learner's network: first nobody new gets into it, then whoever is in it leaves, then it goes itself."""
    for node in lab.nodes:
        node.run(f"rm -f {CONFLIST}")
    restore_flannels_file(lab)
    inside = [pod for pod in lab.cluster.get("pods", "-A")["items"] if is_ours(lab, pod["status"].get("podIP", ""))]
    for pod in inside:  # whoever started on a worker meanwhile, CoreDNS for instance: its controller makes another one
        place, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        lab.cluster.kubectl("-n", place, "delete", "pod", name, "--grace-period=1", "--wait=true", "--ignore-not-found", timeout=90)
    routes = "; ".join(f"ip route del {each}" for each in ranges(lab).values())
    mine = "|".join(each.removesuffix("0/24").replace(".", "[.]") for each in [*ranges(lab).values(), "10.244.128.0/24"])
    rules = f"iptables-save -t nat | grep -E -- '^-A POSTROUTING .*(-s|-d) ({mine})'"
    for node in lab.nodes:
        node.run(f"""
        ip link del mine0; ip link del hand0; ip netns del hand
        rm -rf {STATE} /var/lib/cni/networks/by-hand /opt/cni/bin/mine /tmp/lab-07*
        {routes}
        {rules} | sed 's/^-A/-D/' | xargs -r -L1 iptables -w -t nat
        true
        """)


def restore_flannels_file(lab: Workspace) -> None:
    """Whoever mended it has written the same in other words. Its Pod would copy it from here when it starts."""
    said = lab.cluster.kubectl("-n", "kube-flannel", "get", "configmap/kube-flannel-cfg", "--ignore-not-found", "-o", "json").stdout
    if said.strip():
        text = json.loads(said)["data"]["cni-conf.json"]
        for node in lab.nodes:
            if node.run(["cat", FLANNEL]).stdout not in ("", text):
                node.put(text.encode(), FLANNEL)


def ranges(lab: Workspace) -> dict[str, str]:
    """Worker → the range that its new Pods are to be given."""
    base = 2 * int(lab.params["third"])
    return {name: f"10.244.{base + number}.0/24" for number, name in enumerate(WORKERS)}


def is_ours(lab: Workspace, address: str) -> bool:
    return bool(address) and any(ip_address(address) in ip_network(each) for each in ranges(lab).values())


# looking


def json_of(node: Node, command: str) -> Any:
    return json.loads(node.run(command, check=True).stdout)


def sandbox_of(node: Node, lab: Workspace, pod: str) -> str:
    command = ["crictl", "pods", "--namespace", lab.namespace, "--name", f"^{pod}$", "--state", "ready", "-o", "json"]
    return str(json.loads(node.run(command, check=True).stdout)["items"][0]["id"])


@check("conflist", points=6)
def _(lab: CheckContext) -> None:
    said = lab.answered({"network": str, "plugins": [str], "device": str, "addresses": str, "range": str})
    node = lab.node("w1")
    lab.need(node.run("test -d /var/lib/cni/flannel").ok, "flannel as its network")
    first = f"ls /etc/cni/net.d/*.conf* | grep -vxF {CONFLIST} | head -1"  # that one is the learner's own, later
    listed = json_of(node, f"cat $({first})")
    sandbox = sandbox_of(node, lab, "alpha")
    written = json_of(node, f"cat /var/lib/cni/flannel/{sandbox}")
    right = {
        "network": listed["name"],
        "plugins": [plugin["type"] for plugin in listed["plugins"]],
        "device": written["type"],
        "addresses": written["ipam"]["type"],
        "range": written["ipam"].get("subnet") or written["ipam"]["ranges"][0][0]["subnet"],
    }
    lab.compare(right, said, look="on w1: cat /etc/cni/net.d/*, and one of the files in /var/lib/cni/flannel")


@check("trail", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({"sandbox": str, "file": str, "cable": str, "mac": str})
    node = lab.node("w1")
    sandbox = sandbox_of(node, lab, "alpha")
    address = lab.get("pod", "alpha")["status"]["podIP"]
    pause = pids_of(node, lab.namespace, "alpha")["pause"]
    inside = json_of(node, f"nsenter --target {pause} --net ip -j link show dev eth0")[0]
    outside = {link["ifindex"]: link["ifname"] for link in json_of(node, "ip -j link")}
    right = {
        "sandbox": sandbox,
        "file": node.run(f"ls /var/lib/cni/networks/*/{address}").stdout.strip(),
        "cable": outside.get(inside.get("link_index"), ""),
        "mac": inside["address"],
    }
    lab.compare(right, said, look="on w1: crictl pods, ip -d link, and the folders below /var/lib/cni")


@check("by-hand", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({str: object})
    node = lab.node("w1")
    shown = node.run("ip -n hand -j -4 addr show dev eth0")
    lab.require(
        shown.ok,
        expected="a network namespace hand on w1, with an eth0",
        seen=shown.stderr.strip() or "none",
        look="ip netns; ip -n hand addr",
    )
    real = {f"{each['local']}/{each['prefixlen']}" for each in json.loads(shown.stdout)[0]["addr_info"]}
    reserved = node.run("cd /var/lib/cni/networks/by-hand && grep -l '^hand-1' 1*").stdout.split()
    lab.require(
        {each.partition("/")[0] for each in real} == set(reserved) and reserved,
        expected="eth0 has the address that is reserved for hand-1 in the network by-hand",
        seen=f"eth0 has {sorted(real)}, and reserved is {reserved}",
        look="ls /var/lib/cni/networks/by-hand; begin anew with CNI_COMMAND=DEL",
        earned=4,
    )
    ips = said.get("ips")
    told = {each.get("address") for each in ips if isinstance(each, dict)} if isinstance(ips, list) else set()
    lab.require(
        told == real, expected=f"the result as it was said, with {sorted(real)}", seen=f"addresses {sorted(map(str, told))}", earned=6
    )


@check("refusals", points=6)
def _(lab: CheckContext) -> None:
    names = ("add_again", "delete", "delete_again", "delete_without", "future", "check_blind")
    said = lab.answered({name: {"ok", "error"} for name in names})
    lab.compare(experiment(lab.node("w1")), said, look="call it on w1 as in the step before, and echo $? after each call")


EXPERIMENT = """
mount -t tmpfs none /run/netns; mount -t tmpfs none /mnt; ip link set lo up; ip netns add hand
ipam='{"type": "host-local", "subnet": "10.99.0.0/28", "dataDir": "/mnt"}'
export CNI_CONTAINERID=hand-1 CNI_NETNS=/run/netns/hand CNI_IFNAME=eth0 CNI_PATH=$1
call() {
  if echo '{"cniVersion": "'${3:-1.0.0}'", "name": "x", "type": "bridge", "bridge": "x0", "isDefaultGateway": true, "ipam": '"$ipam"'}' |
    CNI_COMMAND=$2 "$CNI_PATH/bridge" > /dev/null 2>&1; then echo "$1 ok"; else echo "$1 error"; fi
}
call future ADD 9.9.9; call first ADD; call add_again ADD; call check_blind CHECK; call delete DEL; call delete_again DEL
call second ADD; ip netns del hand; call delete_without DEL
"""


def experiment(node: Node, plugins: str = "/opt/cni/bin") -> dict[str, str]:
    """What `bridge` really does, in namespaces that end with the command."""
    done = node.run(["unshare", "--net", "--mount", "sh", "-c", EXPERIMENT, "sh", plugins], timeout=60)
    seen = dict(line.split() for line in done.stdout.splitlines())
    assert seen.pop("first") == seen.pop("second") == "ok", done
    return seen


@check("overhead", points=6)
def _(lab: CheckContext) -> None:
    said = lab.answered(dict.fromkeys(("pod", "vxlan", "host_gw", "udp"), int))
    mtu = {link["ifname"]: link["mtu"] for link in lab.node("w1").links()}
    lab.need("flannel.1" in mtu, "flannel with its VXLAN backend")
    frame = 14 + 20 + 8 + int(lab.params["data"])
    right = {"pod": frame, "vxlan": frame + mtu["eth0"] - mtu["flannel.1"], "host_gw": frame, "udp": frame + 20 + 8}
    lab.compare(right, said, look="on w1: ip -d link show flannel.1 (its MTU tells), and tcpdump -e on eth0")


@check("mend", points=6, timeout=180)
def _(lab: CheckContext) -> None:
    lab.injected("cni-config-wrong")
    seen = start(lab, {"late-check": lab.params["home"]}, timeout=60)
    lab.kubectl("delete", "pod", "late-check", "--wait=false")
    lab.require(
        seen["late-check"],
        expected=f"a new Pod on {lab.params['home']} gets an address",
        seen="it does not",
        look="kubectl describe pod late; /etc/cni/net.d and /opt/cni/bin on that node",
    )


def start(lab: CheckContext, wanted: dict[str, str], timeout: float) -> dict[str, str]:
    """Start web servers on these nodes; returns their addresses, "" for those that have none when the time is over."""
    for name, node in wanted.items():
        lab.kubectl("delete", "pod", name, "--ignore-not-found", "--grace-period=0", "--force")
        image = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"  # it tells who asks
        container = {"name": "web", "image": image, "args": ["netexec", "--http-port=8080", "--udp-port=-1"]}
        spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
        lab.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def addresses() -> dict[str, str]:
        return {name: (lab.find("pod", name) or {}).get("status", {}).get("podIP", "") for name in wanted}

    lab.eventually(lambda: all(addresses().values()), timeout=timeout, every=1)
    return addresses()


# the learner's plugin


def trial(lab: CheckContext, which: str) -> None:
    """Let cnitrial.py try the program on w1; the points are shared out evenly over its findings.

    Less than half of them is nothing: some findings say that all is well after calls that did nothing.
    """
    text = lab.answered(str)
    node = lab.node("w1")
    lab.need(node.run("command -v python3").ok, "python3 on its nodes")
    place = f"/run/lab-07-{secrets.token_hex(4)}"
    try:
        node.run(["mkdir", place], check=True)
        node.put(text.encode(), f"{place}/mine", mode=0o755)
        node.put(files("lab_utils").joinpath("cnitrial.py").read_bytes(), f"{place}/trial.py")
        done = node.run(["unshare", "--net", "--mount", "python3", f"{place}/trial.py", f"{place}/mine", which], timeout=200)
    finally:
        node.run(["rm", "-rf", place])
    lab.require(
        done.ok,
        expected="a program that can be called",
        seen=done.stderr.strip().rpartition("\n")[2],
        look="It is a file that begins with #!, and the program that is named there must be on the node",
    )
    findings = json.loads(done.stdout)
    wrong = [each for each in findings if not each["ok"]]
    if wrong:
        right = len(findings) - len(wrong)
        first = wrong[0]
        lab.fail(
            expected=f"{first['what']}: {first['expected']}",
            seen=first["seen"],
            look=f"{right} of {len(findings)} findings are right; not right: {'; '.join(each['what'] for each in wrong)}",
            earned=round(lab.points * right / len(findings), 2) if right * 2 >= len(findings) else 0,
        )


@check("contract", points=12)
def _(lab: CheckContext) -> None:
    trial(lab, "contract")


@check("addresses", points=14, timeout=240)
def _(lab: CheckContext) -> None:
    trial(lab, "addresses")


@check("cable", points=16, timeout=240)
def _(lab: CheckContext) -> None:
    trial(lab, "cable")


@check("install", points=12, timeout=300)
def _(lab: CheckContext) -> None:
    wanted = {f"mine-{name}": name for name in WORKERS}
    try:
        addresses = start(lab, wanted, timeout=90)
        for pod, name in wanted.items():
            within = addresses[pod] and ip_address(addresses[pod]) in ip_network(ranges(lab)[name])
            lab.require(
                within,
                expected=f"a new Pod on {name} has an address of {ranges(lab)[name]}",
                seen=addresses[pod] or "it has none",
                look=f"kubectl describe pod {pod}; on {name}: ls /etc/cni/net.d, journalctl -u containerd",
            )
        way = [(one, other) for one in wanted for other in wanted]
        lab.eventually(lambda: all(seen_as(lab, one, addresses[other]) for one, other in way), timeout=15)  # they have just started
        lost = [f"{one} → {other}" for one, other in way if not seen_as(lab, one, addresses[other])]
        lost += [
            f"{node.name} → {pod}"
            for node in lab.nodes
            for pod in wanted
            if not lab.http(f"http://{addresses[pod]}:8080/hostname", origin=node.name).ok
        ]
        lost += [
            f"{pod} → the Service kubernetes"
            for pod in wanted
            if not lab.run_in(pod, "curl -sk --max-time 5 https://kubernetes.default.svc.cluster.local/healthz").ok
        ]
        lab.require(
            not lost,
            expected="every Pod of yours is reached by the other, by itself, and by every node, and reaches Services",
            seen=f"no answer: {'; '.join(lost)}",
            look="ip route, on every node: does each know the way to both ranges, and back?",
            earned=6,
        )
        masked = {
            f"{one} → {other}": seen
            for one, other in way
            if (seen := seen_as(lab, one, addresses[other])) != addresses[one] and one != other
        }
        lab.require(
            not masked,
            expected="each of your Pods sees the other's own address",
            seen="; ".join(f"{pair}: it sees {seen}" for pair, seen in masked.items()),
            look="iptables-save -t nat | grep -E 'POSTROUTING|FLANNEL'; what masks a packet from your range?",
            earned=9,
        )
    finally:
        lab.kubectl("delete", "pod", *wanted, "--ignore-not-found", "--wait=false")


def seen_as(lab: CheckContext, pod: str, address: str) -> str:
    """Whom the Pod at an address sees when another one asks it; "" when there is no answer."""
    return lab.run_in(pod, f"curl -s --max-time 5 http://{address}:8080/clientip").stdout.strip().rpartition(":")[0]


@check("churn", points=6, after=["install"], timeout=420)
def _(lab: CheckContext) -> None:
    said = lab.answered({"most": int, "prefix": int})
    workers = lab.cluster.workers
    before = {node.name: cables(node) for node in workers}
    sandboxes: dict[str, list[str]] = {}

    def left() -> list[str]:
        """Devices that came with the crowd, and files that speak of it."""
        return [
            f"{node.name}: {what}"
            for node in workers
            for what in [*sorted(cables(node) - before[node.name]), *files_about(node, sandboxes[node.name])]
        ]

    container = {"name": "pause", "image": "registry.k8s.io/pause:3.10.2"}
    labels = {"app": "crowd"}
    template = {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}
    spec = {"replicas": CROWD, "selector": {"matchLabels": labels}, "template": template}
    try:
        lab.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "crowd"}, "spec": spec})
        lab.eventually(lambda: len(given(lab)) == CROWD, timeout=200, every=2)
        have = given(lab)
        lab.require(
            len(have) == len(set(have)) == CROWD,
            expected=f"{CROWD} Pods with {CROWD} addresses of yours",
            seen=f"{len(set(have))} different addresses, of {len(have)} Pods that have one",
            look="kubectl get pods -o wide; kubectl get events",
        )
        sandboxes |= {node.name: sandboxes_of_the_crowd(node, lab) for node in workers}
        plugged = sum(len(cables(node) - before[node.name]) for node in workers)
        silent = [node.name for node in workers if sandboxes[node.name] and not files_about(node, sandboxes[node.name])]
        lab.require(  # or what is left afterwards would say nothing
            plugged >= CROWD and not silent,
            expected=f"{CROWD} cables at your bridges, and files in {STATE} that say who has an address",
            seen=f"{plugged} cables" + "".join(f"; no such file on {name}" for name in silent),
            look=f"on w1: ip link show master mine0; ls {STATE}",
        )
    finally:
        lab.kubectl("delete", "deployment", "crowd", "--ignore-not-found", "--wait=false")
    lab.eventually(lambda: not crowd(lab), timeout=60, every=2)
    lab.eventually(lambda: not left(), timeout=150, every=2)  # the API forgets such Pods at once, and the kubelets take their time
    lab.require(
        not (still := left()),
        expected="no device and no file of the crowd on any node",
        seen="; ".join(still),
        look=f"ip link show master mine0; ls {STATE}",
    )
    right = {"most": 253, "prefix": 26}
    wrong = [key for key in right if said[key] != right[key]]
    lab.require(
        not wrong,
        expected="both predictions right",
        seen=f"not right: {', '.join(wrong)}",
        look="No Pod can have the first, the second or the last address of a range",
        earned=6 - len(wrong),
    )


def crowd(lab: CheckContext) -> list[str]:
    """The addresses of the crowd's Pods, "" for one that has none."""
    return [pod["status"].get("podIP", "") for pod in lab.objects("pods", "app=crowd")]


def given(lab: CheckContext) -> list[str]:
    return [address for address in crowd(lab) if is_ours(lab, address)]


def sandboxes_of_the_crowd(node: Node, lab: CheckContext) -> list[str]:
    listed = node.run(["crictl", "pods", "--namespace", lab.namespace, "--label", "app=crowd", "-q", "--no-trunc"], check=True)
    return listed.stdout.split()


def files_about(node: Node, sandboxes: list[str]) -> list[str]:
    """What the learner's plugin wrote down about these."""
    return node.run(["grep", "-rlE", "|".join(sandboxes), STATE]).stdout.split() if sandboxes else []


def cables(node: Node) -> set[str]:
    """What is plugged into the learner's bridge."""
    shown = node.run("ip -j link show master mine0")
    return {link["ifname"] for link in json.loads(shown.stdout or "[]")} if shown.ok else set()
