from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab_utils.checks import CheckContext, CheckResult, load_checks, run_checks
from lab_utils.cluster import Cluster, ClusterRecord, NodeRecord
from lab_utils.errors import BadInput
from lab_utils.labs.spec import LabSpec, Needs, Step
from lab_utils.labs.store import Store

HEAD = "from lab_utils.checks import check, setup, params\n"


def write(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "checks.py"
    path.write_text(HEAD + body)
    return path


def context(tmp_path: Path, body: str, answers: dict[str, Any] | None = None, cluster: Cluster | None = None) -> CheckContext:
    """A context whose checks do not ask the cluster; that they do is tested in tests/labs on a real one."""
    checkset = load_checks(write(tmp_path, body))
    steps = tuple(Step(one.step, one.points, one.step, ("a", "b"), one.after) for one in checkset.checks.values())
    spec = LabSpec("99-example", "Example", 5, ("Learn",), Needs(), ("lab-99",), steps)
    store = Store("99-example", tmp_path / "store")
    for step, value in (answers or {}).items():
        store.answer(step, value)
    return CheckContext(spec, checkset, cluster, "ada", store)


def run(tmp_path: Path, body: str, answers: dict[str, Any] | None = None) -> list[CheckResult]:
    one = context(tmp_path, body, answers)
    return run_checks(one.checkset, one)


def test_a_check_that_returns_has_passed(tmp_path: Path) -> None:
    (result,) = run(tmp_path, '@check("a", points=5)\ndef _(lab): pass\n')
    assert (result.step, result.status, result.earned, result.points) == ("a", "passed", 5, 5)


def test_a_failed_check_says_what_it_expected_saw_and_where_to_look(tmp_path: Path) -> None:
    (result,) = run(tmp_path, '@check("a", points=5)\ndef _(lab): lab.expect(3, 2, look="kubectl get pods")\n')
    assert (result.status, result.expected, result.seen, result.look) == ("failed", "3", "2", "kubectl get pods")


def test_partial_credit_is_never_more_than_the_points_nor_less_than_none(tmp_path: Path) -> None:
    body = "".join(
        f'@check("{name}", points=5)\ndef _(lab): lab.fail(earned={earned})\n' for name, earned in (("a", 3), ("b", 99), ("c", -4))
    )
    assert [result.earned for result in run(tmp_path, body)] == [3, 5, 0]


def test_parts_share_the_points_and_wrong_ones_are_named(tmp_path: Path) -> None:
    body = '@check("a", points=6)\ndef _(lab): lab.compare({"x": 1, "y": 2, "z": 3}, lab.answered(dict), look="there")\n'
    (result,) = run(tmp_path, body, {"a": {"x": 1, "y": 7}})
    assert result.earned == 2
    assert result.seen == "not right: y: 7; z: nothing"
    assert result.expected == "all 3 parts right; 1 of yours are", "what is right is not given away"


def test_a_child_of_a_failed_step_is_skipped_aloud(tmp_path: Path) -> None:
    body = """
@check("a", points=1)
def _(lab): lab.fail()
@check("b", points=1, after=["a"])
def _(lab): 1/0
@check("c", points=1)
def _(lab): pass
"""
    first, second, third = run(tmp_path, body)
    assert (first.status, second.status, third.status) == ("failed", "skipped", "passed")
    assert second.message == "first pass a: this step builds on it"


def test_one_check_alone_finds_its_parent_in_earlier_results(tmp_path: Path) -> None:
    one = context(tmp_path, '@check("a", points=1)\ndef _(lab): pass\n@check("b", points=1, after=["a"])\ndef _(lab): pass\n')
    assert run_checks(one.checkset, one, only="b")[0].status == "skipped"
    run_checks(one.checkset, one, only="a")
    assert run_checks(one.checkset, one, only="b")[0].passed


def test_a_bug_in_a_check_is_an_error_that_names_the_check(tmp_path: Path) -> None:
    (result,) = run(tmp_path, '@check("a", points=5)\ndef _(lab):\n    return {}["nothing"]\n')
    assert result.status == "error"
    assert result.message == "the check 'a' itself is broken (KeyError: 'nothing'; checks.py, line 4). This is not your fault"


def test_what_the_cluster_lacks_is_skipped_and_its_children_do_not_count_either(tmp_path: Path) -> None:
    body = (
        '@check("a", points=5)\ndef _(lab): lab.need(False, "IP_VS in the kernel")\n@check("b", points=5, after=["a"])\ndef _(lab): pass\n'
    )
    first, second = run(tmp_path, body)
    assert (first.status, first.counts, second.status, second.counts) == ("skipped", False, "skipped", False)
    assert first.message == "this cluster lacks IP_VS in the kernel; the points do not count"


def test_a_check_that_waits_too_long_is_ended(tmp_path: Path) -> None:
    body = """
import time
@check("a", points=5, timeout=0.3)
def _(lab):
    try:
        time.sleep(30)
    except Exception:
        time.sleep(30)
"""
    begin = time.monotonic()
    (result,) = run(tmp_path, body)
    assert time.monotonic() - begin < 5
    assert (result.status, result.earned) == ("error", 0)
    assert "did not end within 0.3 s" in result.message


def test_on_nodes_that_are_emulated_a_check_waits_as_many_times_longer(tmp_path: Path) -> None:
    node = NodeRecord("cp", "192.0.2.1", "control-plane", {"key": "unused", "patience": 20})
    cluster = Cluster(ClusterRecord("slow", "vagrant", "up", str(tmp_path / "kubeconfig"), [node]), [])
    body = """
import time
@check("a", points=5, timeout=0.2)
def _(lab):
    begin = time.monotonic()
    lab.require(lab.eventually(lambda: time.monotonic() > begin + 0.5, timeout=0.1), expected="soon", seen="late")
"""
    one = context(tmp_path, body, cluster=cluster)
    (result,) = run_checks(one.checkset, one)
    assert (result.status, result.message) == ("passed", "")


@pytest.mark.parametrize(
    ("answers", "seen"),
    [
        ({}, "no answer has been recorded"),
        ({"a": "many"}, "'many', which is not a whole number"),
        ({"a": True}, "True, which is not a whole number"),
    ],
)
def test_a_missing_or_odd_answer_is_a_kind_failure_and_never_an_error(tmp_path: Path, answers: dict[str, Any], seen: str) -> None:
    (result,) = run(tmp_path, '@check("a", points=5)\ndef _(lab): lab.expect(3, lab.answered(int))\n', answers)
    assert (result.status, result.seen) == ("failed", seen)
    assert 'lab.answer("a", …)' in result.look


def test_gone_means_that_it_was_there(tmp_path: Path) -> None:
    body = '@check("a", points=5)\ndef _(lab): lab.gone("pod/web", exists=lab.spec.minutes > 5, look="kubectl get pods")\n'
    one = context(tmp_path, body)
    (never,) = run_checks(one.checkset, one)
    assert (never.status, never.seen) == ("failed", "it was never seen")
    one.sight("pod/web", "uid")
    (gone,) = run_checks(one.checkset, one)
    assert gone.passed


def test_steady_refuses_what_is_true_for_a_moment_only(tmp_path: Path) -> None:
    body = """
moments = iter([False, True, False])
@check("a", points=5)
def _(lab): lab.steady(lambda: next(moments), expected="the Pod is Ready", look="there", gap=0)
@check("b", points=5)
def _(lab): lab.steady(lambda: True, expected="the Pod is Ready", look="there", gap=0)
@check("c", points=5)
def _(lab): lab.steady(lambda: False, expected="the Pod is Ready", seen=lambda: "Pending", look="there", timeout=0)
"""
    moment, lasting, never = run(tmp_path, body)
    assert (moment.status, moment.expected) == ("failed", "the Pod is Ready, and lasting")
    assert lasting.passed
    assert (never.status, never.seen) == ("failed", "Pending")


def test_mending_counts_only_what_was_broken(tmp_path: Path) -> None:
    body = '@check("a", points=5)\ndef _(lab): assert lab.injected("dns-broken") == {"x": 1}\n'
    one = context(tmp_path, body)
    assert run_checks(one.checkset, one)[0].seen == "it was not injected yet"
    one.store.add_fault({"id": "1", "name": "dns-broken", "plan": {"x": 1}})
    assert run_checks(one.checkset, one)[0].passed


def test_a_wall_of_output_is_cut(tmp_path: Path) -> None:
    (result,) = run(tmp_path, '@check("a", points=5)\ndef _(lab): lab.fail(seen="x" * 100000)\n')
    assert len(result.seen) < 1000


def test_a_random_generator_is_the_same_every_time_and_another_for_each_step(tmp_path: Path) -> None:
    body = "".join(f'@check("{n}", points=1)\ndef _(lab): lab.fail(seen=lab.rng().random())\n' for n in "ab")
    first, second = run(tmp_path, body), run(tmp_path, body)
    assert [r.seen for r in first] == [r.seen for r in second]
    assert first[0].seen != first[1].seen


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("def broken(\n", "does not load: SyntaxError"),
        ("1/0\n", r"does not load: ZeroDivisionError: division by zero \(line 2\)"),
        ('@check("a", points=1)\ndef _(lab): pass\n' * 2, "two checks are named 'a'"),
        ('@check("a", points=1, after=["b"])\ndef _(lab): pass\n', "is after 'b', which does not exist"),
        ('@check("a", points=1, after=["b"])\ndef _(lab): pass\n@check("b", points=1)\ndef _(lab): pass\n', "which comes later"),
        ('@check("a", points=1, after="b")\ndef _(lab): pass\n', "Write a list"),
        ("@setup\ndef _(lab): pass\n" * 2, "two functions are marked @setup"),
    ],
)
def test_a_file_of_checks_that_cannot_work_is_refused(tmp_path: Path, body: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        load_checks(write(tmp_path, body))


def test_labs_share_nothing(tmp_path: Path) -> None:
    body = """
from dataclasses import dataclass
@dataclass
class Peer:
    name: str
@check("a", points=1)
def _(lab): lab.fail(seen=Peer("x").name)
"""
    for name in "xy":
        (tmp_path / name).mkdir()
    before = set(sys.modules)
    one, other = load_checks(write(tmp_path / "x", body)), load_checks(write(tmp_path / "y", '@check("b", points=1)\ndef _(lab): pass\n'))
    assert set(sys.modules) == before
    assert (list(one.checks), list(other.checks)) == (["a"], ["b"])
    assert not list(tmp_path.rglob("__pycache__")), "a folder of labs stays as it was"


def test_an_unknown_check_is_refused(tmp_path: Path) -> None:
    one = context(tmp_path, '@check("a", points=1)\ndef _(lab): pass\n')
    with pytest.raises(BadInput, match="There are: a"):
        run_checks(one.checkset, one, only="b")
