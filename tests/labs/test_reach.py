"""Which steps need nodes is read from the checks themselves, so that no author can forget to say it. See test_names.py for names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from lab_utils.checks import load_checks, run_checks
from lab_utils.cluster import Cluster, ClusterRecord, NodeRecord
from lab_utils.kubeconfig.access import closed
from lab_utils.labs.reach import lost_steps
from lab_utils.labs.spec import LabSpec, Needs, Step

CHECKS = """
from lab_utils.checks import check


def rules(lab):
    return [node.iptables() for node in lab.nodes]


def twice(lab):
    return rules(lab) + rules(lab)


@check("pods", points=1)
def _(lab):
    lab.expect(1, len(lab.pods("app=web")))


@check("direct", points=1)
def _(lab):
    lab.node("w1").run("true")


@check("through-others", points=1)
def _(lab):
    twice(lab)


@check("in-a-lambda", points=1)
def _(lab):
    lab.eventually(lambda: lab.http("http://10.0.0.1").ok)


@check("builds-on-one", points=1, after=["direct"])
def _(lab):
    lab.expect(1, 1)


@check("builds-on-none", points=1, after=["pods"])
def _(lab):
    names = [pod["spec"]["nodeName"] for pod in lab.pods()]
    lab.expect("node", names)
"""


STEPS = ("pods", "direct", "through-others", "in-a-lambda", "builds-on-one", "builds-on-none")
SPEC = LabSpec("99-example", "Example", 5, ("Learn",), Needs(), ("lab-99",), tuple(Step(name, 1, name) for name in STEPS))


def out_of_reach() -> Cluster:
    record = ClusterRecord("theirs", "kubeconfig", "up", "", [])
    return Cluster(record, [closed(record, NodeRecord("w1", "10.0.0.1", "worker"))])


def test_steps_that_reach_for_nodes_are_found_directly_through_functions_and_through_what_they_build_on(tmp_path: Path) -> None:
    path = tmp_path / "checks.py"
    path.write_text(CHECKS)
    assert lost_steps(SPEC, load_checks(path), out_of_reach()) == ["direct", "through-others", "in-a-lambda", "builds-on-one"]


def test_a_check_that_finds_nodes_out_of_reach_is_skipped_aloud_and_costs_nothing(tmp_path: Path) -> None:
    context = SimpleNamespace(results={}, step="", points=0, spec=SPEC, cluster=out_of_reach())
    path = tmp_path / "checks.py"
    path.write_text(CHECKS)
    first, child = (run_checks(load_checks(path), context, only=step)[0] for step in ("direct", "builds-on-one"))  # type: ignore[arg-type]
    assert (first.status, first.counts) == ("skipped", False)
    assert first.message == "this cluster lacks access to its nodes; the points do not count"
    assert (child.status, child.counts) == ("skipped", False)
