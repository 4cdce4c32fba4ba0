"""A learner's `lab` on a real cluster: prepared once, checked honestly, reset to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_utils.cluster import Cluster
from lab_utils.errors import BadInput, NoSuchCluster
from lab_utils.lab import Lab, reset_lab
from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.lifecycle import leftovers
from lab_utils.labs.render import Report

pytestmark = pytest.mark.cluster
NOTES = "lab-99"


@pytest.fixture
def files(example: LabFiles, found: Path) -> Iterator[LabFiles]:
    """The scaffold, seen by a learner of its own on the suite's cluster."""
    yield example
    reset_lab(example.name)


def solve(lab: Lab) -> None:
    lab.answer("predict", 2)
    lab.answer("explain", "controller-manager")
    lab.kubectl(
        "create", "configmap", "notes", f"--from-literal=port={lab.params['port']}", f"--from-literal=colour={lab.params['colour']}"
    )
    lab.inject("selector-wrong", name="door")
    lab.kubectl("patch", "service", "door", "--patch", '{"spec": {"selector": {"app": "door"}}}')


def test_a_lab_from_its_beginning_to_its_end(files: LabFiles) -> None:
    lab = Lab("99")
    assert [result.status for result in lab.check().results] == ["failed"] * 4, "nothing is done yet"
    solve(lab)
    report = lab.check()
    assert report.passed, report.text()
    assert report.earned == 16
    assert "16 of 16 points" in str(lab.progress())
    again = Lab("99-example")
    assert again.check().passed, "a new kernel knows what was done"
    assert again.params == lab.params
    done = subprocess.run([sys.executable, "-m", "lab_utils", "check", "99"], text=True, capture_output=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "16 of 16 points")
    lab.reset()
    assert lab.store.answers == {}
    assert lab.find("configmap", "notes") is None
    assert lab.find("service", "door") is not None, "the starting state is there again"
    assert not lab.check("notes").passed


def test_a_restart_does_not_undo_what_a_learner_mended(files: LabFiles) -> None:
    lab = Lab("99")
    lab.kubectl("patch", "service", "door", "--patch", '{"spec": {"selector": {"app": "mine"}}}')
    assert (Lab("99").find("service", "door") or {})["spec"]["selector"] == {"app": "mine"}


def test_a_namespace_that_was_deleted_is_prepared_anew(files: LabFiles) -> None:
    Lab("99").cluster.kubectl("delete", "namespace", NOTES)
    assert Lab("99").find("service", "door") is not None


def test_reset_in_a_new_process_undoes_faults_and_leaves_nothing(files: LabFiles) -> None:
    lab = Lab("99")
    lab.inject("selector-wrong", name="door")
    code = "from lab_utils.lab import reset_lab; print(reset_lab('99'))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.stdout == "99-example\n", done.stderr
    assert leftovers(lab) == []


def test_commands_in_cells_go_to_the_labs_namespace(files: LabFiles) -> None:
    lab = Lab("99")
    lab.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "here"}})
    done = subprocess.run(["kubectl", "get", "configmap", "here", "-o", "name"], text=True, capture_output=True)
    assert done.stdout == "configmap/here\n", done.stderr
    mode = Path(os.environ["KUBECONFIG"]).stat().st_mode
    assert mode & 0o077 == 0, "it holds the administrator's key"


def test_hints_come_one_by_one(files: LabFiles) -> None:
    lab = Lab("99")
    _, second = lab.spec.step("notes").hints
    assert second not in str(lab.hint("notes"))
    lab.check("notes")
    lab.check("notes")
    assert second in str(lab.hint("notes"))


def test_an_answer_to_no_step_or_of_no_json_is_refused(files: LabFiles) -> None:
    lab = Lab("99")
    with pytest.raises(BadInput, match="has no step 'predicted'"):
        lab.answer("predicted", 2)
    with pytest.raises(BadInput, match=r"is still `\.\.\.`"):
        lab.answer("predict", ...)


def test_a_namespace_of_somebody_else_is_not_taken(files: LabFiles, cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", NOTES)
    try:
        with pytest.raises(BadInput, match="the namespace lab-99 exists and is not this lab's"):
            Lab("99")
        reset_lab("99")
        assert cluster.kubectl("get", "namespace", NOTES, "-o", "name").ok, "a reset does not take it either"
    finally:
        cluster.kubectl("delete", "namespace", NOTES)


def test_a_finalizer_that_nobody_serves_does_not_keep_the_lab(files: LabFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab_utils.labs.lifecycle.NAMESPACE_SECONDS", 3)
    lab = Lab("99")
    lab.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stuck", "finalizers": ["example.com/never"]}})
    lab.reset()
    assert lab.find("configmap", "stuck") is None


def test_what_lies_outside_of_namespaces_goes_too(files: LabFiles, cluster: Cluster) -> None:
    setup = files.folder / "setup.yaml"
    setup.write_text(
        setup.read_text() + "---\napiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata:\n  name: lab-99-urgent\nvalue: $port\n"
    )
    lab = Lab("99")
    assert (lab.find("priorityclass", "lab-99-urgent") or {})["value"] == lab.params["port"]
    assert "priorityclass.scheduling.k8s.io/lab-99-urgent" in leftovers(lab)
    reset_lab("99")
    assert leftovers(lab) == []


def test_in_the_graders_sandbox_the_notebook_only_records_answers(files: LabFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    box = files.root / "box"
    monkeypatch.setenv("LAB_ANSWERS", str(box / "answers.json"))
    monkeypatch.setenv("LAB_LEARNER", "s1")
    lab = Lab("99")
    lab.inject("selector-wrong", name="door")
    lab.reset()
    lab.answer("predict", 2)
    report = lab.check("predict")
    monkeypatch.delenv("LAB_ANSWERS")
    assert isinstance(report, Report)
    assert report.results == []
    assert json.loads((box / "answers.json").read_text())["answers"] == {"predict": 2}
    assert lab.find("namespace", NOTES) is None, "it was not prepared from inside the sandbox"


def test_what_the_cluster_lacks_is_said(files: LabFiles) -> None:
    text = files.declared.read_text()
    files.declared.write_text(text.replace('"workers": 0', '"workers": 5').replace('"proxy": ""', '"proxy": "ipvs"'))
    card = str(Lab("99"))
    assert "lacking    5 workers (there are" in card
    assert "kube-proxy in ipvs mode (it is in iptables mode)" in card


def test_without_a_cluster_one_reads_how_to_start_one(files: LabFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_CLUSTER_FILE")
    with pytest.raises(NoSuchCluster, match="Start one with"):
        Lab("99")
    monkeypatch.setenv("LAB_CLUSTER_FILE", str(files.root / "cluster.json"))


def test_tables_and_drawings_come_from_live_state(files: LabFiles) -> None:
    lab = Lab("99")
    assert "door" in str(lab.show("services"))
    assert "control-plane" in str(lab.show("nodes")) or "cp" in str(lab.show("nodes"))
    assert lab.show("cluster").svg.startswith("<svg")
    with pytest.raises(BadInput, match="There is: pods, services"):
        lab.show("everything")
