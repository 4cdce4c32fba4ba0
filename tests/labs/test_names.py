"""Other people's nodes have other names than cp, w1, w2. A lab says where it uses these, and what it loses where there are none."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab_utils.checks import load_checks, run_checks
from lab_utils.cluster import Cluster, ClusterRecord, NodeRecord
from lab_utils.errors import BadInput, LabError
from lab_utils.grading import clusters, pristine
from lab_utils.labs import views
from lab_utils.labs.build import build
from lab_utils.labs.catalog import LabFiles, all_labs
from lab_utils.labs.context import CheckContext
from lab_utils.labs.lifecycle import clean, left_out, missing_needs, prepare, setup_objects
from lab_utils.labs.reach import lost_steps, named
from lab_utils.labs.render import Card
from lab_utils.labs.spec import LabSpec, Needs, Step, spec_from_json
from lab_utils.labs.store import Store
from lab_utils.progress import Silent
from lab_utils.providers.files import FilesByCommands
from lab_utils.run import Result

CHECKS = """
from lab_utils.checks import check

@check("anywhere", points=1)
def _(lab): lab.expect("theirs-1", lab.nodes[0].name)

@check("by-hand", points=2)
def _(lab): lab.node("w1").run("true", check=True)

@check("builds-on-it", points=3, after=["by-hand"])
def _(lab): ...

@check("typo", points=4)
def _(lab): lab.node("w7").run("true")
"""
SETUP = """
{apiVersion: v1, kind: Pod, metadata: {name: free}, spec: {containers: []}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bound}, spec: {nodeName: w1}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: chosen}, spec: {template: {spec: {nodeSelector: {kubernetes.io/hostname: $home}}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: typo}, spec: {nodeName: w7}}
---
{apiVersion: v1, kind: Service, metadata: {name: door}, spec: {selector: {app: door}}}
"""
STEPS = (Step("anywhere", 1, "a"), Step("by-hand", 2, "b", names=("w1",)), Step("builds-on-it", 3, "c"), Step("typo", 4, "d"))
THEIRS = ("theirs-1", "theirs-2", "theirs-3")


class Machine(FilesByCommands):
    def run(self, *words: Any, **options: Any) -> Result:
        return Result("", "", 0)


def cluster_of(*names: str) -> Cluster:
    """One whose API must not be asked: it is called by a program that is not there."""
    nodes = [NodeRecord(name, "10.0.0.1", "worker" if number else "control-plane") for number, name in enumerate(names)]
    record = ClusterRecord("theirs", "kubeconfig", "up", "/nowhere", nodes, kubectl="/nowhere")
    return Cluster(record, [Machine(node) for node in nodes])


NEEDS = Needs(workers=2, access="none")


def lab_of(needs: Needs = NEEDS, steps: tuple[Step, ...] = STEPS) -> LabSpec:
    return LabSpec("99-example", "Example", 5, ("Learn",), needs, ("lab-99",), steps, {"home": {"choice": ["w1", "w1"]}})


def on(cluster: Cluster, folder: Path, spec: LabSpec | None = None) -> CheckContext:
    (folder / "checks.py").write_text(CHECKS)
    (folder / "setup.yaml").write_text(SETUP)
    return CheckContext(spec or lab_of(), load_checks(folder / "checks.py"), cluster, "ada", Store("99-example", folder / "store"))


def test_a_step_that_names_an_absent_node_is_skipped_with_those_that_build_on_it(tmp_path: Path) -> None:
    lab = on(cluster_of(*THEIRS), tmp_path)
    anywhere, by_hand, child, _ = run_checks(lab.checkset, lab)
    assert anywhere.status == "passed"
    assert (by_hand.status, by_hand.counts, by_hand.missing) == ("skipped", False, "a node named w1")
    assert by_hand.message == "this cluster lacks a node named w1; the points do not count"
    assert (child.status, child.counts) == ("skipped", False)
    assert lost_steps(lab.spec, lab.checkset, lab.cluster) == ["by-hand", "builds-on-it"]


@pytest.mark.parametrize("names", [THEIRS, ("cp", "w1", "w2")])
def test_a_name_that_nobody_declared_is_never_a_reason_to_skip(tmp_path: Path, names: tuple[str, ...]) -> None:
    lab = on(cluster_of(*names), tmp_path)
    typo = run_checks(lab.checkset, lab, only="typo")[0]
    assert (typo.status, typo.counts) == ("failed", True)
    assert typo.seen == "cluster 'theirs' has no node 'w7'"


def test_where_the_names_are_nothing_is_lost(tmp_path: Path) -> None:
    lab = on(cluster_of("cp", "w1", "w2"), tmp_path)
    assert run_checks(lab.checkset, lab, only="by-hand")[0].status == "passed"
    assert (lost_steps(lab.spec, lab.checkset, lab.cluster), left_out(lab)) == ([], [])
    assert missing_needs(lab.spec, lab.cluster) == []


def test_given_objects_of_an_absent_node_are_left_out_and_a_typo_is_not(tmp_path: Path) -> None:
    lab = on(cluster_of(*THEIRS), tmp_path)
    assert [each["metadata"]["name"] for each in setup_objects(lab)] == ["free", "typo", "door"]
    assert left_out(lab) == ["pod/bound", "deployment/chosen"]
    assert len(setup_objects(on(cluster_of("cp", "w1", "w2"), tmp_path))) == 5


def test_a_lab_that_names_them_in_every_step_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    lab = on(cluster_of(*THEIRS), tmp_path, lab_of(Needs(workers=2, names=("w1", "w2"))))
    with pytest.raises(
        BadInput, match=r"speaks of nodes named w1, w2 in every step, and cluster 'theirs' has theirs-1, .*--for 99-example"
    ):
        prepare(lab)
    assert not lab.store.cluster_folder.exists()


def test_what_is_there_can_be_taken_away_when_a_node_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "kubectl", lambda *words, **options: Result('{"items": []}' if "json" in words else "", "", 0))
    lab = on(cluster_of(*THEIRS), tmp_path)
    lab.checkset.cleanup = lambda lab: lab.node("w1").run("rm -rf /srv/lab")
    clean(lab)
    lab.cluster = cluster_of("cp", "w1")
    lab.checkset.cleanup = lambda lab: lab.node("w7").run("rm -rf /srv/lab")
    with pytest.raises(BadInput, match="no node 'w7'"):  # a typo in a cleanup is told
        clean(lab)


def test_names_are_asked_for_only_where_a_lab_uses_them() -> None:
    theirs = cluster_of(*THEIRS)
    assert missing_needs(lab_of(steps=STEPS[:1]), theirs) == []
    assert missing_needs(lab_of(), theirs) == ["a node named w1 (there are theirs-1, theirs-2, theirs-3)"]
    named_all_through = lab_of(Needs(workers=2, names=("cp", "w1"), access="none"))
    assert missing_needs(named_all_through, theirs) == ["nodes named cp, w1 (there are theirs-1, theirs-2, theirs-3)"]


def test_it_is_graded_only_where_every_step_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skipped step does not count. So nobody is graded where one would be skipped; and no learner can bring it about, since the
    record of the cluster says which nodes there are, not its API."""
    monkeypatch.setattr(clusters, "_grading", lambda name: nullcontext(cluster_of(*THEIRS)))

    monkeypatch.setattr(pristine, "begin", lambda files, cluster: {})

    def graded_on(spec: LabSpec) -> list[str]:
        files: Any = SimpleNamespace(name="99-example", spec=spec)
        with clusters.slots(files, ["theirs"], 1, 1, Silent(), may_reset=False, keep=False) as (slots, _):
            return [slot.cluster for slot in slots]

    with pytest.raises(BadInput, match=r"cluster 'theirs' lacks what lab 99-example needs: a node named w1"):
        graded_on(lab_of())
    assert graded_on(lab_of(steps=STEPS[:1])) == ["theirs"]


def test_a_card_says_what_is_lacking_and_what_that_costs() -> None:
    card = Card(lab_of(), [("cluster", "theirs")], [("lacking", "a node named w1"), ("skipped", "by-hand")], [])
    assert card.text().splitlines()[1:] == ["  cluster    theirs", "  lacking    a node named w1", "  skipped    by-hand"]
    assert "by-hand" in card.html()


def test_without_a_name_the_first_node_asks_and_the_first_worker_shows_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(self: Machine, *words: Any, **options: Any) -> Result:
        asked.append(self.name)
        return Result("", "", 0)

    monkeypatch.setattr(Machine, "run", run)
    monkeypatch.setattr(views, "_topology", lambda lab: None)
    lab = on(cluster_of(*THEIRS), tmp_path)
    lab.http("http://10.0.0.1")
    with pytest.raises(LabError):  # there are no rules to draw
        views.draw_service(lab, "web")
    assert asked == ["theirs-1", "theirs-2"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('lab.node("w1"); on("cp", "ip link")', {"w1", "cp"}),
        ("%%on cp\nkubectl get nodes", {"cp"}),
        ('lab.run_in("client-w2", "true")', {"w2"}),
        ("nodeSelector: {kubernetes.io/hostname: w1}", {"w1"}),
        ("spec:\n  nodeName: cp", {"cp"}),
        ('run(["cp", "-a"]); on(node, "cp a b")', set()),
        ('xmlns="http://www.w3.org/2000/svg"', set()),
    ],
)
def test_what_calls_a_node_by_name(text: str, names: set[str]) -> None:
    assert named(text) == names


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _built(example: LabFiles) -> LabSpec:
    files = LabFiles(example.name, example.root)
    build(files)
    return files.spec


def test_lab_build_refuses_a_name_that_is_not_declared(example: LabFiles) -> None:
    checks, source = example.folder / "checks.py", example.source
    _edit(checks, "    answer = lab.answered(int)\n", '    lab.node("w1")\n    answer = lab.answered(int)\n')
    with pytest.raises(BadInput, match=r"checks\.py: it calls w1 by name and does not declare it.*`needs: \{names: \[w1\]\}`"):
        _built(example)
    _edit(source, "step: explain\n", "step: explain\nnames: [w1]\n")
    with pytest.raises(BadInput, match="it names w1, and needs 0 workers"):
        _built(example)
    _edit(source, "{workers: 0,", "{workers: 1,")
    with pytest.raises(BadInput, match="step 'predict' or its check: it calls w1 by name"):
        _built(example)
    _edit(source, "step: predict\n", "step: predict\nnames: [w1]\n")
    spec = _built(example)
    assert (spec.names, spec.step("predict").names, spec.needs.names) == (["w1"], ("w1",), ())
    assert spec_from_json(spec.as_json(), "lab.json") == spec


def test_lab_build_looks_at_given_objects_and_at_what_varies_too(example: LabFiles) -> None:
    _edit(example.folder / "setup.yaml", "kind: Service", "kind: Service  # for w2")
    with pytest.raises(BadInput, match=r"setup\.yaml: it calls w2 by name"):
        _built(example)
    _edit(example.folder / "setup.yaml", "  # for w2", "")
    _edit(example.source, "[red, green, blue]", "[red, green, w1]")
    with pytest.raises(BadInput, match=r"`lab\.params`: it calls w1 by name"):
        _built(example)


def test_of_our_labs_only_that_on_statefulsets_names_no_node() -> None:
    labs = {files.name: files.spec for files in all_labs()}
    assert [name for name, spec in labs.items() if not spec.names] == ["05-statefulset"]
    assert [name for name, spec in labs.items() if spec.names and not spec.needs.names] == ["03-pods"]


def test_lab_03_loses_its_pod_by_hand_and_nothing_else(tmp_path: Path) -> None:
    [files] = [each for each in all_labs() if each.name == "03-pods"]
    lab = CheckContext(files.spec, files.checks, cluster_of(*THEIRS), "ada", Store(files.name, tmp_path))
    assert lost_steps(lab.spec, lab.checkset, lab.cluster) == ["by-hand", "tidy"]
    assert left_out(lab) == ["pod/neighbour", "pod/visitor"]
