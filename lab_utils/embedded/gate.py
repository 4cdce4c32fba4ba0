"""When is a cluster up? Asked of the cluster itself, at the places that matter.

Not of the static Pods' Ready condition: it lags by the ten seconds of their probes. "Up" means that the API server
answers /readyz, every node is Ready and takes Pods, the default ServiceAccount is there (without it no Pod is admitted),
CoreDNS is available, and a Pod on each node that runs CoreDNS answers from every other node.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lab_utils import proxies
from lab_utils.embedded.node import inside
from lab_utils.embedded.patience import patience
from lab_utils.embedded.state import State
from lab_utils.errors import CommandFailed, Unhealthy
from lab_utils.progress import Progress
from lab_utils.run import Result, run_kubectl

AWAY = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}


class Known(Protocol):
    """What the gate must know of a cluster."""

    @property
    def name(self) -> str: ...
    @property
    def nodes(self) -> list[str]: ...


@dataclass
class Gate:
    """Waits for one cluster. Of nodes that were `restarted`, only what was said after `since` (seconds of the epoch)
    counts: etcd still holds the Ready of the life before."""

    state: Known
    kubectl_path: str
    kubeconfig: str
    progress: Progress
    since: float = 0.0
    restarted: frozenset[str] = frozenset()
    factor: float = field(default_factory=patience)

    @property
    def seconds(self) -> float:
        return 240 * self.factor

    def on_node(self, node: str, words: list[str]) -> Result:
        """Run something on a node; another provider has another way to it."""
        assert isinstance(self.state, State)
        return inside(self.state, node, words, check=False)

    def kubectl(self, *words: str, check: bool = True, input: str | None = None) -> Result:
        argv = [self.kubectl_path, "--kubeconfig", self.kubeconfig, *words]
        direct = proxies.around(proxies.servers_of(Path(self.kubeconfig)), os.environ)
        return run_kubectl(argv, patience=self.factor, timeout=60 * self.factor, input=input, env=direct, check=check)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json").stdout)

    def until(self, what: str, holds: Callable[[], str], every: float = 0.15) -> None:
        """Ask until `holds` returns "" (nothing is missing); what it returns otherwise says what is.

        A question is a process, which on an emulated machine takes seconds: whoever asks there without a pause gets no answer sooner.
        """
        deadline = time.monotonic() + self.seconds
        missing = ""
        while (asked := time.monotonic()) < deadline:
            if not (missing := _asked(holds)):
                return
            time.sleep(max(every, 5 * (time.monotonic() - asked)) if self.factor > 1 else every)
        raise Unhealthy(
            f"{what} did not come about within {self.seconds:.0f} s: {missing}", f"Look with `lab diagnose --name {self.state.name}`"
        )

    def api(self) -> None:
        self.until(
            "a ready API server", lambda: "" if self.kubectl("get", "--raw=/readyz", check=False).ok else "/readyz does not answer yet"
        )

    def token(self, token: str) -> None:
        """Until a joining node can trust what it reads: the controller-manager signs it with the token. kubeadm looks for the signature
        every five seconds (DiscoveryRetryInterval in cmd/kubeadm/app/constants)."""
        sign = f"jws-kubeconfig-{token.partition('.')[0]}"

        def missing() -> str:
            signed = sign in self.get("configmap", "cluster-info", "-n", "kube-public")["data"]
            return "" if signed else "the controller-manager has not signed cluster-info yet"

        self.until("a token that nodes can join with", missing)

    def everything(self) -> None:
        for what, holds in self.conditions().items():
            self.until(what, holds)

    def missing(self) -> str:
        """The first thing that is missing right now, and "" of a cluster that is up."""
        return next((said for holds in self.conditions().values() if (said := _asked(holds))), "")

    def conditions(self) -> dict[str, Callable[[], str]]:
        """In the order in which they come about; each tells what is missing of it."""
        return {
            "nodes Ready": self.nodes_missing,
            "the default ServiceAccount": self.account_missing,
            "CoreDNS": self.coredns_missing,
            "kube-proxy": self.proxies_missing,
            "traffic between the nodes": self.traffic_missing,
        }

    def nodes_missing(self) -> str:
        there = {node["metadata"]["name"]: node for node in self.get("nodes")["items"]}
        late = [name for name in self.state.nodes if name not in there or not self._ready(there[name])]
        if late:
            return f"not Ready: {', '.join(late)}"
        shunned = [name for name in self.state.nodes if still_shunned(there[name])]
        return f"still tainted as not Ready: {', '.join(shunned)}" if shunned else ""

    def account_missing(self) -> str:
        return "" if self.kubectl("get", "serviceaccount", "default", check=False).ok else "the ServiceAccount is not made yet"

    def coredns_missing(self) -> str:
        wanted = self.get("deployment", "coredns", "-n", "kube-system")["spec"]["replicas"]
        ready = [pod for pod in self.coredns_pods() if self._pod_ready(pod)]
        return "" if len(ready) >= wanted else f"{len(ready)} of {wanted} CoreDNS Pods are ready"

    def coredns_pods(self) -> list[dict[str, Any]]:
        return list(self.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"])

    def proxies_missing(self) -> str:
        """Does kube-proxy itself see to the rules by now? Those of a node's life before carry traffic, and know no new Service."""
        for node in self.state.nodes:
            said = self.on_node(node, ["curl", "-s", "--max-time", f"{2 * self.factor:g}", "http://127.0.0.1:10256/healthz"])
            if not proxy_has_synced(said.stdout):
                return f"kube-proxy on {node} has not written its rules yet"
        return ""

    def traffic_missing(self) -> str:
        """From each node, the readiness page of every ready CoreDNS Pod: on other nodes that goes through the Pod network. One more may be
        there that has failed, or that has no address yet."""
        addresses = [pod["status"]["podIP"] for pod in self.coredns_pods() if self._pod_ready(pod)]
        curl = f"curl -sf -o /dev/null --max-time {2 * self.factor:g}"
        script = "".join(f"{curl} http://{address}:8181/ready || echo {address};" for address in addresses)
        for node in self.state.nodes:
            said = self.on_node(node, ["sh", "-c", script])
            if (said.stdout.strip() or said.stderr.strip()) and not kept_free(self.get("node", node)):
                return f"from node {node}, no answer of {said.stdout.split() or said.stderr.strip()}"
        return ""

    def _ready(self, node: dict[str, Any]) -> bool:
        said = [c for c in node["status"].get("conditions", []) if c["type"] == "Ready" and c["status"] == "True"]
        return any(_epoch(c.get("lastHeartbeatTime")) >= self._since(node["metadata"]["name"]) for c in said)

    def _pod_ready(self, pod: dict[str, Any]) -> bool:
        if pod["metadata"].get("deletionTimestamp") or not pod["status"].get("podIP"):
            return False
        running = [c.get("state", {}).get("running", {}) for c in pod["status"].get("containerStatuses", [])]
        fresh = bool(running) and all(_epoch(state.get("startedAt")) >= self._since(pod["spec"]["nodeName"]) for state in running)
        return fresh and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))

    def _since(self, node: str) -> float:
        return self.since if node in self.restarted else 0.0


def still_shunned(node: dict[str, Any]) -> bool:
    """A node says itself that it is Ready; the controller that had tainted it takes the taint off when it looks again, up to five seconds
    later (--node-monitor-period of kube-controller-manager). Until then no Pod is scheduled there. Pure."""
    return any(taint["key"] in AWAY for taint in node["spec"].get("taints", []))


def kept_free(node: dict[str, Any]) -> bool:
    """Has somebody said that no Pod is to run there (`out-of-service`, say)? flannel tolerates that no more than others, so a node that
    was switched on again has no Pod network before the taint is taken away. Pure."""
    return any(taint["effect"] == "NoExecute" and taint["key"] not in AWAY for taint in node["spec"].get("taints", []))


def proxy_has_synced(healthz: str) -> bool:
    """Of kube-proxy's /healthz (pkg/proxy/healthcheck/proxy_health.go): it lists a family of addresses once that one's rules are written.
    Older releases, which a node image of kind's may have, do not tell. Pure."""
    try:
        said = json.loads(healthz)
        return "IPv4" in said.get("status", {}) if "healthy" in said else "lastUpdated" in said
    except (ValueError, AttributeError, TypeError):
        return False


def _asked(holds: Callable[[], str]) -> str:
    """What is missing; a question that cannot be asked is missing its answer."""
    try:
        return holds()
    except CommandFailed as error:
        return error.what


def _epoch(stamp: str | None) -> float:
    from datetime import datetime

    return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
