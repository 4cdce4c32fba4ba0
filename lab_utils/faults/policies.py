"""Faults in NetworkPolicies: everything still works, and something else works too."""

from __future__ import annotations

from typing import Any

from lab_utils.errors import BadInput
from lab_utils.faults import Plan
from lab_utils.faults.objects import FieldFault
from lab_utils.labs.workspace import Workspace


class PeerSplit(FieldFault):
    name = "peer-split"
    about = "in a NetworkPolicy, a peer with both selectors has become two peers: what both had to say yes to, each may now allow"
    kind = "networkpolicy"
    path = ("spec", "ingress", 0, "from")

    def plan(self, lab: Workspace, *, name: str, namespace: str = "") -> Plan:
        plan = super().plan(lab, name=name, namespace=namespace)
        if plan["before"] == plan["after"]:
            raise BadInput(f"the fault {self.name!r} cannot be made: no peer of {name} has both selectors")
        return plan

    def broken(self, value: Any) -> Any:
        """One more dash, before podSelector."""
        both = ("namespaceSelector", "podSelector")
        return [part for peer in value for part in ([{key: peer[key]} for key in both] if set(both) <= set(peer) else [peer])]


FAULTS = [PeerSplit()]
