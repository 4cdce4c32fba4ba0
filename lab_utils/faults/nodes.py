"""Faults on a node: its services, its files, its kernel settings. None of them needs the API to be undone."""

from __future__ import annotations

import json
import shlex
from abc import abstractmethod
from pathlib import PurePosixPath
from typing import Any

import yaml

from lab_utils.cluster import Node
from lab_utils.errors import BadInput
from lab_utils.faults import Fault, Plan
from lab_utils.labs.workspace import Workspace


class UnitStopped(Fault):
    """A systemd unit that is stopped stays so: Restart= acts on a process that dies, not on one that was stopped."""

    unit: str
    heals = "never; systemd leaves a unit alone that was stopped"

    def plan(self, lab: Workspace, *, node: str) -> Plan:
        if not self._active(lab.node(node)):
            raise BadInput(f"{self.unit} does not run on node {node}")
        return {"node": node}

    def do(self, lab: Workspace, plan: Plan) -> None:
        lab.node(plan["node"]).run(["systemctl", "stop", self.unit], check=True)

    def undo(self, lab: Workspace, plan: Plan) -> None:
        lab.node(plan["node"]).run(["systemctl", "start", self.unit], check=True)

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        return not self._active(lab.node(plan["node"]))

    def _active(self, node: Node) -> bool:
        return node.run(["systemctl", "is-active", "--quiet", self.unit]).ok


class KubeletStopped(UnitStopped):
    name = "kubelet-stopped"
    about = "the kubelet of a node is stopped; its containers go on, and after 40 s the node is NotReady"
    unit = "kubelet"


class FileFault(Fault):
    """A file of a node with another content. `after` is run when it was written, both ways."""

    after: tuple[str, ...] = ()

    @abstractmethod
    def target(self, node: Node) -> str: ...

    @abstractmethod
    def broken(self, text: str) -> str: ...

    def plan(self, lab: Workspace, *, node: str) -> Plan:
        where = lab.node(node)
        path = self.target(where)
        text = where.get(path).decode()
        broken = self.broken(text)
        if broken == text:
            raise BadInput(f"{path} on node {node} does not hold what the fault {self.name!r} would change")
        mode = where.run(["stat", "--format=%a", path], check=True).stdout.strip()
        return {"node": node, "path": path, "before": text, "after": broken, "mode": mode}

    def do(self, lab: Workspace, plan: Plan) -> None:
        self._write(lab.node(plan["node"]), plan, "after")

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if self.holds(lab, plan):
            self._write(lab.node(plan["node"]), plan, "before")

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        seen = lab.node(plan["node"]).run(["cat", plan["path"]])
        return seen.ok and seen.stdout == plan["after"]

    def _write(self, node: Node, plan: Plan, which: str) -> None:
        node.put(plan[which].encode(), plan["path"], mode=int(plan["mode"], 8))
        if self.after:
            node.run(list(self.after), check=True)


class CniConfigWrong(FileFault):
    name = "cni-config-wrong"
    about = "a node's CNI configuration names a plugin that does not exist: new Pods there stay in ContainerCreating"
    heals = "when the network's own Pod starts anew on the node and writes its file again"

    def target(self, node: Node) -> str:
        """containerd reads the first file by name (go-cni sorts them)."""
        listed = sorted(node.run("ls /etc/cni/net.d", check=True).stdout.split())
        found = [name for name in listed if name.endswith((".conflist", ".conf"))]
        if not found:
            raise BadInput(f"node {node.name} has no CNI configuration in /etc/cni/net.d")
        return f"/etc/cni/net.d/{found[0]}"

    def broken(self, text: str) -> str:
        config = json.loads(text)
        first = config["plugins"][0] if "plugins" in config else config
        first["type"] += "-"
        return json.dumps(config, indent=2) + "\n"


class KubeletConfigWrong(FileFault):
    name = "kubelet-config-wrong"
    about = "the kubelet's configuration names a CA file that is not there: it does not start"
    heals = "never; systemd tries again every 10 s, and fails"
    after = ("systemctl", "restart", "--no-block", "kubelet")

    def target(self, node: Node) -> str:
        return "/var/lib/kubelet/config.yaml"

    def broken(self, text: str) -> str:
        config = yaml.safe_load(text)
        ca = PurePosixPath(config["authentication"]["x509"]["clientCAFile"])
        return text.replace(str(ca), str(ca.with_name("ca-old.crt")))


class IpForwardOff(Fault):
    name = "ip-forward-off"
    about = "a node no longer forwards packets: its Pods reach nobody beyond it, and nobody reaches them"
    heals = "when the network's Pod or kube-proxy starts anew on the node and switches it on"
    key = "net.ipv4.ip_forward"

    def plan(self, lab: Workspace, *, node: str) -> Plan:
        return {"node": node, "before": self._value(lab.node(node))}

    def do(self, lab: Workspace, plan: Plan) -> None:
        lab.node(plan["node"]).run(["sysctl", "-q", "-w", f"{self.key}=0"], check=True)

    def undo(self, lab: Workspace, plan: Plan) -> None:
        lab.node(plan["node"]).run(["sysctl", "-q", "-w", f"{self.key}={plan['before']}"], check=True)

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        return self._value(lab.node(plan["node"])) == "0"

    def _value(self, node: Node) -> str:
        return node.run(["sysctl", "-n", self.key], check=True).stdout.strip()


class RouteLost(Fault):
    name = "route-lost"
    about = "a node has no route to another node's Pods"
    heals = "when flannel starts anew on the node (with host-gw, which looks at its routes, within 10 s)"

    def plan(self, lab: Workspace, *, node: str, to: str) -> Plan:
        subnet = lab.cluster.get("node", to)["spec"]["podCIDR"]
        route = lab.node(node).run(["ip", "-4", "route", "show", subnet], check=True).stdout.strip()
        if not route or "\n" in route:
            raise BadInput(f"node {node} has not one route to {subnet}, the Pods of {to}: {route or 'none'}")
        return {"node": node, "subnet": subnet, "route": route}

    def do(self, lab: Workspace, plan: Plan) -> None:
        lab.node(plan["node"]).run(["ip", "-4", "route", "del", *shlex.split(plan["route"])], check=True)

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if self.holds(lab, plan):
            lab.node(plan["node"]).run(["ip", "-4", "route", "add", *shlex.split(plan["route"])], check=True)

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        return not lab.node(plan["node"]).run(["ip", "-4", "route", "show", plan["subnet"]], check=True).stdout.strip()


class ComponentStopped(Fault):
    """The kubelet runs what lies in its manifests folder, and nothing else: a manifest moved away is a Pod stopped."""

    name = "component-stopped"
    about = "a static Pod of the control plane is stopped: its manifest is moved out of the kubelet's sight"
    heals = "never; the kubelet looks at the folder every 20 s and runs what it finds there"

    def plan(self, lab: Workspace, *, component: str, node: str = "cp") -> Plan:
        path = f"/etc/kubernetes/manifests/{component}.yaml"
        if not lab.node(node).run(["test", "-f", path]).ok:
            there = lab.node(node).run("ls /etc/kubernetes/manifests").stdout.split()
            raise BadInput(f"node {node} has no {path}", f"There are: {', '.join(name.removesuffix('.yaml') for name in there)}")
        return {"node": node, "path": path, "aside": f"/etc/kubernetes/{component}.yaml.stopped-by-a-lab"}

    def do(self, lab: Workspace, plan: Plan) -> None:
        lab.node(plan["node"]).run(["mv", plan["path"], plan["aside"]], check=True)

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if not self.holds(lab, plan):
            return
        lab.node(plan["node"]).run(["mv", plan["aside"], plan["path"]], check=True)

        def answers() -> Any:
            return lab.cluster.kubectl("get", "--raw", "/readyz", check=False, timeout=5).ok

        if "apiserver" in plan["path"] or "etcd" in plan["path"]:
            lab.cluster.wait(answers, timeout=180, every=1, why="the API server did not come back")

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        return lab.node(plan["node"]).run(["test", "-f", plan["aside"], "-a", "!", "-e", plan["path"]]).ok


FAULTS: list[Fault] = [KubeletStopped(), KubeletConfigWrong(), CniConfigWrong(), IpForwardOff(), RouteLost(), ComponentStopped()]
