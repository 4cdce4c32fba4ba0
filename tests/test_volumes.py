"""Claims, volumes and who uses them, read from API objects, and drawn."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from lab_utils import draw
from lab_utils.volumes import Chain, chains, nodes_of


def pod(name: str, claim: str, node: str = "w1", phase: str = "Running") -> dict[str, Any]:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}, {"name": "own", "emptyDir": {}}]
    return {"metadata": {"name": name}, "spec": {"nodeName": node, "volumes": volumes}, "status": {"phase": phase}}


def claim(name: str, volume: str = "", **metadata: Any) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "shop"}
    phase = "Bound" if volume else "Pending"
    return {"metadata": {"name": name, **metadata}, "spec": {**spec, "volumeName": volume}, "status": {"phase": phase}}


def volume(name: str, node: str = "w1", owner: str = "", storage_class: str = "shop", namespace: str = "shop") -> dict[str, Any]:
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    spec: dict[str, Any] = {
        "capacity": {"storage": "2Gi"},
        "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
        "storageClassName": storage_class,
        "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": f"/data/{name}"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
    }
    if owner:
        spec["claimRef"] = {"namespace": namespace, "name": owner}
    return {"metadata": {"name": name}, "spec": spec, "status": {"phase": "Bound" if owner else "Available"}}


def of(pods: list[dict[str, Any]], claims: list[dict[str, Any]], volumes: list[dict[str, Any]]) -> list[Chain]:
    return chains(pods, claims, volumes, "shop", "shop")


def test_a_chain_leads_from_pods_through_a_claim_to_a_folder_on_a_node() -> None:
    [chain] = of([pod("b", "till"), pod("a", "till")], [claim("till", "pv-1")], [volume("pv-1", owner="till")])
    assert [user.name for user in chain.users] == ["a", "b"]
    assert chain.claim and chain.claim.modes == ("RWO",) and chain.claim.asks == "1Gi"
    assert chain.volume and (chain.volume.kind, chain.volume.path, chain.volume.nodes) == ("local", "/data/pv-1", ("w1",))


def test_a_claim_without_a_volume_and_a_volume_without_a_claim_are_told() -> None:
    found = of([], [claim("waits")], [volume("free")])
    assert [(bool(each.claim), bool(each.volume)) for each in found] == [(True, False), (False, True)]


def test_volumes_of_other_people_are_not_told() -> None:
    assert of([], [], [volume("theirs", owner="till", namespace="bank"), volume("other", storage_class="gold")]) == []


def test_what_was_deleted_and_is_held_by_a_finalizer_is_leaving() -> None:
    [chain] = of([], [claim("till", "pv-1", deletionTimestamp="2026-01-01T00:00:00Z")], [volume("pv-1", owner="till")])
    assert chain.claim and chain.claim.leaving


def test_a_volume_that_any_node_may_have_names_none() -> None:
    assert nodes_of({"hostPath": {"path": "/data"}}) == ()


def test_the_drawing_says_in_its_table_and_its_description_what_it_shows() -> None:
    found = of(
        [pod("shop-0", "till"), pod("late", "till", "", "Pending")], [claim("till", "pv-1"), claim("waits")], [volume("pv-1", owner="till")]
    )
    drawing = draw.volumes(found, "Tills")
    root = ElementTree.fromstring(drawing.svg)
    words = " ".join(root.itertext())
    for word in ("shop-0", "late", "till", "waits", "Pending", "pv-1", "/data/pv-1", "w1"):
        assert word in words
    assert ("shop-0 (w1), late (Pending)" in str(drawing)) or ("late (Pending), shop-0 (w1)" in str(drawing))
    assert draw.volumes(found, "Tills").svg == drawing.svg


def test_nothing_can_be_drawn_too() -> None:
    assert "There is nothing." in draw.volumes([]).svg
