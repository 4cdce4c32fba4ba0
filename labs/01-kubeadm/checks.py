"""What lab 01 looks at: two machines, and the cluster that a learner makes of them.

There is no API at first. `api` finds it as soon as kubeadm has written the administrator's kubeconfig. What a machine says of itself is
only as true as its root wants it to be; that is why a step which matters ends in something that a working cluster alone can do.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from typing import Any

import yaml

from lab_utils.artifacts.versions import pinned
from lab_utils.checks import CheckContext, check, setup
from lab_utils.cluster import Node
from lab_utils.embedded import kubeadm, slow
from lab_utils.errors import CommandFailed
from lab_utils.faults import fault
from lab_utils.labs.bare import find_api
from lab_utils.labs.workspace import Workspace
from lab_utils.processes import look

PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
    "kube-proxy",
    "flanneld",
    "coredns",
    "kubelet",
    "containerd",
)
STATIC = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
MACHINE, WAITS, IGNORE, FLANNEL = "/root/machine.yaml", "/root/waits.yaml", "/root/ignore.txt", "/root/flannel.yaml"
JOURNAL = "journalctl -u kubelet -n 30"

# On the machine itself: which way it makes cgroups. systemd's, where systemd manages one unified tree; by hand, where it is the old
# trees (cgroups v1), which kubelet takes only when told so.
DRIVER = "test -e /sys/fs/cgroup/cgroup.controllers && echo systemd || echo cgroupfs"
READY_TO_GO = r"""
echo "runs $(systemctl is-active containerd)"
echo "enabled $(systemctl is-enabled containerd 2>/dev/null)"
echo "kubelet $(systemctl is-enabled kubelet 2>/dev/null)"
echo "systemd $(timeout 20 containerd config dump 2>/dev/null | grep -oE 'SystemdCgroup = (true|false)' | tail -1 | cut -d' ' -f3)"
echo "running $(timeout 20 crictl info -o json 2>/dev/null | jq -r '.config.containerd.runtimes.runc.options.SystemdCgroup')"
echo "forwards $(cat /proc/sys/net/ipv4/ip_forward)"
for file in $(for d in /usr/lib/sysctl.d /run/sysctl.d /etc/sysctl.d; do ls $d/*.conf 2>/dev/null; done | sort -t/ -k5) /etc/sysctl.conf; do
  sed -nE 's#^[[:space:]]*-?net[./]ipv4[./]ip_forward[[:space:]]*=[[:space:]]*([01]).*#later \1#p' "$file" 2>/dev/null; done
"""


# before the learner comes


@setup
def _(lab: Workspace) -> None:
    for node in lab.nodes:
        driver = node.run(DRIVER, check=True).stdout.strip()
        node.put(machine(driver, node.patience).encode(), MACHINE)
        node.put(waits(node.patience, node.role == "control-plane").encode(), WAITS)
        node.put((",".join(ignored(node)) + "\n").encode(), IGNORE)
    lab.node("cp").put(flannel(lab.node("cp")).encode(), FLANNEL)
    for name, text in slow.patches(lab.node("cp").patience).items():
        lab.node("cp").put(text.encode(), f"{slow.PATCHES}/{name}")
    for node in lab.nodes:
        node.run("systemctl disable --now kubelet containerd; rm -f /etc/sysctl.d/90-kubernetes.conf; sysctl -q -w net.ipv4.ip_forward=0")
        break_it(lab, "cgroup-driver-wrong", node=node.name)
    break_it(lab, "machine-id-doubled", node="w1")
    lab.store.sight("look", {node.name: facts(node) for node in lab.nodes})


def machine(driver: str, patience: float) -> str:
    """What kubeadm must pass on, on this kind of machine: the same as `lab up` passes."""
    kubelet = kubeadm.kubelet_config("v1" if driver == "cgroupfs" else "v2")
    slow.relax_kubelet(kubelet, patience)
    return str(yaml.safe_dump_all([kubelet, kubeadm.proxy_config("iptables")], sort_keys=False))


def waits(patience: float, control_plane: bool) -> str:
    """How long kubeadm itself shall wait, as `lab up` has it. An emulated machine needs minutes for what takes others seconds."""
    lines = slow.waits(patience, control_plane)
    return str(yaml.safe_dump(lines, sort_keys=False)) if lines else "# kubeadm's own waiting times are right for this machine\n"


def ignored(node: Node) -> list[str]:
    """Small machines are allowed; a node that is a container cannot show a kernel of its own. kubeadm gives containerd two seconds to
    answer, and an emulated machine may need more."""
    contained = node.run("systemd-detect-virt --container").stdout.strip() not in ("", "none")
    return ["NumCPU", "Mem", *(["SystemVerification", "Swap"] if contained else []), *(["CRI"] if node.patience != 1 else [])]


def flannel(cp: Node) -> str:
    images = pinned().image_names(*kubeadm.FLANNEL_IMAGES)
    return kubeadm.flannel(api=cp.ip, images=images, iface=kubeadm.DEVICE_OF_NODE_IP, patience=cp.patience)


def break_it(lab: Workspace, name: str, **options: Any) -> None:
    """A fault that belongs to the starting state: the machines are made anew afterwards, so there is nothing to undo."""
    kind = fault(name)
    kind.do(lab, kind.plan(lab, **options))


def facts(node: Node) -> dict[str, Any]:
    script = f"""
    cat /proc/sys/net/ipv4/ip_forward; wc -l < /proc/swaps; systemctl is-active containerd; cat /etc/machine-id
    cat /sys/class/net/$(ip -o addr show to {node.ip} | awk '{{print $2; exit}}')/address
    """
    forwards, swaps, runtime, machine_id, mac = node.run(script).stdout.split()
    return {"forwards": forwards == "1", "swap": int(swaps) > 1, "runtime": runtime == "active", "id": machine_id, "mac": mac}


# the API, once it is there


def api(lab: CheckContext) -> None:
    lab.require(
        find_api(lab.cluster),
        expected="kubeadm init has come to its end on cp, and has written /etc/kubernetes/admin.conf",
        seen="there is no such file, or no certificates in it",
        look=f"on cp: ls /etc/kubernetes; {JOURNAL}",
    )
    answers = lab.eventually(lambda: lab.cluster.kubectl("get", "--raw", "/readyz", check=False, timeout=10).ok, timeout=20)
    lab.require(answers, expected="the API server answers /readyz", seen="no answer", look=f"on cp: crictl ps -a; {JOURNAL}")


def node_is(lab: CheckContext, name: str) -> str:
    """Ready or NotReady, as kubectl says it; "" when there is no such node, or nobody to ask."""
    try:
        found = next((each for each in lab.cluster.get("nodes")["items"] if each["metadata"]["name"] == name), None)
    except CommandFailed:
        return ""
    if found is None:
        return ""
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in found["status"].get("conditions", []))
    return "Ready" if ready else "NotReady"


def steadily_ready(lab: CheckContext, name: str, earned: float = 0, timeout: float = 60) -> None:
    if not lab.eventually(lambda: node_is(lab, name) == "Ready", timeout=timeout):
        seen = node_is(lab, name) or f"no node {name}"
        look = f"kubectl describe node {name}; on {name}: {JOURNAL}"
        lab.fail(expected=f"{name} is Ready", seen=seen, look=look, earned=earned)


def its_address(lab: CheckContext, name: str, earned: float) -> None:
    said = lab.cluster.get("node", name)["status"].get("addresses", [])
    seen = [each["address"] for each in said if each["type"] == "InternalIP"]
    lab.require(
        lab.node(name).ip in seen,
        expected=f"{name} has the InternalIP {lab.node(name).ip}",
        seen=seen,
        look="the kubelet's node-ip",
        earned=earned,
    )


def carries_pods(lab: CheckContext, name: str, earned: float = 0) -> None:
    """A Pod that nobody could know beforehand runs on the node, and says over the network what it was told."""
    word, pod = secrets.token_hex(8), f"check-{secrets.token_hex(4)}"
    command = f"mkdir /tmp/w; echo {word} > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"
    container = {"name": "main", "image": pinned().image("busybox").name, "command": ["sh", "-c", command]}
    spec = {
        "nodeName": name,
        "containers": [container],
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "tolerations": [{"operator": "Exists"}],
    }
    cluster = lab.cluster
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": "default"}, "spec": spec})
    try:

        def address() -> str:
            return str(cluster.get("-n", "default", "pod", pod)["status"].get("podIP", ""))

        found = lab.eventually(address, timeout=40)
        other = next(node for node in lab.nodes if node.name != name)
        url = f"http://{found}:8080/"
        heard = found and lab.eventually(lambda: lab.http(url, origin=other.name).stdout.strip() == word, timeout=20)

        def read() -> bool:  # by the kubelet of the node, through the API: a way that needs no network of Pods
            said = cluster.kubectl("-n", "default", "exec", pod, "--", "cat", "/tmp/w/index.html", check=False)
            return said.stdout.strip() == word

        lab.require(
            found and lab.eventually(read, timeout=15),
            expected=f"a new Pod on {name} runs",
            seen=f"address {found or 'none'}",
            look=f"kubectl describe node {name}; on {name}: crictl pods; {JOURNAL}",
            earned=earned,
        )
        lab.require(
            heard,
            expected=f"{other.name} reaches a new Pod on {name}",
            seen=f"no answer from {url}",
            look=f"on {name}: sysctl net.ipv4.ip_forward; ip route; on {other.name}: ip route",
            earned=earned,
        )
    finally:
        cluster.kubectl("-n", "default", "delete", "pod", pod, "--ignore-not-found", "--timeout=20s", check=False)
        # Until its pause is gone too: the learner is about to count them.
        ours = ["crictl", "pods", "-q", "--state", "ready", "--name", pod]
        lab.eventually(lambda: not lab.node(name).run(ours).stdout.strip(), timeout=30)


# the steps


@check("look", points=6)
def _(lab: CheckContext) -> None:
    one = {"forwards": bool, "swap": bool, "runtime": bool}
    answer = lab.answered({"cp": one, "w1": one, "different": {"mac": bool, "machine_id": bool}})
    was = lab.sighted("look")
    right = {f"{name}: {key}": was[name][key] for name in ("cp", "w1") for key in one}
    right |= {"mac": was["cp"]["mac"] != was["w1"]["mac"], "machine_id": was["cp"]["id"] != was["w1"]["id"]}
    seen = {f"{name}: {key}": answer[name][key] for name in ("cp", "w1") for key in one} | answer["different"]
    lab.compare(right, seen, look="on both: cat /proc/sys/net/ipv4/ip_forward /proc/swaps /etc/machine-id; systemctl is-active containerd")


@check("prepare", points=14)
def _(lab: CheckContext) -> None:
    seen = {node.name: ready_to_go(node) for node in lab.nodes}
    parts = {key: all(each[key] for each in seen.values()) for key in seen["cp"]}
    ids = [node.run(["cat", "/etc/machine-id"]).stdout.strip() for node in lab.nodes]
    parts["each machine has its own machine-id"] = len(set(ids)) == len(ids) and all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    look_at = (
        "on both: systemctl status containerd; containerd config dump | grep SystemdCgroup; sysctl net.ipv4.ip_forward; ls /etc/sysctl.d"
    )
    lab.compare(dict.fromkeys(parts, True), parts, look=look_at)


def ready_to_go(node: Node) -> dict[str, bool]:
    driver = node.run(DRIVER).stdout.strip()
    said: dict[str, str] = {}
    for line in node.run(READY_TO_GO, timeout=60).stdout.splitlines():
        key, _, value = line.partition(" ")
        said[key] = value.strip()
    return {
        "containerd runs": said.get("runs") == "active",
        "containerd is enabled": said.get("enabled") == "enabled",
        # In the file, and in the containerd that runs: who changes the one has to restart the other.
        "the cgroup driver": said.get("systemd") == said.get("running") == str(driver == "systemd").lower(),
        "kubelet is enabled": said.get("kubelet") == "enabled",
        "forwards now": said.get("forwards") == "1",
        "forwards after a restart": said.get("later") == "1",
    }


@check("predict-network", points=6)
def _(lab: CheckContext) -> None:
    # The rules behind it: hostNetwork Pods need no network of Pods; a node without one is NotReady and tainted not-ready:NoSchedule.
    phase = {"Running", "Pending"}
    answer = lab.answered({"node": {"Ready", "NotReady"}, "kube-apiserver": phase, "etcd": phase, "kube-proxy": phase, "coredns": phase})
    right = {"node": "NotReady", "kube-apiserver": "Running", "etcd": "Running", "kube-proxy": "Running", "coredns": "Pending"}
    if answer != right:
        wrong = [key for key in right if answer[key] != right[key]]
        seen = {key: answer[key] for key in wrong}
        lab.fail(
            expected="all five right",
            seen=seen,
            look="kubectl get nodes; kubectl -n kube-system get pods",
            earned=max(0, 6 - 2 * len(wrong)),
        )


@check("init", points=12, timeout=180)
def _(lab: CheckContext) -> None:
    api(lab)
    lab.require(node_is(lab, "cp"), expected="the API knows the node cp", seen="no node of that name", look="kubectl get nodes", earned=2)
    its_address(lab, "cp", earned=4)
    pods = ipaddress.IPv4Network(lab.params["pods"])
    given = lab.eventually(lambda: lab.cluster.get("node", "cp")["spec"].get("podCIDR", ""), timeout=30)
    lab.require(
        given and ipaddress.IPv4Network(given).subnet_of(pods),
        expected=f"cp's Pods get addresses of {pods}",
        seen=given or "no podCIDR",
        look="kubectl get node cp -o jsonpath={.spec.podCIDR}",
        earned=6,
    )
    running = lab.eventually(lambda: mirrors(lab) == set(STATIC), timeout=60)
    lab.require(
        running,
        expected=f"four static Pods run on cp: {', '.join(STATIC)}",
        seen=sorted(mirrors(lab)),
        look="on cp: ls /etc/kubernetes/manifests; crictl ps -a",
        earned=8,
    )


def mirrors(lab: CheckContext) -> set[str]:
    """The components whose Pods on cp come from a file and run."""
    try:
        items = lab.cluster.get("-n", "kube-system", "pods")["items"]
    except CommandFailed:
        return set()
    return {
        each["metadata"]["labels"].get("component", "")
        for each in items
        if "kubernetes.io/config.mirror" in each["metadata"].get("annotations", {}) and each["status"].get("phase") == "Running"
    }


@check("network", points=8, after=["init"], timeout=200)
def _(lab: CheckContext) -> None:
    api(lab)
    steadily_ready(lab, "cp")

    def items() -> list[dict[str, Any]]:
        return list(lab.cluster.get("-n", "kube-system", "pods", "-l", "k8s-app=kube-dns")["items"])

    def runs() -> bool:
        return bool(found := items()) and all(each["status"].get("phase") == "Running" for each in found)

    lab.require(
        lab.eventually(runs, timeout=60),
        expected="CoreDNS runs",
        seen=[each["status"].get("phase") for each in items()],
        look="kubectl -n kube-system describe pods -l k8s-app=kube-dns",
        earned=4,
    )
    addresses = [each["status"].get("podIP", "") for each in items()]
    pods = ipaddress.IPv4Network(lab.params["pods"])
    lab.require(
        all(ipaddress.ip_address(each) in pods for each in addresses),
        expected=f"its addresses are of {pods}",
        seen=addresses,
        look="kubectl -n kube-flannel get configmap kube-flannel-cfg -o yaml",
        earned=4,
    )
    answered = lab.eventually(lambda: lab.http(f"http://{addresses[0]}:8181/ready").stdout.strip() == "OK", timeout=30)
    lab.require(answered, expected="CoreDNS answers from its Pod", seen="no answer", look="on cp: ip route; ip addr show cni0", earned=6)


@check("ca-hash", points=6, after=["init"])
def _(lab: CheckContext) -> None:
    answer = lab.answered(str)
    find_api(lab.cluster)
    right = kubeadm.ca_hash(kubeadm.ca_of(lab.cluster.kubeconfig.read_text()))
    short = right.removeprefix("sha256:")
    lab.require(
        answer.strip().lower() in (right, short),
        expected="the SHA-256 of the CA's public key",
        seen=answer,
        look="on cp: openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt | …",
    )


@check("join", points=12, after=["network"], timeout=240)
def _(lab: CheckContext) -> None:
    lab.injected("tokens-expired")
    api(lab)
    lab.require(node_is(lab, "w1"), expected="the API knows the node w1", seen="no node of that name", look="kubectl get nodes")
    its_address(lab, "w1", earned=4)
    steadily_ready(lab, "w1", earned=6)
    carries_pods(lab, "w1", earned=8)


def all_ready(lab: CheckContext) -> None:
    """Give Pods a minute. One that is being started anew, as a scheduler that was late on a slow machine, has no process just then."""
    ready = ["--for=condition=Ready", "pods", "--all", "--all-namespaces"]
    lab.cluster.kubectl("wait", *ready, "--timeout=60s", check=False, timeout=80)


@check("account", points=12, after=["join"])
def _(lab: CheckContext) -> None:
    one = {"containers": [str], "others": [str], "pauses": int}
    answer = lab.answered({"cp": one, "w1": one})
    all_ready(lab)
    right: dict[str, Any] = {}
    seen: dict[str, Any] = {}
    for node in lab.nodes:
        found = [each for each in look(node) if each.program in PROGRAMS]
        right[f"{node.name}: containers"] = sorted({each.program for each in found if each.contained})
        right[f"{node.name}: others"] = sorted({each.program for each in found if not each.contained})
        right[f"{node.name}: pauses"] = len(node.run(["pgrep", "-x", "pause"]).stdout.split())
        said = answer[node.name]
        seen |= {f"{node.name}: {key}": sorted(set(said[key])) if key != "pauses" else said[key] for key in one}
    lab.compare(right, seen, look="on both: ps -e -o pid,ppid,args --forest; crictl ps; crictl pods")


@check("mirror", points=4)
def _(lab: CheckContext) -> None:
    # kubelet keeps its own Pods from files; the API's copy is made again when it is gone (pkg/kubelet/pod/mirror_client.go).
    answer = lab.answered({"process": {"goes on", "starts anew", "gone"}, "pod": {"again", "none"}})
    lab.compare({"process": "goes on", "pod": "again"}, answer, look="on cp: pgrep -x kube-scheduler, before and after")


@check("repair-kubelet", points=8, after=["join"], timeout=240)
def _(lab: CheckContext) -> None:
    plan = lab.injected("cri-socket-wrong")
    api(lab)
    node = lab.node(plan["node"])
    well = "curl -sf -m 3 http://127.0.0.1:10248/healthz"
    lab.require(
        lab.eventually(lambda: node.run(well).ok, timeout=60),
        expected=f"the kubelet of {node.name} is well (127.0.0.1:10248/healthz)",
        seen="no answer",
        look=f"on {node.name}: {JOURNAL}",
    )
    steadily_ready(lab, node.name, earned=4)
    carries_pods(lab, node.name, earned=4)


@check("repair-forward", points=4, after=["join"], timeout=240)
def _(lab: CheckContext) -> None:
    plan = lab.injected("ip-forward-off")
    api(lab)
    steadily_ready(lab, plan["node"])
    carries_pods(lab, plan["node"])


LEFT = r"""
systemctl is-active --quiet kubelet && echo kubelet
test -n "$(crictl ps -q 2>/dev/null)$(crictl pods -q 2>/dev/null)" && echo containers
ls /etc/kubernetes/kubelet.conf /var/lib/kubelet/config.yaml >/dev/null 2>&1 && echo files
test -n "$(ls /etc/cni/net.d 2>/dev/null)" && echo cni
for each in cni0 flannel.1; do ip link show $each >/dev/null 2>&1 && echo links; done
{ iptables-save; ip6tables-save; } 2>/dev/null | grep -qE '^-A.*(KUBE-|FLANNEL)' && echo rules
systemctl is-active --quiet containerd || echo runtime
true
"""


@check("leave", points=8, after=["join"])
def _(lab: CheckContext) -> None:
    api(lab)
    left = set(lab.node("w1").run(LEFT, timeout=60, check=True).stdout.split())
    words = {
        "kubelet": "no kubelet runs",
        "containers": "no containers",
        "files": "no files of kubeadm",
        "cni": "no CNI configuration",
        "links": "no cni0, no flannel.1",
        "rules": "no rules of kube-proxy and flannel",
        "runtime": "containerd runs",
    }
    parts = {said: key not in left for key, said in words.items()}
    parts["no Node object"] = node_is(lab, "w1") == ""
    if {"kubelet", "files"} <= left:  # nobody has begun
        lab.fail(expected="w1 has left the cluster", seen=f"still there: {', '.join(sorted(left))}", look="kubectl get nodes")
    lab.compare(dict.fromkeys(parts, True), parts, look="on w1: ls /etc/cni/net.d; ip -brief link; iptables-save | grep -E 'KUBE|FLANNEL'")
