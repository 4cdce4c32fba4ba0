"""The way to the nodes of a cluster that is not ours: none, or a privileged Pod on each that steps into the node's namespaces.

Such a Pod is root on its node, so it is made only after the user allowed it, when a command is first sent there, in a namespace of its
own that carries our label; `lab down` and `lab reset` remove it.
"""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster, ClusterRecord, NodeRecord
from lab_utils.errors import CommandFailed, Unhealthy
from lab_utils.providers.closed import ClosedNode
from lab_utils.providers.files import FilesByCommands
from lab_utils.run import Result, last_line, run

NAMESPACE = "kubernetes-inside-out-nodes"
OURS = "kubernetes-inside-out/made"  # the label of what this package makes beside labs
SPARE = 20  # seconds for the API server beside the command's own time
ENDED = re.compile(r"command terminated with exit code (\d+)\n?\Z")  # kubectl's own last words, when the code is the command's
# And those with which it, the API server or the kubelet turned the request down before anything was started on the node.
UNSTARTED = re.compile(
    r"Error from server \(|The connection to the server \S+ was refused|Unable to connect to the server: dial "
    r"|unable to upgrade connection: |cannot exec into a container in a completed pod"
)
# The node's own nsenter, seen through its process 1: the image then needs nothing but a chroot.
INTO = ["chroot", "/proc/1/root", "nsenter", "--target=1", "--mount", "--uts", "--ipc", "--net", "--pid", "--"]


def closed(cluster: ClusterRecord, record: NodeRecord) -> ClosedNode:
    """A node of a cluster whose user did not allow the Pods."""
    return ClosedNode(
        record,
        f"cluster {cluster.name!r} gives no access to its nodes",
        f"`lab up --provider kubeconfig --name {cluster.name} --node-access debug` allows a privileged Pod on each",
    )


class DebugNode(FilesByCommands):
    def __init__(self, cluster: ClusterRecord, record: NodeRecord) -> None:
        super().__init__(record)
        self.cluster = Cluster(cluster, [])
        self.pod = f"node-{self.name}"[:253]
        self._uid = ""  # of the Pod that was found Running
        self._lock = threading.Lock()

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        words = ["bash", "-c", cmd] if isinstance(cmd, str) else list(cmd)
        try:
            said = self._run(words, timeout, input)
        except _Unstarted:  # then it may be sent again: the Pod may have been removed since it was found (`lab reset`), or evicted
            said = self._run(words, timeout, input)
        if check and not said.ok:
            line = cmd if isinstance(cmd, str) else shlex.join(cmd)
            raise CommandFailed(["lab", "ssh", self.name, "--", line], said.code, said.stdout, said.stderr)
        return said

    def _run(self, words: list[str], timeout: float, input: str | bytes | None) -> Result:
        """What the command said, once. What kubectl says of itself is no answer of it."""
        uid = self.ensure()
        # The limit holds on the node: a kubectl that is killed leaves its process running there.
        limit = ["timeout", "--kill-after=2", f"{timeout:g}"]
        begun = monotonic()
        stream = ["--stdin"] if input is not None else []
        said = run(self._exec(stream, [*INTO, *limit, *words]), input=input, check=False, timeout=timeout + SPARE)
        late = said.code in (124, 137) and monotonic() - begun >= timeout
        why = of_kubectl(said)
        if why or late:
            self._uid = ""  # looked for anew by the next command
        if late:
            return Result(said.stdout, f"{ENDED.sub('', said.stderr)}\nended after {timeout:g} s", 124)
        if said.code == 137 and not why and self._running() != uid:  # the same code as that of a command that somebody killed
            self._uid = ""
            why = f"the Pod {self.pod} was removed while a command ran"
        if why:
            kind = _Unstarted if unstarted(said) else Unhealthy
            mend = f"See `lab status`, and `kubectl -n {NAMESPACE} describe pod {self.pod}`"
            raise kind(f"node {self.name} cannot be reached by its Pod: {why}", mend)
        return said if said.ok else Result(said.stdout, ENDED.sub("", said.stderr), said.code)

    def _exec(self, streams: list[str], words: list[str]) -> list[str | Path]:
        record = self.cluster.record
        where = ["--kubeconfig", record.kubeconfig, "exec", "--namespace", NAMESPACE, *streams, self.pod]
        return [record.kubectl, *where, "--", *words]

    def ensure(self) -> str:
        """Make the Pod, unless it is there, and return its uid. It is looked for once per process, and after each failure."""
        with self._lock:
            self._uid = self._uid or self._running() or self._made()
            return self._uid

    def _found(self) -> dict[str, Any]:
        said = self.cluster.kubectl("get", "pod", "-n", NAMESPACE, self.pod, "--ignore-not-found", "-o", "json", check=False)
        if not said.ok:
            raise Unhealthy(f"node {self.name} cannot be reached by its Pod: {last_line(said.stderr)}", "See `lab status`")
        return dict(json.loads(said.stdout or "{}"))

    def _running(self) -> str:
        return usable(self._found())

    def _made(self) -> str:
        phase = self.cluster.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "jsonpath={.status.phase}", check=False)
        if phase.stdout.strip() == "Terminating":  # another command is at `reset`
            self.cluster.wait(f"namespace/{NAMESPACE} delete", timeout=120)
        if spent(self._found()):
            self.cluster.kubectl("delete", "pod", "-n", NAMESPACE, self.pod, "--ignore-not-found", "--timeout=60s")
        note_made(self.cluster.record, self.pod)
        self.cluster.apply(manifest(self.name, self.pod))
        try:
            self.cluster.wait(f"pod/{self.pod} condition=Ready -n {NAMESPACE}", timeout=120)
        except Unhealthy as error:
            raise Unhealthy(
                f"the Pod that reaches node {self.name} does not start: {error.what}",
                f"See `kubectl -n {NAMESPACE} describe pod {self.pod}`",
            ) from None
        return self._running()

    def enter(self, words: list[str], terminal: bool) -> list[str]:
        """The command line of a shell, or of one command, on the node."""
        self.ensure()
        inner = ["bash", "-c", *words] if len(words) == 1 else words or ["bash", "-l"]
        return [str(word) for word in self._exec(["--stdin", *(["--tty"] if terminal else [])], [*INTO, *inner])]


class _Unstarted(Unhealthy):
    """kubectl failed before the command can have been started."""


def of_kubectl(said: Result) -> str:
    """What kubectl says of itself where it did not bring the command's own end; else nothing. Pure."""
    ended = ENDED.search(said.stderr)
    return "" if said.ok or (ended and int(ended[1]) == said.code) else last_line(said.stderr)


def unstarted(said: Result) -> bool:
    """Whether nothing of the command can have happened. Pure."""
    return not said.stdout and bool(UNSTARTED.match(of_kubectl(said)))


def usable(pod: dict[str, Any]) -> str:
    """The uid of a Pod that commands can be sent to; else nothing. Pure."""
    there = pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
    return str(pod["metadata"]["uid"]) if there else ""


def spent(pod: dict[str, Any]) -> bool:
    """Whether a Pod is there that will never run (again), and that an `apply` would leave as it is. Pure."""
    return bool(pod) and ("deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") not in ("Pending", "Running"))


NOTES = "node-pods"  # in a cluster's folder


def note_made(record: ClusterRecord, pod: str) -> None:
    """Written down before it is made: when the cluster cannot be reached any more, `lab down` has to say what stays there."""
    record.folder.mkdir(parents=True, exist_ok=True)
    with (record.folder / NOTES).open("a") as file:
        file.write(f"{pod}\n")


def made(record: ClusterRecord) -> list[str]:
    """The Pods that may be there."""
    return made_in(record.folder)


def made_in(folder: Path) -> list[str]:
    return sorted(set((folder / NOTES).read_text().split())) if (folder / NOTES).exists() else []


def forget_made(record: ClusterRecord) -> None:
    (record.folder / NOTES).unlink(missing_ok=True)


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
