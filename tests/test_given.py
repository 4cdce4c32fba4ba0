"""On somebody's own cluster an add-on marks what it brings, and leaves alone what was there."""

from __future__ import annotations

from typing import Any

from lab_utils.given import GIVEN, marked


def thing(kind: str, name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **({"labels": labels} if labels else {})}}


def test_what_is_new_carries_the_label_beside_its_own() -> None:
    found = marked([thing("Namespace", "projectcontour"), thing("ClusterRole", "contour", app="contour")], [])
    assert [each["metadata"].get("labels") for each in found] == [{GIVEN: "yes"}, {"app": "contour", GIVEN: "yes"}]


def test_what_was_given_before_keeps_it() -> None:
    assert marked([thing("Namespace", "x")], [thing("Namespace", "x", **{GIVEN: "yes"})])[0]["metadata"]["labels"] == {GIVEN: "yes"}


def test_what_is_somebody_elses_is_not_taken_for_ours() -> None:
    theirs = [thing("Namespace", "x"), thing("CustomResourceDefinition", "gateways.gateway.networking.k8s.io")]
    found = marked([thing(each["kind"], each["metadata"]["name"]) for each in theirs], theirs)
    assert found == [thing("Namespace", "x")], "nor is a kind of theirs put into another version"
