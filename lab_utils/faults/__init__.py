"""Things broken on purpose, each with the way back.

    lab.inject("rule-lost", service="web", node="w1")      # in a notebook

A fault first makes a plan: it looks, changes nothing, and returns all that undoing it will need. The plan is written
down before anything is broken, so any later process can undo it, whatever became of this one.
Undoing touches only what is still as the fault left it: what a learner mended, or Kubernetes healed by itself, stays.
Each fault says in `heals` what Kubernetes does against it by itself, because a lab has to know how long it lasts.
"""

from __future__ import annotations

import inspect
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

from lab_utils.errors import BadInput, LabError, Unhealthy
from lab_utils.labs.workspace import Workspace

Plan = dict[str, Any]  # plain JSON


class Fault(ABC):
    name: ClassVar[str]
    about: ClassVar[str]  # what is broken, in one line
    heals: ClassVar[str]  # what Kubernetes does about it by itself

    # plan(lab, *, options…): look, change nothing, and return what `do` and `undo` need. Each fault has its own options.
    plan: Callable[..., Plan]

    @abstractmethod
    def do(self, lab: Workspace, plan: Plan) -> None:
        """Break it."""

    @abstractmethod
    def undo(self, lab: Workspace, plan: Plan) -> None:
        """Mend it, if it is still broken. May be called again, and on a cluster that has moved on."""

    @abstractmethod
    def holds(self, lab: Workspace, plan: Plan) -> bool:
        """Whether it is still as `do` left it."""


@cache
def all_faults() -> dict[str, Fault]:
    from lab_utils.faults import dns, install, nodes, objects, pods, policies, rules

    kinds: list[Fault] = [*rules.FAULTS, *nodes.FAULTS, *install.FAULTS, *objects.FAULTS, *pods.FAULTS, *dns.FAULTS, *policies.FAULTS]
    return {fault.name: fault for fault in kinds}


def fault(name: str) -> Fault:
    known = all_faults()
    if name not in known:
        raise BadInput(f"there is no fault named {name!r}", f"There are: {', '.join(sorted(known))}")
    return known[name]


def inject(lab: Workspace, name: str, /, **options: Any) -> Plan:
    """Break something, after writing down how to mend it. The same fault injected again is undone first: a cell may be run twice."""
    kind = fault(name)
    if lab.spec.needs.bare:
        from lab_utils.labs.bare import find_api

        find_api(lab.cluster)
    options = {key: lab.fill(value) if isinstance(value, str) else value for key, value in options.items()}
    _fits(kind, options)
    for record in lab.store.faults():
        if record["name"] == name and record["options"] == options:
            undo(lab, record)
    plan = kind.plan(lab, **options)
    record = {"id": uuid.uuid4().hex[:12], "name": name, "options": options, "plan": plan, "when": round(time.time())}
    lab.store.add_fault(record)
    try:
        kind.do(lab, plan)
    except BaseException:
        undo(lab, record)
        raise
    return plan


def _fits(kind: Fault, options: Mapping[str, Any]) -> None:
    signature = inspect.signature(kind.plan)
    try:
        signature.bind(None, **options)
    except TypeError as error:
        words = list(signature.parameters.values())[1:]  # the first is the lab
        allowed = [word.name if word.default is word.empty else f"{word.name}={word.default!r}" for word in words]
        raise BadInput(
            f"the fault {kind.name!r} does not take these options ({error})", f"It takes: {', '.join(allowed) or 'none'}"
        ) from None


def undo(lab: Workspace, record: Mapping[str, Any]) -> None:
    fault(record["name"]).undo(lab, record["plan"])
    lab.store.remove_fault(record["id"])


def undo_all(lab: Workspace) -> list[str]:
    """Undo every fault of the lab, the latest first; returns their names. One that resists does not keep the others."""
    undone, resisting = [], []
    for record in reversed(lab.store.faults()):
        try:
            undo(lab, record)
            undone.append(record["name"])
        except LabError as error:
            resisting.append(f"{record['name']}: {error}")
    if resisting:
        raise Unhealthy(f"not every fault could be undone: {'; '.join(resisting)}", "Run it again, or `lab reset` for a fresh cluster")
    return undone
