"""Lab 11 up to its agent, without a cluster: the objects of setup.yaml with addresses made up, nft in throw-away namespaces.

Cells are run and steps checked as in a rehearsal, so the solution's points and those of the wrong answers are known before any cluster is
there. What needs one (steps `agent`, `cage`, `repair`) is left to tests/labs/test_every_lab.py.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import lab_utils
from lab_utils.checks import run_checks
from lab_utils.labs.build import load_source, load_wrong
from lab_utils.labs.catalog import find_lab
from lab_utils.labs.context import CheckContext
from lab_utils.labs.parts import Parts, named, pieces_of
from lab_utils.labs.release import Notebook, handed_in, released, solution
from lab_utils.labs.store import Store
from lab_utils.run import Result, run

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
ON_PAPER = ("wish", "isolated", "truth-table", "engine", "selectors", "peers", "tables")
NODES = {"cp": "10.244.0.0/24", "w1": "10.244.1.0/24", "w2": "10.244.2.0/24"}


class PaperNode:
    reachable = True

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, command: str | list[str], *, input: str | None = None, check: bool = False, **_: Any) -> Result:
        if command == "ip -j address":
            part = NODES[self.name]
            return Result(json.dumps([{"addr_info": [{"local": part.replace("0/24", "1")}]}]), "", 0)
        if isinstance(command, str):  # are there tables of an agent? On paper there are none
            return Result("", "", 0)
        assert command[:2] == ["unshare", "--net"]
        return run(command, input=input, check=check)


class PaperCluster:
    name = provider = "paper"

    def __init__(self, objects: list[Any]) -> None:
        self.objects = objects
        self.nodes = [PaperNode(name) for name in NODES]

    def node(self, name: str) -> PaperNode:
        return next(node for node in self.nodes if node.name == name)

    def kubectl(self, *words: str, **_: Any) -> Result:
        if "exec" in words:  # nothing enforces anything here
            return Result("\n" * 6, "", 0)
        said = [word for word in words if word not in ("-o", "json", "-A", "--ignore-not-found")]
        namespace = ""
        for flag in ("-n", "--namespace"):
            if flag in said:
                at = said.index(flag)
                namespace = said[at + 1]
                del said[at : at + 2]
        assert said[0] == "get", words
        kind = {"networkpolicies": "NetworkPolicy", "namespaces": "Namespace", "pods": "Pod", "nodes": "Node", "pod": "Pod"}.get(
            said[1], said[1].capitalize()
        )
        kind = {"Configmap": "ConfigMap"}.get(kind, kind)
        found = [each for each in self.objects if each["kind"] == kind]
        if "-A" not in words and kind not in ("Node", "Namespace"):
            found = [each for each in found if each["metadata"]["namespace"] == namespace]
        if len(said) == 3:
            (one,) = [each for each in found if each["metadata"]["name"] == said[2]]
            return Result(json.dumps(one), "", 0)
        return Result(json.dumps({"items": found}), "", 0)


def objects(context: CheckContext) -> list[Any]:
    """setup.yaml as the API server would give it back: each Pod with an address of its node."""
    text = context.fill((find_lab("11").folder / "setup.yaml").read_text())
    found = [each for each in yaml.safe_load_all(text) if each]
    for number, each in enumerate(found):
        if each["kind"] == "Pod":
            address = NODES[each["spec"]["nodeName"]].replace("0/24", str(number + 2))
            each["status"] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        if each["kind"] == "Namespace":
            each["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = each["metadata"]["name"]
    found.append({"kind": "Namespace", "metadata": {"name": "lab-11", "labels": {"kubernetes.io/metadata.name": "lab-11"}}})
    found += [{"kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": part, "podCIDRs": [part]}} for name, part in NODES.items()]
    return found


def scored(notebook: Notebook, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Run the cells up to the agent; points by step."""
    files = find_lab("11")
    store = Store(files.name, folder / "store")
    (folder / "store").mkdir()
    context = CheckContext(files.spec, files.checks, PaperCluster([]), "paper", store)
    cluster = PaperCluster(objects(context))
    context = context.with_cluster(cluster)  # type: ignore[arg-type]
    cluster.objects.append(by_address(files, context))
    return run_notebook(notebook, context, monkeypatch, ON_PAPER)


def run_notebook(notebook: Notebook, lab: CheckContext, monkeypatch: pytest.MonkeyPatch, steps: Sequence[str]) -> dict[str, float]:
    """Run the cells in this process; a step that is not among these is left out. Points by step."""
    nb: Any = lab  # what a notebook has besides
    nb.answer = lab.store.answer
    nb.parts = Parts(pieces_of(notebook))
    monkeypatch.setattr(lab_utils, "Lab", lambda name: lab, raising=False)
    main = types.ModuleType("paper_notebook")
    monkeypatch.setitem(sys.modules, "paper_notebook", main)
    earned: dict[str, float] = {}
    for cell in notebook["cells"]:
        text, step = "".join(cell["source"]), cell["metadata"].get("step")
        if cell["cell_type"] != "code" or "check" in cell["metadata"].get("tags", []) or (step and step not in steps):
            continue
        if "agent" not in steps and step is None and "tables" in earned:
            break
        try:
            if text.startswith("%%part "):
                first, _, rest = text.partition("\n")
                file, piece = named(first.removeprefix("%%part "))
                nb.parts.keep(file, piece, rest, main.__dict__)
                if any(each.name == piece for each in lab.spec.steps):
                    nb.answer(piece, nb.parts.answer(file, piece))
            else:
                exec(compile(text, step or "given", "exec"), main.__dict__)
        except Exception as error:
            print(f"{step}: {type(error).__name__}: {error}")
        if step:
            (result,) = run_checks(lab.checkset, lab, only=step)
            assert result.status != "error", result.message
            print(step, result.status, result.earned, result.seen)
            earned[step] = result.earned
    return earned


def by_address(files: Any, context: CheckContext) -> Any:
    policy = files.checks.setup.__globals__["by_address"](context)
    policy["metadata"]["namespace"] = "lab-11"
    return policy


def points() -> dict[str, float]:
    return {step.name: float(step.points) for step in find_lab("11").spec.steps if step.name in ON_PAPER}


def test_the_solution_gets_all_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scored(solution(load_source(find_lab("11"))), tmp_path, monkeypatch) == points()


def test_the_untouched_lab_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(scored(released(load_source(find_lab("11"))), tmp_path, monkeypatch).values()) == {0}


@pytest.mark.parametrize("wrong", load_wrong(find_lab("11")), ids=lambda wrong: Path(wrong.where).stem)
def test_a_wrong_answer_gets_what_it_says(wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earned = scored(handed_in(load_source(find_lab("11")), wrong), tmp_path, monkeypatch)
    assert earned == {**points(), **{step: score for step, score in wrong.steps.items() if step in ON_PAPER}}


# The step `cage`, as far as it is about what the policy says.

CAGES = {
    "solution": [],
    "no-telephone": [],  # too tight: the check finds that by trying
    "the-service-s-port": ["lab-11/client on TCP 80"],
    "right-in-an-unusual-way": [],
}


@pytest.mark.parametrize("name", CAGES)
def test_what_a_cage_leaves_open(name: str, tmp_path: Path) -> None:
    files = find_lab("11")
    source = load_source(files)
    wrongs = {Path(each.where).stem: each for each in load_wrong(files)}
    notebook = handed_in(source, wrongs[name]) if name in wrongs else solution(source)
    context = CheckContext(files.spec, files.checks, PaperCluster([]), "paper", Store(files.name, tmp_path))
    cluster = PaperCluster(objects(context))
    context = context.with_cluster(cluster)  # type: ignore[arg-type]
    applied: list[Any] = []
    lab = types.SimpleNamespace(apply=lambda what: applied.append(yaml.safe_load(what) if isinstance(what, str) else what))
    (text,) = ["".join(cell["source"]) for cell in notebook["cells"] if cell["metadata"].get("step") == "cage"]
    exec(text.partition("\ntime.sleep")[0], {"lab": lab})
    (cage,) = applied
    cluster.objects.append({**cage, "metadata": {**cage["metadata"], "namespace": "lab-11"}})
    checks = files.checks.checks["cage"].function.__globals__
    assert checks["reach_of_the_cage"](checks["world"](context)) == CAGES[name]
