"""Where a chapter of the book plays: an empty namespace of its own on the running cluster, and three verbs.

    stage = Stage("book-03")
    stage.apply(yaml); stage.kubectl("get pods"); stage.on("w1", "crictl ps")

Each verb prints what the command said, as a terminal would. The plain calls beneath it are in `lab_utils.cluster`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any

from lab_utils.cluster import Cluster, connect
from lab_utils.errors import BadInput
from lab_utils.volumes import Volume, look


class Stage:
    def __init__(self, namespace: str, cluster: Cluster | None = None) -> None:
        if not namespace.startswith("book-"):
            raise BadInput(f"{namespace!r} is not a namespace of the book", "Its namespaces begin with book-")  # it is emptied first
        self.cluster = cluster or connect()
        self.namespace = namespace
        self.empty()
        self.cluster.kubectl("create", "namespace", namespace)
        # A Pod is refused until the controller manager has made the namespace's ServiceAccount.
        self.cluster.wait(lambda: self.quietly("get serviceaccount default --ignore-not-found -o name"), timeout=60)

    def quietly(self, command: str) -> str:
        """kubectl in the namespace; what it said is returned instead of printed."""
        return self.cluster.kubectl("--namespace", self.namespace, *shlex.split(command)).stdout

    def kubectl(self, command: str) -> None:
        print(self.quietly(command), end="")

    def get(self, what: str) -> Any:
        return json.loads(self.quietly(f"get {what} -o json"))

    def apply(self, manifest: str) -> None:
        print(self.cluster.apply(manifest, self.namespace), end="")

    def on(self, node: str, command: str) -> None:
        """Run a shell command on a node, as root."""
        print(self.cluster.node(node).run(command, check=True), end="")

    def exec(self, pod: str, command: str, container: str = "") -> str:
        """Run a shell command in a container; returns what it said."""
        chosen = ["--container", container] if container else []
        words = ["exec", pod, *chosen, "--", "sh", "-c", command]
        return self.cluster.kubectl("--namespace", self.namespace, *words).stdout

    def inside(self, where: str, command: str) -> None:
        """Run a shell command in a container: "POD/CONTAINER", or "POD" when it has only one."""
        pod, _, container = where.partition("/")
        print(self.exec(pod, command, container), end="")

    def wait(self, what: str | Callable[[], Any], *, timeout: float = 120) -> None:
        """Wait for a function to return something true, or for a condition such as "pod/web condition=Ready"."""
        self.cluster.wait(f"{what} --namespace {self.namespace}" if isinstance(what, str) else what, timeout=timeout)

    def ready(self, *pods: str, timeout: float = 120) -> None:
        for pod in pods:
            self.wait(f"pod/{pod} condition=Ready", timeout=timeout)

    def empty(self) -> None:
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found")

    def close(self) -> None:
        """Remove the namespace with all that is in it, and wait: the next chapter may compare nodes with what it finds now."""
        self.empty()
        # A volume outlives its claim, and a Pod may be on a node to empty it. Nobody empties those that have `Failed` (chapter 12).
        self.cluster.wait(lambda: not any(_will_be_deleted(chain.volume) for chain in look(self.cluster, self.namespace)), timeout=60)


def _will_be_deleted(volume: Volume | None) -> bool:
    return volume is not None and volume.policy == "Delete" and volume.phase in ("Bound", "Released")
