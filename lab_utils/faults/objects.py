"""Faults in API objects: one field that says something wrong."""

from __future__ import annotations

import copy
import json
import time
from abc import abstractmethod
from typing import Any

from lab_utils.errors import BadInput, Unhealthy
from lab_utils.faults import Fault, Plan
from lab_utils.labs.workspace import Workspace


class FieldFault(Fault):
    """A part of an object's spec with another value. Undone only while it holds that value: what a learner wrote since, stays."""

    heals = "never; it is what the object says"
    kind: str
    path: tuple[str | int, ...]

    @abstractmethod
    def broken(self, value: Any) -> Any:
        """The wrong value. It gets a copy."""

    def plan(self, lab: Workspace, *, name: str, namespace: str = "") -> Plan:
        where = namespace or lab.namespace
        thing = lab.find(self.kind, name, where)
        before = _at(thing, self.path) if thing else None
        if before is None:
            lacking = f"has no {'.'.join(map(str, self.path))}" if thing else "does not exist"
            raise BadInput(f"the fault {self.name!r} cannot be made: {self.kind} {where}/{name} {lacking}")
        return {"name": name, "namespace": where, "before": before, "after": self.broken(copy.deepcopy(before))}

    def do(self, lab: Workspace, plan: Plan) -> None:
        self._put(lab, plan, "before", "after")

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if self.holds(lab, plan):
            self._put(lab, plan, "after", "before")

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        thing = lab.find(self.kind, plan["name"], plan["namespace"])
        return thing is not None and _at(thing, self.path) == plan["after"]

    def _put(self, lab: Workspace, plan: Plan, now: str, then: str) -> None:
        """A JSON patch that first tests: it does nothing when somebody was quicker."""
        pointer = "/" + "/".join(map(str, self.path))
        patch = [{"op": "test", "path": pointer, "value": plan[now]}, {"op": "replace", "path": pointer, "value": plan[then]}]
        lab.kubectl("--namespace", plan["namespace"], "patch", self.kind, plan["name"], "--type=json", "--patch", json.dumps(patch))


def _at(thing: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        try:
            thing = thing[part]
        except (KeyError, IndexError):
            return None
    return thing


class SelectorWrong(FieldFault):
    name = "selector-wrong"
    about = "a Service selects a label that no Pod has: it has no endpoints"
    kind = "service"
    path = ("spec", "selector")

    def broken(self, value: Any) -> Any:
        key = sorted(value)[-1]
        return {**value, key: f"{value[key]}s"}


class TargetPortWrong(FieldFault):
    name = "target-port-wrong"
    about = "a Service leads to a port where the Pods do not listen"
    kind = "service"
    path = ("spec", "ports", 0, "targetPort")

    def broken(self, value: Any) -> Any:
        return value % 65535 + 1 if isinstance(value, int) else f"{value}s"


class ProbeWrong(FieldFault):
    name = "probe-wrong"
    about = "a Deployment's readiness probe asks the wrong port: new Pods never become Ready, and the rollout waits for them"
    kind = "deployment"
    path = ("spec", "template", "spec", "containers", 0, "readinessProbe")

    def broken(self, value: Any) -> Any:
        for how in ("httpGet", "tcpSocket", "grpc"):
            if how in value:
                port = value[how]["port"]
                value[how]["port"] = port % 65535 + 1 if isinstance(port, int) else 1
                return value
        value["exec"]["command"] = ["/bin/false"]
        return value


class ImageMissing(FieldFault):
    name = "image-missing"
    about = "a Deployment asks for an image that nobody has"
    kind = "deployment"
    path = ("spec", "template", "spec", "containers", 0, "image")

    def broken(self, value: Any) -> Any:
        name, slash, tag = value.rpartition("/")
        return f"{name}{slash}{tag.partition(':')[0].partition('@')[0]}:no-such-tag"


class SetImageMissing(ImageMissing):
    name = "set-image-missing"
    about = "a StatefulSet asks for an image that nobody has: its update waits at the first Pod that it made anew"
    heals = "never; and when the image is right again, that Pod has to be deleted"
    kind = "statefulset"


class NodeTainted(Fault):
    name = "node-tainted"
    about = "a node carries a taint that no Pod tolerates: nothing new is scheduled there"
    heals = "never; a taint stays until it is taken off"
    taint = "kubernetes-inside-out/closed=yes:NoSchedule"

    def plan(self, lab: Workspace, *, node: str) -> Plan:
        lab.node(node)
        return {"node": node}

    def do(self, lab: Workspace, plan: Plan) -> None:
        lab.cluster.kubectl("taint", "node", plan["node"], self.taint, "--overwrite")

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if self.holds(lab, plan):
            lab.cluster.kubectl("taint", "node", plan["node"], f"{self.taint}-")

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        key = self.taint.partition("=")[0]
        return any(taint["key"] == key for taint in lab.cluster.get("node", plan["node"])["spec"].get("taints", []))


class TokensExpired(Fault):
    """kubeadm's join tokens are Secrets in kube-system; the controller manager's tokencleaner deletes those that have expired."""

    name = "tokens-expired"
    about = "every token for `kubeadm join` has expired"
    heals = "never; `kubeadm token create` makes a new one"

    def plan(self, lab: Workspace) -> Plan:
        secrets = lab.cluster.get("secrets", "-n", "kube-system", "--field-selector=type=bootstrap.kubernetes.io/token")["items"]
        if not secrets:
            raise BadInput("there is no bootstrap token that could expire")
        keep = [{"name": each["metadata"]["name"], "data": each["data"]} for each in secrets]
        return {"secrets": keep}

    def do(self, lab: Workspace, plan: Plan) -> None:
        for secret in plan["secrets"]:
            patch = json.dumps({"stringData": {"expiration": "2020-01-01T00:00:00Z"}})
            lab.cluster.kubectl("-n", "kube-system", "patch", "secret", secret["name"], "-p", patch)
        deadline = time.monotonic() + 60
        while not self.holds(lab, plan):  # its cleaner works from a queue: it takes a moment
            if time.monotonic() > deadline:
                raise Unhealthy("expired tokens were not removed", "Is the controller manager running?")
            time.sleep(1)

    def undo(self, lab: Workspace, plan: Plan) -> None:
        for secret in plan["secrets"]:
            if not lab.find("secret", secret["name"], "kube-system") or not self.holds(lab, plan):
                metadata = {"name": secret["name"], "namespace": "kube-system"}
                thing = {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "type": "bootstrap.kubernetes.io/token",
                    "metadata": metadata,
                    "data": secret["data"],
                }
                lab.cluster.apply(thing)

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        return not any(lab.find("secret", secret["name"], "kube-system") for secret in plan["secrets"])


FAULTS: list[Fault] = [SelectorWrong(), TargetPortWrong(), ProbeWrong(), ImageMissing(), SetImageMissing(), NodeTainted(), TokensExpired()]
