"""Faults inside a container of a Pod. They end with the Pod; undoing them looks for the same Pod by its uid."""

from __future__ import annotations

import base64
import shlex
from typing import Any

from lab_utils.errors import BadInput
from lab_utils.faults import Fault, Plan
from lab_utils.labs.workspace import Workspace

LARGEST = 256  # MiB; a volume beyond that is likely the node's own disk, which is not ours to fill


class InPod(Fault):
    heals = "when the Pod is replaced"

    def where(self, lab: Workspace, pod: str, container: str) -> Plan:
        thing = lab.find("pod", pod)
        if thing is None:
            raise BadInput(f"there is no Pod {lab.namespace}/{pod}")
        return {"pod": pod, "container": container, "uid": thing["metadata"]["uid"]}

    def same(self, lab: Workspace, plan: Plan) -> bool:
        thing = lab.find("pod", plan["pod"])
        return thing is not None and thing["metadata"]["uid"] == plan["uid"]

    def sh(self, lab: Workspace, plan: Plan, command: str, *, check: bool = True) -> Any:
        done = lab.run_in(plan["pod"], command, container=plan["container"], timeout=120)
        if check and not done.ok:
            raise BadInput(f"`{command}` failed in Pod {plan['pod']}: {done.stderr.strip()}")
        return done


class DiskFull(InPod):
    name = "disk-full"
    about = "a small volume of a Pod is full"

    def plan(self, lab: Workspace, *, pod: str, path: str, container: str = "") -> Plan:
        """`path` is where a volume of at most 256 MiB is mounted, such as an emptyDir with `medium: Memory` and a sizeLimit."""
        plan = self.where(lab, pod, container)
        lines = self.sh(lab, plan, f"df -Pk {shlex.quote(path)}").stdout.splitlines()
        size, mount = int(lines[-1].split()[1]), lines[-1].split()[5]
        if mount.rstrip("/") != path.rstrip("/"):
            raise BadInput(f"{path} in Pod {pod} is not a volume of its own (it lies in {mount})")
        if size > LARGEST * 1024:
            raise BadInput(
                f"{path} in Pod {pod} has {size // 1024} MiB, which may be the node's own disk", f"At most {LARGEST} MiB are filled"
            )
        return {**plan, "file": f"{path.rstrip('/')}/core.dump"}

    def do(self, lab: Workspace, plan: Plan) -> None:
        self.sh(lab, plan, f"cat /dev/zero > {shlex.quote(plan['file'])} 2>/dev/null; test -s {shlex.quote(plan['file'])}")

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if self.same(lab, plan):
            self.sh(lab, plan, f"rm -f {shlex.quote(plan['file'])}", check=False)

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        return self.same(lab, plan) and bool(self.sh(lab, plan, f"test -s {shlex.quote(plan['file'])}", check=False).ok)


class FileLost(InPod):
    name = "file-lost"
    about = "a file in a container is gone, such as the one that a readiness probe looks for"

    def plan(self, lab: Workspace, *, pod: str, path: str, container: str = "") -> Plan:
        plan = {**self.where(lab, pod, container), "path": path}
        text = self.sh(lab, plan, f"base64 {shlex.quote(path)}").stdout
        return {**plan, "content": base64.b64encode(base64.b64decode(text)).decode()}

    def do(self, lab: Workspace, plan: Plan) -> None:
        self.sh(lab, plan, f"rm {shlex.quote(plan['path'])}")

    def undo(self, lab: Workspace, plan: Plan) -> None:
        if self.holds(lab, plan):
            self.sh(lab, plan, f"echo {plan['content']} | base64 -d > {shlex.quote(plan['path'])}", check=False)

    def holds(self, lab: Workspace, plan: Plan) -> bool:
        return self.same(lab, plan) and not self.sh(lab, plan, f"test -e {shlex.quote(plan['path'])}", check=False).ok


FAULTS: list[Fault] = [DiskFull(), FileLost()]
