"""The way to the nodes of a cluster that is not ours: none, or a privileged Pod on each that steps into the node's namespaces.

Such a Pod is root on its node, so it is made only after the user allowed it, when a command is first sent there, in a namespace of its
own that carries our label; `lab down` and `lab reset` remove it.
"""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord
from lab_utils.errors import CommandFailed, NoNodeAccess, Unhealthy
from lab_utils.providers.files import FilesByCommands
from lab_utils.run import Result, run

NAMESPACE = "kubernetes-inside-out-nodes"
OURS = "kubernetes-inside-out/made"  # the label of what this package makes beside labs
SPARE = 20  # seconds for the API server beside the command's own time
ENDED = re.compile(r"command terminated with exit code \d+\n?\Z")  # kubectl's own last words
# The node's own nsenter, seen through its process 1: the image then needs nothing but a chroot.
INTO = ["chroot", "/proc/1/root", "nsenter", "--target=1", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]


class NoNode(Node):
    """A node that is seen through the API alone."""

    reachable = False

    def __init__(self, cluster: ClusterRecord, record: NodeRecord) -> None:
        super().__init__(record)
        self.cluster = cluster.name

    def refused(self) -> NoNodeAccess:
        return NoNodeAccess(
            f"cluster {self.cluster!r} gives no access to its nodes",
            f"`lab up --provider kubeconfig --name {self.cluster} --node-access debug` allows a privileged Pod on each",
        )

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        raise self.refused()

    def put(self, source: Any, target: str, mode: int = 0o644) -> None:
        raise self.refused()

    def get(self, source: str) -> bytes:
        raise self.refused()


class DebugNode(FilesByCommands):
    def __init__(self, cluster: ClusterRecord, record: NodeRecord) -> None:
        super().__init__(record)
        self.cluster = Cluster(cluster, [])
        self.pod = f"node-{self.name}"[:253]
        self._ready = False
        self._lock = threading.Lock()

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        self.ensure()
        words = ["bash", "-c", cmd] if isinstance(cmd, str) else list(cmd)
        # The limit holds on the node: a kubectl that is killed leaves its process running there.
        limit = ["timeout", "--kill-after=2", f"{timeout:g}"]
        begun = monotonic()
        stream = ["--stdin"] if input is not None else []
        said = run(self._exec(stream, [*INTO, *limit, *words]), input=input, check=False, timeout=timeout + SPARE)
        if said.code != 0:
            said = Result(said.stdout, ENDED.sub("", said.stderr), said.code)
        if said.code in (124, 137) and monotonic() - begun >= timeout:
            said = Result(said.stdout, f"{said.stderr}\nended after {timeout:g} s", 124)
        if check and not said.ok:
            line = cmd if isinstance(cmd, str) else shlex.join(cmd)
            raise CommandFailed(["lab", "ssh", self.name, "--", line], said.code, said.stdout, said.stderr)
        return said

    def _exec(self, streams: list[str], words: list[str]) -> list[str | Path]:
        record = self.cluster.record
        where = ["--kubeconfig", record.kubeconfig, "exec", "--namespace", NAMESPACE, *streams, self.pod]
        return [record.kubectl, *where, "--", *words]

    def ensure(self) -> None:
        """Make the Pod, unless it is there; once per process it is looked for."""
        with self._lock:
            if self._ready:
                return
            said = self.cluster.kubectl("get", "pod", "-n", NAMESPACE, self.pod, "-o", "jsonpath={.status.phase}", check=False)
            if said.stdout.strip() != "Running":
                self.cluster.apply(manifest(self.name, self.pod))
                try:
                    self.cluster.wait(f"pod/{self.pod} condition=Ready -n {NAMESPACE}", timeout=120)
                except Unhealthy as error:
                    raise Unhealthy(
                        f"the Pod that reaches node {self.name} does not start: {error.what}",
                        f"See `kubectl -n {NAMESPACE} describe pod {self.pod}`",
                    ) from None
            self._ready = True

    def enter(self, words: list[str], terminal: bool) -> list[str]:
        """The command line of a shell, or of one command, on the node."""
        self.ensure()
        inner = ["bash", "-c", *words] if len(words) == 1 else words or ["bash", "-l"]
        return [str(word) for word in self._exec(["--stdin", *(["--tty"] if terminal else [])], [*INTO, *inner])]


def manifest(node: str, pod: str) -> list[dict[str, Any]]:
    labels = {OURS: "yes"}
    privileged = {"pod-security.kubernetes.io/enforce": "privileged"}
    container = {
        "name": "node",
        "image": pinned().image("busybox").name,
        "command": ["sleep", "infinity"],
        "securityContext": {"privileged": True},
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {**labels, **privileged}}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": NAMESPACE, "labels": labels},
            "spec": {
                "nodeName": node,
                "hostPID": True,
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "tolerations": [{"operator": "Exists"}],
                "containers": [container],
            },
        },
    ]
