"""The cluster as notebooks, checks and the grader see it, and nothing else they need.

Vocabulary
    cluster   a Kubernetes cluster with a name; every cluster was made by kubeadm
    node      one machine of it: `cp` is the control plane, `w1`, `w2`, … are the workers
    provider  what makes clusters of one kind: embedded, vagrant, kind, kubeconfig
    record    `clusters/NAME/cluster.json` in the state folder: all that `connect` needs

    cluster = connect()                      # the running cluster, or the one named
    cluster.node("w1").run("crictl ps")      # Result(stdout, stderr, code)
    cluster.kubectl("get", "pods", "-A")
    cluster.api.list_node()                  # the official client's CoreV1Api
"""

from __future__ import annotations

import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_utils import proxies
from lab_utils.errors import BadInput, HostLacks, LabError, NoSuchCluster, Unhealthy
from lab_utils.paths import state_dir
from lab_utils.run import Result, run_kubectl

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, AppsV1Api, CoreV1Api

    from lab_utils.iptables import Ruleset

DEFAULT_NAME = "lab"


@dataclass(frozen=True)
class NodeRecord:
    name: str
    ip: str
    role: str  # "control-plane" or "worker"
    access: dict[str, Any] = field(default_factory=dict)  # what the provider's transport needs

    @property
    def patience(self) -> float:
        """How many times longer than elsewhere to wait for anything on this node: its processor may be emulated."""
        return float(self.access.get("patience", 1))


@dataclass(frozen=True)
class ClusterRecord:
    """What is written down about a cluster. `state` goes creating → up; a half-made one stays `creating`."""

    name: str
    provider: str
    state: str
    kubeconfig: str
    nodes: list[NodeRecord]
    kubernetes: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    kubectl: str = "kubectl"

    @property
    def folder(self) -> Path:
        return cluster_dir(self.name)

    def save(self) -> None:
        """Write the record whole or not at all: a reader never sees half of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / "cluster.json"
        draft = target.with_suffix(".json.new")
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(target)

    def but(self, **changes: Any) -> ClusterRecord:
        return replace(self, **changes)


def cluster_dir(name: str) -> Path:
    return state_dir() / "clusters" / name


def read_record(path: Path) -> ClusterRecord:
    try:
        return record_from(json.loads(path.read_text()))
    except (ValueError, RecursionError) as error:
        at_home = path.parent.parent == state_dir() / "clusters"
        mend = f"Remove the cluster with `lab down --name {path.parent.name}` and make it anew" if at_home else ""
        raise BadInput(f"{path} is not a cluster record ({error})", mend) from None


def record_from(data: Any) -> ClusterRecord:
    """A record, of what JSON holds. Pure. What another version wrote beside our fields is left out; a wrong shape is a ValueError."""
    said = _shaped(data, ClusterRecord, "the record")
    nodes = [NodeRecord(**_shaped(node, NodeRecord, f"node {number}")) for number, node in enumerate(said.pop("nodes"), 1)]
    for node in nodes:
        _check_access(node)
    return ClusterRecord(nodes=nodes, **said)


SHAPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "nodes": (list, "a list"),
    "access": (dict, "an object"),
    "options": (dict, "an object"),
    "port": (int, "a number"),
    "patience": ((int, float), "a number"),
}  # and all else is text


def _shaped(data: Any, kind: type[ClusterRecord] | type[NodeRecord], what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{what} is no object")
    wanted = [each.name for each in fields(kind)]
    optional = {"kubernetes", "options", "kubectl", "access"}
    if missing := [name for name in wanted if name not in data and name not in optional]:
        raise ValueError(f"{what} has no {', no '.join(missing)}")
    found = {name: data[name] for name in wanted if name in data}
    _check(found, what)
    return found


def _check(values: Mapping[str, Any], what: str) -> None:
    for name, value in values.items():
        shape, words = SHAPES.get(name, (str, "text"))
        if not isinstance(value, shape) or isinstance(value, bool):
            raise ValueError(f"{name} of {what} is not {words}")
        if isinstance(value, str) and "\0" in value:  # no program could be given it
            raise ValueError(f"{name} of {what} holds a zero byte")


def _check_access(node: NodeRecord) -> None:
    """What every provider means by the same words; the rest is its own."""
    shared = ("key", "host_key", "user", "address", "port", "patience", "closed")
    _check({name: node.access[name] for name in shared if name in node.access}, f"node {node.name}")
    if not 0 < node.access.get("patience", 1) < 1e6:
        raise ValueError(f"patience of node {node.name} is out of range")


def load_record(name: str) -> ClusterRecord:
    path = cluster_dir(name) / "cluster.json"
    if not path.exists():
        known = ", ".join(known_clusters()) or "none"
        raise NoSuchCluster(f"there is no cluster named {name!r} here (known: {known})", f"Start it with `lab up --name {name}`")
    record = read_record(path)
    if record.name != name:  # the folder that a record names is removed by `down`
        raise BadInput(f"{path} is the record of another cluster, {record.name!r}", f"Remove it with `lab down --name {name}`")
    return record


def past_proxies(record: ClusterRecord, environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to this environment so that the cluster's own addresses are not asked of a proxy. Clusters that we make are on this
    machine. Somebody's own may be reachable through the proxy alone: there the user's environment stays as it is."""
    return proxies.around(own_addresses(record), environment) if is_ours(record) else {}


def is_ours(record: ClusterRecord) -> bool:
    return record.provider != "kubeconfig"


def own_addresses(record: ClusterRecord) -> list[str]:
    """The API server's, as the kubeconfig has it, and the nodes'."""
    return list(dict.fromkeys([*proxies.servers_of(Path(record.kubeconfig)), *(node.ip for node in record.nodes)]))


def readable_records() -> tuple[list[ClusterRecord], list[LabError]]:
    """The records of all clusters, and what is wrong with those that cannot be read."""
    records, problems = [], []
    for name in known_clusters():
        try:
            records.append(load_record(name))
        except LabError as error:
            problems.append(error)
    return records, problems


def known_clusters() -> list[str]:
    return sorted(path.parent.name for path in (state_dir() / "clusters").glob("*/cluster.json"))


class Node(ABC):
    """One machine of a cluster. Providers say how to reach it; what can be seen on it is the same everywhere."""

    reachable = True  # False where the cluster is used through its API alone: every command then raises NoNodeAccess

    def __init__(self, record: NodeRecord) -> None:
        self.name = record.name
        self.ip = record.ip
        self.role = record.role
        self.patience = record.patience

    @abstractmethod
    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        """Run a command as root. A string is given to the node's shell; a list is run word by word.

        With `check`, a code other than 0 raises `CommandFailed`; so does a timeout, as code 124.
        """

    @abstractmethod
    def put(self, source: Path | bytes, target: str, mode: int = 0o644) -> None:
        """Copy a file, or bytes, from here to a path on the node."""

    @abstractmethod
    def get(self, source: str) -> bytes:
        """Read a file of the node."""

    def iptables(self, *, ipv6: bool = False) -> Ruleset:
        """All rules of the node's own network namespace, parsed."""
        from lab_utils.iptables import parse

        return parse(self.run("ip6tables-save" if ipv6 else "iptables-save", check=True).stdout)

    def links(self) -> list[dict[str, Any]]:
        """Network devices as `ip -j -d link` tells them."""
        return list(json.loads(self.run("ip -j -d link", check=True).stdout or "[]"))

    def processes(self) -> list[Process]:
        """Every process of the node, of its containers too."""
        text = self.run("ps -eo pid=,ppid=,user:32=,args= -ww", check=True).stdout
        return [Process.from_ps(line) for line in text.splitlines() if line.strip()]

    def containers(self) -> list[dict[str, Any]]:
        """Running containers as `crictl ps -o json` tells them (pause containers are sandboxes, not listed here)."""
        return list(json.loads(self.run("crictl ps -o json", check=True).stdout).get("containers") or [])

    def sandboxes(self) -> list[dict[str, Any]]:
        """Pod sandboxes as `crictl pods -o json` tells them: each is held open by a pause container."""
        return list(json.loads(self.run("crictl pods -o json", check=True).stdout).get("items") or [])

    def images(self) -> set[str]:
        """Names of the images that it has."""
        listed = json.loads(self.run("crictl images -o json", check=True).stdout).get("images") or []
        return {tag for image in listed for tag in image.get("repoTags") or []}

    def close(self) -> None:  # noqa: B027  (a node without a connection has nothing to do)
        """Let go of whatever connection is held. A later `run` opens it again."""

    def __repr__(self) -> str:
        return f"<node {self.name} {self.ip}>"


@dataclass(frozen=True)
class Process:
    pid: int
    ppid: int
    user: str
    args: str

    @classmethod
    def from_ps(cls, line: str) -> Process:
        pid, ppid, user, args = line.split(None, 3)
        return cls(int(pid), int(ppid), user, args)


class Cluster:
    """A running cluster: its nodes, its API and a few verbs."""

    def __init__(self, record: ClusterRecord, nodes: Sequence[Node]) -> None:
        self.record = record
        self.name = record.name
        self.provider = record.provider
        self.kubeconfig = Path(record.kubeconfig)
        self.nodes = list(nodes)
        self.patience = max([node.patience for node in record.nodes], default=1.0)

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise BadInput(f"cluster {self.name!r} has no node {name!r}", f"It has: {', '.join(n.name for n in self.nodes)}")

    @property
    def workers(self) -> list[Node]:
        return [node for node in self.nodes if node.role == "worker"]

    @cached_property
    def client(self) -> ApiClient:
        """The official client, for any of its APIs: `kubernetes.client.NetworkingV1Api(cluster.client)`."""
        from kubernetes import client, config

        settings = client.Configuration()  # with the proxy of the environment, and of macOS' own settings
        if is_ours(self.record):
            settings.no_proxy = proxies.joined(own_addresses(self.record), settings.no_proxy or "")
        made: ApiClient = config.new_client_from_config(config_file=str(self.kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
        return made

    @cached_property
    def api(self) -> CoreV1Api:
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self.client)

    @cached_property
    def apps(self) -> AppsV1Api:
        from kubernetes.client import AppsV1Api

        return AppsV1Api(self.client)

    def kubectl(self, *words: str, input: str | None = None, check: bool = True, timeout: float = 120) -> Result:
        """kubectl, with the rights of an administrator. Both deadlines are as patient as the cluster's nodes need it: ours, and the one
        that kubectl is given (`--timeout=60s` of wait, rollout status and delete)."""
        timeout *= self.patience
        words = patiently(words, self.patience)
        argv = [self.record.kubectl, "--kubeconfig", str(self.kubeconfig), *words]
        direct = past_proxies(self.record, os.environ)
        return run_kubectl(argv, patience=self.patience, timeout=timeout, input=input, env=direct, check=check)

    def get(self, *words: str) -> Any:
        """`kubectl get … -o json`, as Python values."""
        return json.loads(self.kubectl("get", *words, "-o", "json").stdout)

    def apply(self, manifest: str | Path | dict[str, Any] | Sequence[dict[str, Any]], namespace: str | None = None) -> Result:
        """Apply YAML text, a file, or objects, by server-side apply."""
        text = manifest_text(manifest)
        place = ["--namespace", namespace] if namespace else []
        return self.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=lab", *place, "-f", "-", input=text)

    def delete(self, manifest: str | Path | dict[str, Any] | Sequence[dict[str, Any]], namespace: str | None = None) -> Result:
        place = ["--namespace", namespace] if namespace else []
        return self.kubectl("delete", "--ignore-not-found", *place, "-f", "-", input=manifest_text(manifest))

    def wait(self, what: str | Callable[[], Any], *, timeout: float = 120, every: float = 0.2, why: str = "") -> Any:
        """Wait until `what` holds: a kubectl condition ("pod/web condition=Ready -n shop") or a function that returns something true.

        Returns what the function returned. Raises `Unhealthy` with `why` when the time is over.
        """
        limit = timeout * self.patience
        if isinstance(what, str):
            target, condition, *rest = what.split()
            done = self.kubectl("wait", target, f"--for={condition}", f"--timeout={timeout:g}s", *rest, check=False, timeout=timeout + 10)
            if not done.ok:
                raise Unhealthy(why or f"{target} did not reach {condition} within {limit:g} s: {done.stderr.strip()}")
            return done
        deadline = time.monotonic() + limit
        while True:
            value = what()
            if value:
                return value
            if time.monotonic() > deadline:
                raise Unhealthy(why or f"what was waited for did not happen within {limit:g} s")
            time.sleep(every)

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def __repr__(self) -> str:
        return f"<cluster {self.name} ({self.provider}): {', '.join(n.name for n in self.nodes)}>"


def patiently(words: Sequence[str], factor: float) -> tuple[str, ...]:
    """kubectl's words with its deadline that many times later. What follows `--` is another program's."""
    if factor == 1:
        return tuple(words)
    own = list(words).index("--") if "--" in words else len(words)
    said = [re.fullmatch(r"(--(?:request-)?timeout=)(\d+(?:\.\d+)?)(s|m)", word) for word in words[:own]]
    later = [f"{one[1]}{float(one[2]) * factor:g}{one[3]}" if one else word for one, word in zip(said, words, strict=False)]
    return (*later, *words[own:])


def manifest_text(manifest: str | Path | dict[str, Any] | Sequence[dict[str, Any]]) -> str:
    """YAML or JSON that kubectl reads, from any of the forms that people hold a manifest in."""
    if isinstance(manifest, Path):
        return manifest.read_text()
    if isinstance(manifest, str):
        return manifest
    objects = [manifest] if isinstance(manifest, dict) else list(manifest)
    # The leading line makes it YAML: a kubectl that takes it for JSON (1.32 does) stumbles over the second one.
    return "".join(f"---\n{json.dumps(item)}\n" for item in objects)


def connect(name: str | None = None) -> Cluster:
    """The cluster of that name; without one, `$LAB_CLUSTER`, the only one there is, or the one named "lab".

    `$LAB_CLUSTER_FILE` names a record directly: the grader hands a restricted one to a notebook that way.
    """
    from lab_utils.providers import node_for

    if name is None and (said := os.environ.get("LAB_CLUSTER_FILE")):
        record = read_record(Path(said))
    else:
        record = load_record(name or the_obvious_one())
    if record.state != "up":
        raise Unhealthy(
            f"cluster {record.name!r} is not finished (it is {record.state})",
            f"Run `lab down --name {record.name}`, then `lab up --name {record.name}`",
        )
    return Cluster(record, [node_for(record, node) for node in record.nodes])


def the_obvious_one() -> str:
    """The name that is meant when none is given."""
    if said := os.environ.get("LAB_CLUSTER"):
        return said
    known = known_clusters()
    if DEFAULT_NAME in known or not known:
        if not known:
            raise NoSuchCluster("there is no cluster here", "Start one with `lab up`")
        return DEFAULT_NAME
    if len(known) > 1:
        raise HostLacks(f"several clusters run here: {', '.join(known)}", 'Say which one: connect("NAME"), or --name NAME')
    return known[0]
