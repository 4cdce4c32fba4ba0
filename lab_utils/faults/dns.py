"""Faults in the cluster's DNS. They concern every namespace; a lab says so in its prose."""

from __future__ import annotations

import json
from typing import Any

from lab_utils.errors import BadInput
from lab_utils.faults import Fault, Plan
from lab_utils.faults.objects import SelectorWrong
from lab_utils.labs.workspace import Workspace


class DnsBroken(SelectorWrong):
    name = "dns-broken"
    about = "the Service of the cluster's DNS has no endpoints: no name resolves, every address works"
    heals = "never; kubeadm writes it at init and upgrade only"

    def plan(self, lab: Workspace, **options: Any) -> Plan:
        if options:
            raise BadInput("the fault 'dns-broken' takes no options")
        return super().plan(lab, name="kube-dns", namespace="kube-system")


class DnsZoneWrong(Fault):
    name = "dns-zone-wrong"
    about = "CoreDNS answers for another zone than the one Pods ask for: outside names resolve, Services do not"
    heals = "never; CoreDNS reads its file again within 45 s (the plugin `reload`), so it takes as long to break and to mend"

    def plan(self, lab: Workspace) -> Plan:
        config = lab.find("configmap", "coredns", "kube-system")
        before = config["data"]["Corefile"] if config else ""
        if "kubernetes cluster.local " not in before:
            raise BadInput("the Corefile does not serve cluster.local")
        return {"before": before, "after": before.replace("kubernetes cluster.local ", "kubernetes cluster.loca1 ")}

    def do(self, lab: Workspace, plan: Plan) -> None:
        self._put(lab, plan["after"])

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if self.holds(lab, plan):
            self._put(lab, plan["before"])

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        config = lab.find("configmap", "coredns", "kube-system")
        return config is not None and config["data"].get("Corefile") == plan["after"]

    def _put(self, lab: Workspace, text: str) -> None:
        patch = json.dumps({"data": {"Corefile": text}})
        lab.cluster.kubectl("-n", "kube-system", "patch", "configmap", "coredns", "--type=merge", "--patch", patch)


FAULTS: list[Fault] = [DnsBroken(), DnsZoneWrong()]
