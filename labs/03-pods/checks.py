"""Lab 03: what is right is read from the nodes and the API; nothing here needs hiding."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any

from lab_utils.checks import CheckContext, check, cleanup, setup
from lab_utils.cluster import Node
from lab_utils.labs.workspace import Workspace
from lab_utils.namespaces import inhabitants, pids_of, read_links

TABLE = "lab-03-table"
POLICIES = {"always": "Always", "onfailure": "OnFailure", "never": "Never"}


# ── the starting state that is easier said in Python ────────────────────────


@setup
def _(lab: Workspace) -> None:
    pods = [restarting(name, policy, code) for name, policy in POLICIES.items() for code in (0, 1)]
    pods += [probed("startup", period=10), probed("readiness", period=2), probed("liveness", period=15)]
    lab.cluster.apply(pods, TABLE)
    for pod in ("duo", "origin", *(name for name in ("neighbour", "visitor") if lab.find("pod", name))):  # made only where w1 and w2 are
        lab.cluster.wait(f"pod/{pod} condition=Ready -n {lab.namespace}", timeout=120)
    lab.cluster.wait(f"deployment/store condition=Available -n {lab.namespace}", timeout=120)


def pod_of(name: str, labels: dict[str, str], policy: str, container: dict[str, Any]) -> dict[str, Any]:
    main = {"name": "main", "image": "busybox:1.37", **container}
    spec = {"restartPolicy": policy, "terminationGracePeriodSeconds": 0, "containers": [main]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def restarting(name: str, policy: str, code: int) -> dict[str, Any]:
    """The sleep keeps a Pod that restarts for ever from keeping the node busy."""
    return pod_of(f"{name}-{code}", {"table": "yes"}, policy, {"command": ["sh", "-c", f"sleep 8; exit {code}"]})


def probed(kind: str, period: int) -> dict[str, Any]:
    first = {"initialDelaySeconds": period} if kind == "liveness" else {}
    probe = {"exec": {"command": ["false"]}, "periodSeconds": period, "failureThreshold": 1, **first}
    return pod_of(kind, {"app": "probed"}, "Always", {"command": ["httpd", "-f", "-p", "8080"], f"{kind}Probe": probe})


@cleanup
def _(lab: Workspace) -> None:
    """The Pod by hand is known to nobody but the node, and its namespace may have lost its name before its processes ended."""
    name = by_hand(lab)
    inode = (lab.store.sightings().get(name) or {}).get("inode", 0)
    for node in lab.cluster.nodes:
        node.run(f"""
        ip netns pids {name} | xargs -r kill -9
        for link in /proc/[0-9]*/ns/net; do
          pid=${{link#/proc/}}; pid=${{pid%%/*}}
          [ "$(readlink $link)" = "net:[{inode}]" ] || [ "$(nsenter --target $pid --uts hostname)" = {name} ] || continue
          grep -q kubepods /proc/$pid/cgroup || kill -9 $pid  # the number of a namespace is given to another one later
        done
        ip netns del {name}
        ip link del {name}
        """)


def by_hand(lab: Workspace) -> str:
    return f"hand-{lab.params['number']}"


# ── looking ─────────────────────────────────────────────────────────────────


def node_of(lab: CheckContext, name: str) -> Node:
    pod = lab.find("pod", name)
    if pod is None or not pod["spec"].get("nodeName"):
        seen = "none" if pod is None else "it is on no node"
        lab.fail(expected=f"a Pod named {name}, on a node", seen=seen, look=f"kubectl get pod {name} -o wide")
    return lab.node(pod["spec"]["nodeName"])


def crictl(node: Node, command: str, *words: str) -> Any:
    return json.loads(node.run(["crictl", command, "-o", "json", *words], check=True).stdout)


def restarts(pod: dict[str, Any]) -> dict[str, int]:
    return {each["name"]: each["restartCount"] for each in pod["status"].get("containerStatuses", [])}


def is_ready(pod: dict[str, Any] | None) -> bool:
    conditions = pod["status"].get("conditions", []) if pod else []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def ready_endpoints(lab: CheckContext, service: str, namespace: str | None = None) -> list[str]:
    slices = lab.objects("endpointslices", f"kubernetes.io/service-name={service}", namespace)
    ends = [end for each in slices for end in each.get("endpoints") or []]
    return sorted(end["targetRef"]["name"] for end in ends if end["conditions"].get("ready") and end.get("targetRef"))


# ── the steps ───────────────────────────────────────────────────────────────


@check("find-sandbox", points=3)
def _(lab: CheckContext) -> None:
    answer = lab.answered({"node": str, "pause_pid": int, "containers": int})
    node = node_of(lab, "duo")
    sandbox = crictl(node, "pods", "--namespace", lab.namespace, "--name", "^duo$", "--state", "ready")["items"][0]["id"]
    right = {
        "node": node.name,
        "pause_pid": pids_of(node, lab.namespace, "duo")["pause"],
        "containers": len(crictl(node, "ps", "--pod", sandbox)["containers"]),
    }
    lab.compare(right, answer, look=f"on {node.name}: crictl pods, crictl ps, crictl inspectp")


@check("shared", points=5)
def _(lab: CheckContext) -> None:
    kinds = ("net", "uts", "ipc", "pid", "mnt")
    answer = lab.answered(dict.fromkeys(kinds, bool))
    node_of(lab, "duo")
    who = {one.name: one.namespaces for one in inhabitants(lab.cluster, lab.namespace, "duo")}
    right = {kind: who["web"][kind] == who["clock"][kind] for kind in kinds}
    lab.compare(right, answer, look="readlink /proc/PID/ns/KIND, on the node, for the first process of web and of clock")


@check("predict-kill", points=6)
def _(lab: CheckContext) -> None:
    names = ("ip_stays", "uid_stays", "clock_restarts", "web_restarts", "volume_file_stays", "tmp_file_stays")
    answer = lab.answered(dict.fromkeys(names, bool))
    lab.compare(experiment(lab), answer, look="make the experiment: it is the next step")


def experiment(lab: CheckContext) -> dict[str, bool]:
    """Kill `clock` of another Pod that is made like duo, and look."""

    def look() -> dict[str, Any]:
        return lab.find("pod", "victim", TABLE) or {}

    def inside(command: str) -> bool:
        return lab.kubectl("-n", TABLE, "exec", "victim", "-c", "clock", "--", "sh", "-c", command, check=False).ok

    if not lab.eventually(lambda: is_ready(look()), timeout=60):
        lab.fail(message="the Pod victim in lab-03-table, with which this is tried, is not ready: lab.reset() makes it anew")
    before = look()
    inside("touch /tmp/mark /srv/mark && kill -TERM 1")
    lab.eventually(lambda: restarts(look())["clock"] > restarts(before)["clock"] and is_ready(look()), timeout=60)
    after = look()
    return {
        "ip_stays": after["status"].get("podIP") == before["status"]["podIP"],
        "uid_stays": after["metadata"]["uid"] == before["metadata"]["uid"],
        "clock_restarts": restarts(after)["clock"] > restarts(before)["clock"],
        "web_restarts": restarts(after)["web"] > restarts(before)["web"],
        "volume_file_stays": inside("test -e /srv/mark"),
        "tmp_file_stays": inside("test -e /tmp/mark"),
    }


@check("kill", points=3)
def _(lab: CheckContext) -> None:
    def once_more() -> bool:
        counts = restarts(lab.find("pod", "duo") or {"status": {}})
        return counts.get("clock", 0) > counts.get("web", 0)

    if not lab.eventually(once_more, timeout=15):
        counts = restarts(lab.find("pod", "duo") or {"status": {}})
        lab.fail(
            expected="clock of the Pod duo was restarted, and web was not (or less often)",
            seen=counts or "there is no Pod duo",
            look="kubectl get pod duo; on its node: crictl ps -a --name clock",
        )
    lab.steady(lambda: is_ready(lab.find("pod", "duo")), expected="both containers of duo run again", look="kubectl describe pod duo")


@check("phases", points=6)
def _(lab: CheckContext) -> None:
    names = [f"{policy}-{code}" for policy in POLICIES for code in (0, 1)]
    answer = lab.answered(dict.fromkeys(names, str))

    def settled() -> dict[str, str] | None:
        pods = {pod["metadata"]["name"]: pod for pod in lab.objects("pods", "table", TABLE)}
        done = [pod for pod in pods.values() if pod["status"]["phase"] in ("Succeeded", "Failed") or any(restarts(pod).values())]
        return {name: pods[name]["status"]["phase"] for name in names} if len(done) == len(names) else None

    right = lab.eventually(settled, timeout=60)
    lab.require(
        right,
        expected="six Pods in lab-03-table whose containers have ended once",
        seen="not all",
        look="kubectl -n lab-03-table get pods; lab.reset()",
    )
    lab.compare(right, answer, look="kubectl -n lab-03-table get pods -o custom-columns=NAME:.metadata.name,PHASE:.status.phase")


@check("probes", points=6, timeout=180)
def _(lab: CheckContext) -> None:
    kinds = ("startup", "readiness", "liveness")
    answer = lab.answered({kind: {"killed": bool, "traffic": bool} for kind in kinds})
    seen_ready: set[str] = set()

    def counts() -> dict[str, int]:
        return {pod["metadata"]["name"]: sum(restarts(pod).values()) for pod in lab.pods("app=probed", TABLE)}

    def long_enough() -> bool:
        seen_ready.update(ready_endpoints(lab, "probed", TABLE))
        return all(counts().get(kind) for kind in ("startup", "liveness")) and "liveness" in seen_ready

    lab.eventually(long_enough, timeout=90)
    killed = counts()
    right = {f"{kind}, killed": killed.get(kind, 0) > 0 for kind in kinds} | {f"{kind}, traffic": kind in seen_ready for kind in kinds}
    given = {f"{kind}, {part}": answer[kind][part] for kind in kinds for part in ("killed", "traffic")}
    lab.compare(right, given, look="kubectl -n lab-03-table get pods; kubectl -n lab-03-table get endpointslices -o yaml")


@check("mend", points=6)
def _(lab: CheckContext) -> None:
    deployment = lab.find("deployment", "store")
    lab.require(deployment, expected="the Deployment store", seen="none", look="kubectl get deployments")
    assert deployment
    containers = deployment["spec"]["template"]["spec"]["containers"]
    probes = [each["readinessProbe"] for each in containers if "readinessProbe" in each]
    lab.require(probes, expected="a readiness probe", seen="the Deployment has none any more", look="kubectl get deployment store -o yaml")
    lab.steady(
        lambda: ready_endpoints(lab, "store"),
        expected="the Service store has a ready endpoint",
        look="kubectl describe pods -l app=store; kubectl get endpointslices -l kubernetes.io/service-name=store",
        timeout=20,
    )
    address = lab.get("service", "store")["spec"]["clusterIP"]
    page = lab.http(f"http://{address}/")
    lab.require(
        page.stdout.strip() == "open",
        expected="the page of the store, through its Service",
        seen=page.stdout or page.stderr,
        look="kubectl get service store",
    )
    lab.require(not asks_nothing(probes[0]), expected="a probe that asks the program", seen=probes[0], look="kubectl edit deployment store")


def asks_nothing(probe: dict[str, Any]) -> bool:
    """A probe that cannot fail is no probe."""
    words = " ".join(probe.get("exec", {}).get("command", ["something"]))
    return re.fullmatch(r"(sh -c )?(/bin/)?(true|:|echo\b.*|exit 0|sleep \S+)", words) is not None


@check("qos", points=5)
def _(lab: CheckContext) -> None:
    path = lab.answered(str).strip()
    node = node_of(lab, "steady")
    lab.steady(lambda: is_ready(lab.find("pod", "steady")), expected="the Pod steady is Ready", look="kubectl describe pod steady")
    pod = lab.get("pod", "steady")
    lab.expect("Guaranteed", pod["status"]["qosClass"], look="kubectl get pod steady -o jsonpath={.status.qosClass}")
    asked = {each["resources"]["limits"]["memory"] for each in pod["spec"]["containers"]}
    wanted = lab.params["mib"]
    same = {f"{wanted}Mi", str(wanted << 20), f"{wanted << 10}Ki"}
    lab.require(
        asked <= same, expected=f"a memory limit of {wanted}Mi", seen=sorted(asked), look="kubectl get pod steady -o yaml", earned=2
    )
    groups = set()
    for name, pid in pids_of(node, lab.namespace, "steady").items():
        if name != "pause":
            lines = node.run(["cat", f"/proc/{pid}/cgroup"], check=True).stdout.splitlines()
            groups |= {line.split(":", 2)[2] for line in lines if line.count(":") >= 2}
    uid = pod["metadata"]["uid"]
    of_the_pod = uid in path or uid.replace("-", "_") in path
    tail = path.rstrip("/").removeprefix("/sys/fs/cgroup/memory").removeprefix("/sys/fs/cgroup")
    right = of_the_pod and any(f"{group}/".startswith(f"{tail}/") or group.endswith(tail) for group in groups)
    lab.require(
        right,
        expected="the path of steady's cgroup, as /proc/PID/cgroup on the node shows it",
        seen=path,
        look=f"on {node.name}: cat /proc/PID/cgroup",
        earned=3,
    )


@check("depot", points=8)
def _(lab: CheckContext) -> None:
    node_of(lab, "depot")
    lab.steady(
        lambda: is_ready(lab.find("pod", "depot")),
        expected="the Pod depot is Ready",
        look="kubectl describe pod depot; kubectl logs depot --all-containers",
    )
    pod = lab.get("pod", "depot")
    everyone = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    mounted: dict[str, set[str]] = {}
    for each in everyone:
        for mount in each.get("volumeMounts", []):
            if not mount["mountPath"].startswith("/var/run/secrets/"):
                mounted.setdefault(mount["name"], set()).add(each["name"])
    lab.require(
        any(len(names) > 1 for names in mounted.values()),
        expected="one volume that two containers of the Pod mount",
        seen={volume: sorted(names) for volume, names in mounted.items()} or "no volume",
        look="kubectl get pod depot -o yaml",
    )
    file = lab.params["file"]
    origin = lab.get("service", "origin")["spec"]["clusterIP"]
    wanted = lab.http(f"http://{origin}/{file}")
    lab.require(
        wanted.ok and wanted.stdout,
        expected=f"the Service origin serves {file}",
        seen=wanted.stderr,
        look="kubectl get pod origin; lab.reset()",
    )
    url = f"http://{pod['status']['podIP']}:8080/{file}"
    served = lab.eventually(lambda: lab.http(url).stdout == wanted.stdout, timeout=20)
    lab.require(
        served,
        expected=f"{url} gives what http://origin/{file} gives",
        seen=lab.http(url).stderr or "something else",
        look="kubectl logs depot --all-containers",
        earned=4,
    )


@check("account", points=6, after=["depot"])
def _(lab: CheckContext) -> None:
    answer = lab.answered({"sandboxes": int, "containers": int, "pauses": int, "shims": int, "folder": str})
    node = node_of(lab, "depot")
    sandboxes = crictl(node, "pods", "--namespace", lab.namespace, "--name", "^depot$", "--state", "ready")["items"]
    ids = [each["id"] for each in sandboxes]
    processes = node.processes()
    right: dict[str, Any] = {
        "sandboxes": len(ids),
        "containers": sum(len(crictl(node, "ps", "--pod", each)["containers"] or []) for each in ids),
        "pauses": len(ids),
        "shims": sum("containerd-shim" in each.args and any(id in each.args for id in ids) for each in processes),
    }
    file, folder = lab.params["file"], answer["folder"].rstrip("/").removesuffix(f"/{lab.params['file']}")
    pid = next((pid for name, pid in pids_of(node, lab.namespace, "depot").items() if name != "pause" and has_file(node, pid, file)), None)
    # Whatever the path is called: it is right if it is the same folder, by device and inode, that a container sees.
    there = node.run(["stat", "-L", "-c", "%d:%i", f"{folder}/{file}"]).stdout.strip()
    right["folder"] = True
    seen = {**answer, "folder": bool(there and pid and there in inodes(node, pid, file))}
    lab.compare(right, seen, look=f"on {node.name}: crictl pods, crictl ps, ps -e -o args, find /var/lib/kubelet/pods -name {file}")


def inodes(node: Node, pid: int, file: str) -> set[str]:
    """Device and inode of a file of that name in any of the volumes that a container's process sees."""
    mounts = f"awk '{{print $5}}' /proc/{pid}/mountinfo"
    return set(node.run(f'{mounts} | while read -r at; do stat -L -c %d:%i "/proc/{pid}/root$at/{file}"; done').stdout.split())


def has_file(node: Node, pid: int, file: str) -> bool:
    return bool(inodes(node, pid, file))


@check("by-hand", points=8)
def _(lab: CheckContext) -> None:
    name, node = by_hand(lab), lab.node("w1")
    look = f"on w1: ip netns pids {name}; ip -n {name} addr; ls -l /proc/PID/ns"
    listed = node.run("ip netns list", check=True).stdout.split()
    lab.require(name in listed, expected=f"a network namespace named {name} on w1", seen="no such name in `ip netns`", look=look)
    pids = [int(pid) for pid in node.run(["ip", "netns", "pids", name], check=True).stdout.split()]
    paths = " ".join(f"/proc/{pid}/ns/{kind}" for pid in [1, *pids] for kind in ("net", "uts", "ipc"))
    links = read_links(node.run(f"for link in {paths}; do echo $link $(readlink $link); done").stdout)
    groups: dict[tuple[int, int], list[int]] = {}
    for pid in pids:
        if pid in links and len(links[pid]) == 3:
            groups.setdefault((links[pid]["uts"], links[pid]["ipc"]), []).append(pid)
    own = [members for (uts, ipc), members in groups.items() if uts != links[1]["uts"] and ipc != links[1]["ipc"]]
    together = max(own, key=len, default=[])
    lab.require(
        len(together) > 1,
        expected="two processes in it that share a uts and an ipc namespace of their own",
        seen=f"{len(pids)} processes, {len(together)} so",
        look=look,
        earned=2,
    )
    lab.sight(name, {"pids": pids, "inode": links[together[0]]["net"]})
    called = node.run(["nsenter", "--target", str(together[0]), "--uts", "hostname"]).stdout.strip()
    lab.require(called == name, expected=f"host name {name} in their uts namespace", seen=called, look=look, earned=4)
    subnet = ipaddress.ip_network(lab.cluster.get("node", "w1")["spec"]["podCIDR"])
    devices = json.loads(node.run(["ip", "-n", name, "-j", "-4", "addr"], check=True).stdout or "[]")
    addresses = [info["local"] for device in devices for info in device.get("addr_info", []) if device["ifname"] != "lo"]
    found = [address for address in addresses if ipaddress.ip_address(address) in subnet]
    lab.require(found, expected=f"an address of {subnet}", seen=addresses or "no address", look=look, earned=4)
    # From the other worker: across the bridge, the node's routes and the tunnel, and back by the default route.
    ping = lab.eventually(lambda: lab.run_in("visitor", f"ping -c 1 -W 2 {found[0]}").ok, timeout=15)
    lab.require(
        ping,
        expected=f"{found[0]} answers a ping from the Pod visitor on w2",
        seen="no answer",
        look=f"ip -n {name} route; ip link show master cni0; ip -n {name} link",
        earned=6,
    )


@check("tidy", points=3)
def _(lab: CheckContext) -> None:
    name, node = by_hand(lab), lab.node("w1")
    here = lab.sighted(name) or {"pids": [], "inode": 0}
    listed = name in node.run("ip netns list", check=True).stdout.split()
    link = node.run(["ip", "link", "show", name]).ok
    alive = [pid for pid in here["pids"] if node.run(["readlink", f"/proc/{pid}/ns/net"]).stdout.strip() == f"net:[{here['inode']}]"]
    look = f"on w1: ip netns; ip link show {name}; ps -e"
    lab.gone(
        name, exists=listed or bool(alive) or link, look=look, expected=f"the namespace {name}, its processes and its veth pair are gone"
    )
