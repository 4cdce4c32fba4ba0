"""Lab 11 on wires: its Pods and nodes are network namespaces, its API is a small one, and the agents are the learner's, running.

All steps but `cage`, which needs names, are run and checked with real connections. It takes the place of a cluster as far as the kernel
goes; what kubelet, DNS and a real API server do is left to tests/labs/test_every_lab.py. A minute for each notebook: it is for whoever
changes this lab, and runs when LAB_TEST_WIRES=1 asks for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_utils import faults
from lab_utils.artifacts import programs
from lab_utils.artifacts.versions import pinned
from lab_utils.labs.build import load_source, load_wrong
from lab_utils.labs.catalog import find_lab
from lab_utils.labs.context import CheckContext
from lab_utils.labs.release import handed_in, solution
from lab_utils.labs.store import Store
from lab_utils.run import Result, run
from tests.kernel.pod_wires import ADDRESSES, RANGES, PodWires, pod_wires
from tests.kernel.small_api import PLACES, SmallApi
from tests.labs.test_policy_lab_on_paper import by_address, objects, run_notebook

AGNHOST = programs.entry(pinned().program("agnhost")) / "agnhost"
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(os.environ.get("LAB_TEST_WIRES") != "1", reason="set LAB_TEST_WIRES=1: a minute for each of three notebooks"),
    pytest.mark.skipif(not AGNHOST.exists(), reason="agnhost has not been made yet (`lab prepare` does)"),
]
NODES = {"w1": "n1", "w2": "n2"}
WIRE = {"web": "p11", "client": "p12", "guard": "p13", "api": "p21", "stranger": "p22", "safe": "p23"}
STEPS = ("wish", "isolated", "truth-table", "engine", "selectors", "peers", "tables", "agent", "repair")
KINDS = {"networkpolicies": "NetworkPolicy", "networkpolicy": "NetworkPolicy", "pods": "Pod", "pod": "Pod", "namespaces": "Namespace"}
KINDS |= {"nodes": "Node", "configmap": "ConfigMap", "daemonset": "DaemonSet"}


class WiredNode:
    reachable = True

    def __init__(self, wires: PodWires, name: str) -> None:
        self.wires, self.name = wires, name

    def run(self, command: str | list[str], *, input: str | None = None, check: bool = False, **_: Any) -> Result:
        words = ["sh", "-c", command] if isinstance(command, str) else command
        enter = ["nsenter", f"--net=/run/netns/{self.wires.namespace(NODES[self.name])}"]
        return run([*enter, *words], input=input, check=check, timeout=60)


class WiredCluster:
    """As much of a `Cluster` as the lab and its checks use."""

    name = provider = "wires"

    def __init__(self, wires: PodWires, api: SmallApi, folder: Path, stack: ExitStack) -> None:
        self.wires, self.api, self.folder, self.stack = wires, api, folder, stack
        self.nodes = [WiredNode(wires, name) for name in NODES]
        self.others: list[Any] = []  # objects that nobody watches
        self.agents: dict[str, Any] = {}

    def node(self, name: str) -> WiredNode:
        return next(node for node in self.nodes if node.name == name)

    @property
    def objects(self) -> list[Any]:
        return [*self.api.objects.values(), *self.others]

    def apply(self, thing: Any, namespace: str | None = None) -> Result:
        if isinstance(thing, str):
            thing = yaml.safe_load(thing)
        if thing["kind"] not in ("Namespace", "Node"):
            thing["metadata"].setdefault("namespace", namespace)
        if thing["kind"] in PLACES:
            self.api.put(thing["kind"], thing)
        else:
            self.others = [
                each for each in self.others if (each["kind"], each["metadata"]["name"]) != (thing["kind"], thing["metadata"]["name"])
            ]
            self.others.append(thing)
        if thing["kind"] == "DaemonSet":
            self.run_agents(thing)
        return Result("", "", 0)

    def run_agents(self, daemonset: Any) -> None:
        """What the DaemonSet controller and the kubelets would do."""
        files = next(each for each in self.others if each["kind"] == "ConfigMap" and each["metadata"]["name"] == "policy-agent")["data"]
        for name, text in files.items():
            (self.folder / name).write_text(text)
        (self.folder / "token").write_text("none")
        for node in self.nodes:
            if old := self.agents.get(node.name):
                old.kill()
                old.wait()
            ready = self.folder / f"ready-{node.name}"
            ready.unlink(missing_ok=True)
            enter = ["nsenter", f"--net=/run/netns/{self.wires.namespace(NODES[node.name])}"]
            own = {
                "NODE_NAME": node.name,
                "API_SERVER": f"http://172.31.9.254:{self.api.port}",
                "ACCOUNT": str(self.folder),
                "READY": str(ready),
            }
            log = self.stack.enter_context((self.folder / f"log-{node.name}").open("w"))
            agent = subprocess.Popen(
                [*enter, sys.executable, str(self.folder / "agent.py")], env={**os.environ, **own}, stdout=log, stderr=log
            )
            self.stack.callback(agent.wait)
            self.stack.callback(agent.kill)
            self.agents[node.name] = agent
        self.others = [each for each in self.others if each["metadata"].get("labels", {}).get("app") != "policy-agent"]
        for node in self.nodes:
            metadata = {"name": f"policy-agent-{node.name}", "namespace": "lab-11", **daemonset["spec"]["template"]["metadata"]}
            status = {"containerStatuses": [{"restartCount": 0}]}
            self.others.append(
                {
                    "kind": "Pod",
                    "metadata": metadata,
                    "spec": {"nodeName": node.name, "hostNetwork": True, "containers": [{}]},
                    "status": status,
                }
            )

    def status(self, thing: Any) -> Any:
        """A DaemonSet counts its Pods that are ready; an agent that has ended counts as restarted."""
        if thing["kind"] == "Pod" and thing["metadata"]["name"].startswith("policy-agent-"):
            thing["status"]["containerStatuses"][0]["restartCount"] = int(self.agents[thing["spec"]["nodeName"]].poll() is not None)
        if thing["kind"] == "DaemonSet":
            ready = sum((self.folder / f"ready-{node.name}").exists() for node in self.nodes)
            thing["status"] = {"desiredNumberScheduled": 2, "numberReady": ready, "updatedNumberScheduled": 2}
        return thing

    def kubectl(self, *given: str, **_: Any) -> Result:
        words, namespace, selector = list(given), "", ""
        inside = words[words.index("--") + 1 :] if "--" in words else []
        words = words[: words.index("--")] if inside else words
        everywhere = "-A" in words
        for flag in ("-n", "--namespace", "-l", "--selector"):
            if flag in words:
                at = words.index(flag)
                value = words[at + 1]
                del words[at : at + 2]
                if flag in ("-n", "--namespace"):
                    namespace = namespace or value
                else:
                    selector = value
        verb, *rest = [word for word in words if word not in ("-o", "json", "-A", "--ignore-not-found", "--type=json")]
        if verb == "exec":
            line = [word.replace("/agnhost", str(AGNHOST)).replace("/tmp/stop", f"{self.folder}/stop-{rest[0]}") for word in inside]
            return run(["nsenter", f"--net=/run/netns/{self.wires.namespace(WIRE[rest[0]])}", *line], check=False, timeout=150)
        if verb == "logs":
            return Result((self.folder / f"log-{rest[0].rpartition('-')[2]}").read_text(), "", 0)
        kind = KINDS[rest[0]]
        found = [each for each in self.objects if each["kind"] == kind]
        if not everywhere and kind not in ("Namespace", "Node"):
            found = [each for each in found if each["metadata"]["namespace"] == namespace]
        if selector:
            key, wanted = selector.split("=", 1)
            found = [each for each in found if each["metadata"].get("labels", {}).get(key) == wanted]
        if len(rest) > 1 and not rest[1].startswith("-"):
            found = [each for each in found if each["metadata"]["name"] == rest[1]]
        if verb == "delete":
            for each in found:
                self.api.delete(kind, each)
            return Result("", "", 0)
        if verb == "patch":
            (thing,) = json.loads(json.dumps(found))
            for change in json.loads(rest[-1]):
                *path, last = [int(part) if part.isdigit() else part for part in change["path"].strip("/").split("/")]
                place: Any = thing
                for step in path:
                    place = place[step]
                if change["op"] == "test":
                    assert place[last] == change["value"]
                else:
                    place[last] = change["value"]
            self.api.put(kind, thing)
            return Result("", "", 0)
        assert verb == "get", given
        one = len(rest) > 1
        if one and not found:
            return Result("", "", 0)
        told = [self.status(each) for each in found]
        return Result(json.dumps(told[0] if one else {"items": told}), "", 0)


@pytest.fixture(scope="module")
def wires() -> Iterator[PodWires]:
    with pod_wires() as made:
        yield made


@pytest.fixture
def context(wires: PodWires, tmp_path: Path) -> Iterator[CheckContext]:
    files = find_lab("11")
    with ExitStack() as stack:
        api = SmallApi(wires.namespace("outside"), "172.31.9.254")
        stack.callback(api.close)
        cluster = WiredCluster(wires, api, tmp_path, stack)
        (tmp_path / "store").mkdir()
        made = CheckContext(files.spec, files.checks, cluster, "wires", Store(files.name, tmp_path / "store"))
        for each in objects(made):
            if each["kind"] == "Pod":
                where = ADDRESSES[WIRE[each["metadata"]["name"]]][0]
                each["status"] = {"phase": "Running", "podIP": where, "podIPs": [{"ip": where}]}
                serve = ["netexec", f"--http-port={each['spec']['containers'][0]['ports'][0]['containerPort']}", "--udp-port=-1"]
                enter = ["nsenter", f"--net=/run/netns/{wires.namespace(WIRE[each['metadata']['name']])}"]
                server = subprocess.Popen([*enter, str(AGNHOST), *serve], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                stack.callback(server.wait)
                stack.callback(server.kill)
            if each["kind"] != "Node":
                cluster.apply(each, "lab-11")
        for name, own in NODES.items():
            cluster.apply({"kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": RANGES[own][0], "podCIDRs": list(RANGES[own])}})
        cluster.apply(by_address(files, made))
        made.inject = lambda fault, **options: faults.inject(made, fault, **options)  # type: ignore[attr-defined]
        yield made
        for agent in cluster.agents.values():
            agent.kill()
        for node in cluster.nodes:
            node.run("nft flush ruleset")


def points() -> dict[str, float]:
    return {step.name: float(step.points) for step in find_lab("11").spec.steps if step.name in STEPS}


def test_the_solution_gets_all_points(context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_notebook(solution(load_source(find_lab("11"))), context, monkeypatch, STEPS) == points()


@pytest.mark.parametrize("name", ["a-moment-without-rules", "right-in-an-unusual-way"])
def test_a_wrong_answer_gets_what_it_says(name: str, context: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    (wrong,) = [each for each in load_wrong(find_lab("11")) if Path(each.where).stem == name]
    earned = run_notebook(handed_in(load_source(find_lab("11")), wrong), context, monkeypatch, STEPS)
    assert earned == {**points(), **{step: score for step, score in wrong.steps.items() if step in STEPS}}
