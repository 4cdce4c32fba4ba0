"""Grading on a real cluster: limited access, the pristine state, and what harm costs."""

# ruff: noqa: E501 (a student's cell stands on one line, as it is sent)

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab_utils.checks import load_checks
from lab_utils.cluster import Cluster, connect
from lab_utils.grading import access
from lab_utils.labs.release import joined, notebook_text, released
from lab_utils.labs.source import LabSource, read_source
from tests.conftest import PROVIDER
from tests.grading.conftest import DATA, Notebook

pytestmark = pytest.mark.cluster
RIGHT = {
    "config": 'lab.kubectl("create", "configmap", "greeting", "--from-literal=word=hello")',
    "device": 'lab.answer("device", "lo" in [link["ifname"] for link in lab.node("cp").links()])',
    "gone": 'lab.kubectl("delete", "configmap", "greeting")',
}
FULL = 10


class Course:
    """A lab on a cluster, in a checkout of its own. `access` is what its front matter says of nodes."""

    def __init__(self, top: Path, access: str) -> None:
        self.top = top
        self.name = "91-cluster" if access == "look" else "92-change"
        folder = top / "labs" / self.name
        shutil.copytree(DATA / "labs/91-cluster", folder)
        text = (DATA / "solutions/91-cluster/lab.md").read_text()
        text = text.replace("91-cluster", self.name).replace("lab-91", f"lab-{self.name[:2]}").replace("access: look", f"access: {access}")
        self.source: LabSource = read_source(text, self.name, "lab.md")
        (folder / "lab.json").write_text(joined(self.source, load_checks(folder / "checks.py")).as_json())
        (folder / "lab.ipynb").write_text(notebook_text(released(self.source)))
        self.inbox = top / "in"
        self.inbox.mkdir()

    def hand_in(self, student: str, **cells: str) -> None:
        notebook: Notebook = released(self.source)
        for cell in notebook["cells"]:
            if step := cell["metadata"].get("step"):
                cell["source"] = cells.get(step, RIGHT[step])
        (self.inbox / f"{student}.ipynb").write_text(notebook_text(notebook))

    def grade(self, cluster: str, *options: str) -> dict[str, dict[str, Any]]:
        out = self.top / "out"
        words = [sys.executable, "-m", "lab_utils", "grade", self.name, str(self.inbox), "--out", str(out), "--cluster", cluster, *options]
        done = subprocess.run(words, env={**os.environ, "LAB_ROOT": str(self.top)}, capture_output=True, text=True, timeout=1500)
        print(done.stderr)
        assert done.returncode == 0, done.stderr
        grades = json.loads((out / "results.json").read_text())["submissions"]
        states = [json.loads(path.read_text()) for path in (out / "state").glob("*.json")]
        shown = {
            state["student"]: {step["step"]: "".join(o["data"] for c in step["cells"] for o in c["outputs"]) for step in state["steps"]}
            for state in states
        }
        return {one["student"]: one | {"shown": shown[one["student"]]} for one in grades}


PROBE = """
import socket
def ask(*words):
    done = lab.cluster.kubectl(*words, check=False, input='')
    print("|".join(words), "->", "allowed" if done.ok else "refused")
ask("get", "nodes"); ask("get", "pods", "-A"); ask("create", "configmap", "mine"); ask("create", "deployment", "web", "--image=x")
ask("get", "secrets", "-n", "kube-system"); ask("create", "namespace", "evil"); ask("delete", "namespace", "lab-91"); ask("label", "namespace", "lab-91", "a=b")
ask("delete", "node", "w1"); ask("taint", "nodes", "--all", "a=b:NoSchedule"); ask("patch", "node", "w1", "-p", '{"spec":{"unschedulable":true}}'); ask("delete", "pods", "-n", "kube-system", "--all")
ask("delete", "daemonset", "-n", "kube-system", "kube-proxy"); ask("create", "configmap", "x", "-n", "default"); ask("get", "--raw", "/api/v1/nodes/cp/proxy/configz")
ask("create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--serviceaccount=lab-91:default")
ask("create", "rolebinding", "x", "--clusterrole=cluster-admin", "--serviceaccount=lab-91:default")
ask("run", "bad", "--image=x", "--privileged")
ask("run", "bad", "--image=x", '--overrides={"spec":{"hostNetwork":true}}')
ask("run", "bad", "--image=x", '--overrides={"spec":{"volumes":[{"name":"h","hostPath":{"path":"/"}}],"containers":[{"name":"bad","image":"x"}]}}')
ask("delete", "resourcequota", "--all"); ask("create", "token", "default", "-n", "kube-system"); ask("auth", "can-i", "escalate", "roles"); ask("impersonate"); ask("get", "pods", "--as=system:admin")
for command in ("hostname", "ip -br link", "cat /etc/kubernetes/admin.conf", "iptables -F", "rm -rf /", "cat /etc/shadow"):
    print("node:", command, "->", "allowed" if lab.node("cp").run(command).ok else "refused")
def reach(address, port):
    try: socket.create_connection((address, port), 2).close(); print("reach:", port, "-> open")
    except OSError: print("reach:", port, "-> closed")
ip = lab.node("cp").ip
for port in (22, 6443, 2379, 10250, 10249): reach(ip, port)
reach("1.1.1.1", 443)
"""
ALLOWED = {
    "get|nodes",
    "get|pods|-A",
    "create|configmap|mine",
    "create|deployment|web|--image=x",
    "node: hostname",
    "node: ip -br link",
    "reach: 22",
    "reach: 6443",
}


def test_submissions_get_their_scores_and_no_more_access_than_the_lab_needs(cluster: Cluster, tmp_path: Path) -> None:
    course = Course(tmp_path, "look")
    course.hand_in("ada")
    course.hand_in("nothing", config="pass", device="pass", gone="pass")
    course.hand_in("wrong", config='lab.kubectl("create", "configmap", "greeting", "--from-literal=word=hi")')
    course.hand_in("never there", config="pass", gone="pass")
    course.hand_in(
        "imperative", config="%%bash\nkubectl create configmap greeting --from-literal word=hello", gone="!kubectl delete cm greeting --now"
    )
    course.hand_in(
        "finalizer",
        device='lab.kubectl("create", "configmap", "stuck")\nlab.kubectl("patch", "configmap", "stuck", "--type=merge", "-p", \'{"metadata":{"finalizers":["example.com/never"]}}\')\n'
        + RIGHT["device"],
    )
    course.hand_in("probe", device=PROBE)
    grades = course.grade(cluster.name, "--no-reset")
    assert {name: one["score"] for name, one in grades.items()} == {
        "ada": FULL, "nothing": 0, "wrong": 3, "never there": 3, "imperative": FULL, "finalizer": FULL, "probe": 7,
    }  # fmt: skip
    assert not any(one["harm"] for one in grades.values())
    said = dict(line.rsplit(" -> ", 1) for line in grades["probe"]["shown"]["device"].splitlines() if " -> " in line)
    assert len(said) > 30
    assert {what for what, answer in said.items() if answer in ("allowed", "open")} == ALLOWED
    # Nothing is left of the lab, of the access, or of the keys.
    names = [item["metadata"]["name"] for item in cluster.get("namespaces")["items"]]
    assert "lab-91" not in names
    assert access.NAMESPACE not in names
    assert not cluster.get("clusterrolebindings,clusterroles", "-l", access.LABEL)["items"]
    for node in cluster.nodes:
        assert access.MARK not in node.run("cat /root/.ssh/authorized_keys", check=True).stdout
        assert not node.run(["test", "-e", access.LOOK]).ok


@pytest.mark.skipif(
    "LAB_TEST_CLUSTER" in os.environ or PROVIDER != "embedded", reason="it harms the cluster, which has to be a throw-away one"
)
@pytest.mark.timeout(3600)  # the cluster is reset after each harm
def test_harm_costs_only_the_submission_that_did_it(guarded: Cluster, tmp_path: Path) -> None:
    cluster = guarded.name
    course = Course(tmp_path, "change")
    course.hand_in("a right", device=RIGHT["device"])
    course.hand_in(
        "b harms",
        device=RIGHT["device"]
        + '\nlab.cluster.kubectl("taint", "nodes", "--all", "a=b:NoExecute")\nlab.cluster.kubectl("create", "namespace", "evil")\n'
        'lab.node("cp").run("touch /etc/kubernetes/manifests/evil.txt; rm -rf /etc/cni/net.d/*")\nlab.cluster.kubectl("delete", "daemonset", "-n", "kube-system", "kube-proxy")',
    )
    course.hand_in("c right")
    fake = "mv /usr/sbin/iptables-save /usr/sbin/iptables-safe; printf '#!/bin/sh\\necho mine\\n' > /usr/sbin/iptables-save"
    course.hand_in("d replaces a program", device=RIGHT["device"] + f'\nlab.node("cp").run({fake!r})')
    course.hand_in("e right")
    grades = course.grade(cluster)
    assert {name: one["score"] for name, one in grades.items()} == dict.fromkeys(
        ("a right", "b harms", "c right", "d replaces a program", "e right"), FULL
    )
    assert grades["a right"]["harm"] == grades["c right"]["harm"] == grades["e right"]["harm"] == []
    assert "/usr/sbin" in " ".join(grades["d replaces a program"]["harm"])
    harm = " ".join(grades["b harms"]["harm"])
    assert "namespace evil is new" in harm
    assert "node" in harm
    connect(cluster).close()
