"""Lab 08 measures what the rules do, and kube-proxy writes them a while after the API has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest

from lab_utils.lab import Lab, reset_lab

pytestmark = pytest.mark.cluster
LAB = "08-services"


@pytest.fixture
def lab(found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("LAB_STATE", str(tmp_path / "state"))
    yield Lab(LAB)
    reset_lab(LAB)


def test_a_right_answer_is_right_though_kube_proxy_has_not_heard_of_the_new_policy(lab: Lab) -> None:
    home = lab.pods("app=door")[0]["spec"]["nodeName"]
    other = next(node for node in lab.cluster.workers if node.name != home)
    go_on = Timer(3, other.run, [["pkill", "-CONT", "-x", "kube-proxy"]])
    other.run(["pkill", "-STOP", "-x", "kube-proxy"], check=True)
    try:
        lab.kubectl("patch", "service", "door", "--patch", '{"spec": {"externalTrafficPolicy": "Local"}}')
        lab.answer("no-answer", {"empty": "refused", "home": "answer", "elsewhere": "timeout"})
        go_on.start()
        report = lab.check("no-answer")
    finally:
        go_on.cancel()
        other.run(["pkill", "-CONT", "-x", "kube-proxy"])
    assert report.passed, report.text()
