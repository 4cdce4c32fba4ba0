"""A lab on a cluster: the names and helpers that a learner's `lab` and a check's `lab` have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from string import Template
from typing import TYPE_CHECKING, Any

from lab_utils.cluster import Cluster, Node, manifest_text
from lab_utils.errors import BadInput
from lab_utils.labs.spec import LabSpec, rng_for
from lab_utils.labs.store import Store
from lab_utils.run import Result

if TYPE_CHECKING:
    from lab_utils.checks import CheckSet

LABEL = "kubernetes-inside-out/lab"


class Workspace:
    """`spec` says what the lab is, `checkset` how it is checked, `store` what was written down; `learner` makes the parameters."""

    def __init__(self, spec: LabSpec, checkset: CheckSet, cluster: Cluster, learner: str, store: Store) -> None:
        self.spec = spec
        self.checkset = checkset
        self.cluster = cluster
        self.learner = learner
        self.store = store

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def namespace(self) -> str:
        """The lab's first namespace: where commands go that do not name one."""
        return self.spec.namespace

    @property
    def namespaces(self) -> tuple[str, ...]:
        return self.spec.namespaces

    @cached_property
    def params(self) -> dict[str, Any]:
        """What varies from learner to learner: random, but the same every time for this learner and this lab."""
        drawn = self.spec.draw(self.learner)
        if self.checkset.params:
            drawn |= self.checkset.params(rng_for(self.learner, self.name, "@params"))
        return drawn

    # nodes

    @property
    def nodes(self) -> list[Node]:
        return self.cluster.nodes

    def node(self, name: str) -> Node:
        return self.cluster.node(name)

    # objects

    def kubectl(self, *words: str, input: str | None = None, check: bool = True, timeout: float = 120) -> Result:
        """kubectl in the lab's namespace, unless the words name another."""
        named = any(word in ("-A", "--all-namespaces", "-n", "--namespace") or word.startswith(("--namespace=", "-n=")) for word in words)
        place = () if named else ("--namespace", self.namespace)
        return self.cluster.kubectl(*place, *words, input=input, check=check, timeout=timeout)

    def get(self, *words: str) -> Any:
        """`kubectl get … -o json` in the lab's namespace, as Python values."""
        return json.loads(self.kubectl("get", *words, "-o", "json").stdout)

    def find(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """One object, or None when there is none of that name."""
        place = ("--namespace", namespace) if namespace else ()
        text = self.kubectl(*place, "get", kind, name, "--ignore-not-found", "-o", "json").stdout
        return dict(json.loads(text)) if text.strip() else None

    def objects(self, kind: str, selector: str = "", namespace: str | None = None) -> list[dict[str, Any]]:
        """All objects of a kind in the lab's namespace, or those with the labels of a selector like "app=web"."""
        place = ("--namespace", namespace) if namespace else ()
        chosen = ("--selector", selector) if selector else ()
        return list(json.loads(self.kubectl(*place, "get", kind, *chosen, "-o", "json").stdout)["items"])

    def pods(self, selector: str = "", namespace: str | None = None) -> Sequence[dict[str, Any]]:
        """Pods that are not on their way out."""
        return [pod for pod in self.objects("pods", selector, namespace) if not pod["metadata"].get("deletionTimestamp")]

    def apply(self, manifest: Any, namespace: str | None = None) -> Result:
        """Apply YAML text, a file, or objects, into the lab's namespace."""
        return self.cluster.apply(manifest, namespace or self.namespace)

    def run_in(self, pod: str, command: str | Sequence[str], *, container: str = "", timeout: float = 30) -> Result:
        """Run a command in a container of a Pod (`kubectl exec`). A string goes to the container's sh."""
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        chosen = ("--container", container) if container else ()
        return self.kubectl("exec", pod, *chosen, "--", *words, check=False, timeout=timeout)

    def http(self, url: str, *, origin: str = "", timeout: float = 3) -> Result:
        """Fetch a URL with curl, from a node (the first, unless one is named); stdout is the body.
        Code 7 is "refused", 28 is "no answer in time"."""
        node = self.node(origin) if origin else self.nodes[0]
        limit = f"{timeout * node.patience:g}"
        return node.run(["curl", "--silent", "--show-error", "--fail", "--max-time", limit, url], timeout=timeout + 10)

    def fill(self, text: str) -> str:
        """Put parameters in the places of a text: $port, ${name}. $$ is a dollar sign."""
        try:
            return Template(text).substitute({"namespace": self.namespace, **self.params})
        except (KeyError, ValueError) as error:
            known = ", ".join(["namespace", *self.params])
            raise BadInput(
                f"a text of lab {self.name} asks for the parameter {error}, which it does not declare", f"It declares: {known}"
            ) from None

    def filled(self, manifest: Any) -> str:
        return self.fill(manifest_text(manifest))


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether labels satisfy a selector of equalities, as a Service's does."""
    return all(labels.get(key) == value for key, value in selector.items())
