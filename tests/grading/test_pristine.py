"""What a cluster is compared with: how it looks when all of it works."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab_utils.cluster import Cluster
from lab_utils.errors import CommandFailed
from lab_utils.grading import pristine

STARTING = {"node w1": {"ready": "False"}, "DaemonSet kube-system/kube-proxy": {"healthy": True}}
HALF = {"node w1": {"ready": "True"}, "DaemonSet kube-system/kube-proxy": {"healthy": False}}
WELL = {"node w1": {"ready": "True"}, "DaemonSet kube-system/kube-proxy": {"healthy": True}, "on w1: disk": "not full"}


def test_a_cluster_that_is_still_starting_is_not_the_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([STARTING, HALF, WELL])
    assert measured(monkeypatch, lambda cluster: next(looks)) == WELL


def test_one_that_never_works_is_measured_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured(monkeypatch, lambda cluster: HALF) == HALF


def test_a_server_that_has_just_come_back_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(cluster: Cluster) -> dict[str, Any]:
        if (said := next(looks)) is None:
            raise CommandFailed("kubectl get nodes", 1, "", "connection refused")
        return said

    looks = iter([None, WELL])
    assert measured(monkeypatch, look) == WELL


def test_one_that_never_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(cluster: Cluster) -> dict[str, Any]:
        raise CommandFailed("kubectl get nodes", 1, "", "connection refused")

    with pytest.raises(CommandFailed):
        measured(monkeypatch, look)


def measured(monkeypatch: pytest.MonkeyPatch, look: Any) -> dict[str, Any]:
    clock = iter(range(0, 10**6, 50))
    monkeypatch.setattr(pristine, "look", look)
    monkeypatch.setattr(pristine, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: None))
    return pristine.look_when_well(cast(Cluster, SimpleNamespace(patience=1.0)))
