"""Grading on bare nodes: each submission is root on machines of its own time, and of nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab_utils.checks import load_checks
from lab_utils.cluster import Cluster
from lab_utils.labs.release import joined, notebook_text, released
from lab_utils.labs.source import LabSource, read_source
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, provider

pytestmark = pytest.mark.cluster

LAB = """\
---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3}
lab:
  title: Bare
  minutes: 5
  points: 6
  objectives: [Be root]
  needs: {workers: 0, access: change, bare: true}
---
# Bare

```{code-cell} ipython3
from lab_utils import Lab

lab = Lab("93-bare")
```

```{code-cell} ipython3
---
step: file
points: 4
tags: [task]
hints: [Write a file., Write it on cp.]
---
### BEGIN SOLUTION
lab.node("cp").run("echo done > /root/file")
### END SOLUTION
```

```{code-cell} ipython3
lab.inject("tokens-expired")
```

```{code-cell} ipython3
---
step: clean
points: 2
tags: [task]
hints: [Look around., Whose work is here already.]
---
### BEGIN SOLUTION
print(lab.node("cp").run("ls -A /root /etc/kubernetes-inside-out; cat /etc/mine").stdout)
### END SOLUTION
```
"""
CHECKS = """\
from lab_utils.checks import CheckContext, check, setup
from lab_utils.labs.bare import find_api
from lab_utils.labs.workspace import Workspace


@setup
def _(lab: Workspace) -> None:
    lab.node("cp").run("touch /root/prepared", check=True)


@check("file", points=4)
def _(lab: CheckContext) -> None:
    lab.expect("done", lab.node("cp").run("cat /root/file").stdout.strip(), look="cat /root/file")


@check("clean", points=2)
def _(lab: CheckContext) -> None:
    lab.require(not find_api(lab.cluster), expected="no API", seen="one")
    lab.require(lab.node("cp").run("test -e /root/prepared").ok, expected="the starting state", seen="nothing")
"""
RIGHT = {"file": 'lab.node("cp").run("echo done > /root/file")', "clean": "pass"}
PROBE = """
import os
print("id", lab.node("cp").run("id -u").stdout.strip())
print("saw", lab.node("cp").run("cat /etc/mine /root/file /root/.ssh/theirs; ls -A /root").stdout.split())
print("config", open(lab.cluster.record.kubeconfig).read().count("certificate"))
for place in ("/root/.local", "/root/.cache", "/var/lib/kubernetes-inside-out", "/var/cache"):
    print("place", place, os.path.isdir(place) and bool(os.listdir(place)))
print("out", lab.node("cp").run("KNOCK").stdout.strip() or "closed")
"""
HARM = """
lab.node("cp").run("echo mine > /etc/mine; touch /root/.ssh/theirs; iptables -A INPUT -j DROP -p udp; ip link add left type dummy")
lab.node("cp").run("mkdir -p /etc/kubernetes; echo '{evil' > /etc/kubernetes/admin.conf")
lab.node("cp").run("echo done > /root/file; systemctl disable --now containerd; rm -rf /usr/bin/crictl /etc/containerd")
"""


@pytest.fixture(scope="module")
def bare(progress: Progress) -> Iterator[Cluster]:
    embedded, name = provider("embedded"), f"bares-{os.getpid()}"
    if not embedded.usability().usable or os.geteuid() != 0:
        pytest.skip("embedded nodes cannot be made here")
    try:
        cluster = embedded.up(ClusterSpec(name, workers=0, bare=True, guarded=True), progress)
        yield cluster
        cluster.close()
    finally:
        embedded.down(name, progress)


@pytest.fixture
def course(tmp_path: Path) -> tuple[Path, LabSource]:
    folder = tmp_path / "labs" / "93-bare"
    folder.mkdir(parents=True)
    (folder / "checks.py").write_text(CHECKS)
    source = read_source(LAB, "93-bare", "lab.md")
    (folder / "lab.json").write_text(joined(source, load_checks(folder / "checks.py")).as_json())
    (folder / "lab.ipynb").write_text(notebook_text(released(source)))
    return tmp_path, source


def hand_in(course: tuple[Path, LabSource], student: str, **cells: str) -> None:
    notebook: Any = released(course[1])
    for cell in notebook["cells"]:
        if step := cell["metadata"].get("step"):
            cell["source"] = cells.get(step, RIGHT[step])
    (course[0] / "in").mkdir(exist_ok=True)
    (course[0] / "in" / f"{student}.ipynb").write_text(notebook_text(notebook))


def test_every_submission_begins_on_machines_that_nobody_has_touched(bare: Cluster, course: tuple[Path, LabSource]) -> None:
    gateway = bare.nodes[0].ip.rsplit(".", 1)[0] + ".1"  # this machine, as the nodes see it
    listening = socket.create_server((gateway, 0))
    knock = f"timeout 3 bash -c 'echo > /dev/tcp/{gateway}/{listening.getsockname()[1]}' && echo reached"
    assert bare.nodes[0].run(knock).stdout.strip() == "reached", "outside of grading, a node may ask this machine"
    hand_in(course, "a harms", clean=HARM)
    hand_in(course, "b looks", clean=PROBE.replace("KNOCK", knock))
    hand_in(course, "d nothing", file="pass")
    top = course[0]
    words = [sys.executable, "-m", "lab_utils", "grade", "93-bare", str(top / "in"), "--out", str(top / "out"), "--cluster", bare.name]
    done = subprocess.run(words, env={**os.environ, "LAB_ROOT": str(top)}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    grades = {one["student"]: one for one in json.loads((top / "out" / "results.json").read_text())["submissions"]}
    assert {name: one["score"] for name, one in grades.items()} == {"a harms": 6, "b looks": 6, "d nothing": 2}
    state = next(
        state for path in (top / "out" / "state").glob("*.json") if (state := json.loads(path.read_text()))["student"] == "b looks"
    )
    said = "".join(output["data"] for step in state["steps"] for cell in step["cells"] for output in cell["outputs"])
    lines = [line.split(" ", 1) for line in said.splitlines()]
    assert ["id", "0"] in lines, said
    assert next(rest for word, rest in lines if word == "saw").count("mine") == 0, said
    assert ["config", "0"] in lines, "there is no credential of any cluster in the sandbox"
    assert not [rest for word, rest in lines if word == "place" and rest.endswith("True")], said
    assert ["out", "closed"] in lines, "the fence stands although the machines were made anew"
    assert "could not be injected" in " ".join(state["notes"]), "a cluster that a student never made has no tokens that could expire"
    assert bare.nodes[0].run(knock).stdout.strip() == "reached", "and after grading again"
    listening.close()
    left = bare.nodes[0].run("ls -A /root /etc/kubernetes-inside-out /etc/mine 2>/dev/null; cat /root/.ssh/authorized_keys").stdout
    assert "prepared" not in left and "grading" not in left, "after the last submission the machines are bare again"
