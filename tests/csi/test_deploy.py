"""The objects that bring the driver onto a cluster."""

from __future__ import annotations

import ast
import sys
from typing import Any

import pytest

from lab_utils.artifacts.versions import pinned
from lab_utils.csi import deploy

IN_THE_IMAGE = {"grpc": "python3-grpcio", "google": "python3-protobuf", "kubernetes": "python3-kubernetes"}


def made(**options: Any) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in deploy.objects("shop", "disks.shop.example", "shop", **options)}


def containers(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in found["DaemonSet"]["spec"]["template"]["spec"]["containers"]}


def test_every_sidecar_calls_at_a_door_that_the_driver_opens() -> None:
    found = containers(made(snapshots=True))
    doors = next(each["value"] for each in found["driver"]["env"] if each["name"] == "DOORS").split()
    addresses = [word for each in found.values() for word in each.get("args", []) if word.startswith("--csi-address=")]
    assert {word.removeprefix("--csi-address=/sockets/").removesuffix(".sock") for word in addresses} <= set(doors)
    assert len(addresses) == 3


def test_snapshots_come_only_when_they_are_asked_for() -> None:
    assert "CustomResourceDefinition" in made(snapshots=True) and "snapshotter" in containers(made(snapshots=True))
    assert "CustomResourceDefinition" not in made() and "snapshotter" not in containers(made())


def test_every_image_is_pinned_and_every_object_is_known_by_its_label() -> None:
    found = deploy.objects("shop", "disks.shop.example", "shop", snapshots=True, labels={"mine": "yes"})
    assert all(each["metadata"]["labels"] == {"csi-driver": "disks.shop.example", "mine": "yes"} for each in found)
    assert all(pinned().image(each["image"]) for each in containers(made(snapshots=True)).values())


@pytest.mark.parametrize("name", deploy.IN_PODS)
def test_what_runs_in_pods_imports_nothing_that_is_not_there(name: str) -> None:
    packages = pinned().image("csi").packages
    for statement in ast.walk(ast.parse((deploy.CODE / name).read_text())):
        if isinstance(statement, ast.ImportFrom) and statement.level:
            beside = [statement.module] if statement.module else [alias.name for alias in statement.names]
            assert {f"{each}.py" for each in beside} <= set(deploy.IN_PODS)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else [alias.name for alias in statement.names]
            for top in {each.split(".")[0] for each in names} - set(sys.stdlib_module_names):
                assert IN_THE_IMAGE[top] in packages


def test_the_code_fits_into_a_configmap() -> None:
    found = deploy.code()
    assert sum(map(len, [*found["data"].values(), *found["binaryData"].values()])) < 1_000_000


def test_a_method_is_shown_with_its_decorator() -> None:
    text = deploy.source("driver.py", "Node.NodeUnstageVolume")
    assert text.startswith('@needs("volume_id", "staging_target_path")\ndef NodeUnstageVolume(self') and text.endswith("return {}")
