"""The judge is judged: `lab_utils.policies.allowed` says what a real cluster did under a real engine (kube-router), as it was recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from lab_utils.paths import repo_dir
from lab_utils.policies import Request, World, allowed

SNAPSHOTS = repo_dir() / "tests" / "data" / "snapshots"
SEEN = json.loads((SNAPSHOTS / "policies" / "seen.json").read_text())


@pytest.fixture(scope="module")
def world() -> World:
    pods = json.loads((SNAPSHOTS / "policies" / "api" / "pods.json").read_text())
    documents = [each for each in yaml.safe_load_all((SNAPSHOTS / "policies.yaml").read_text()) if each]
    namespaces = {pod["metadata"]["namespace"]: {"metadata": {"name": pod["metadata"]["namespace"]}} for pod in pods}
    namespaces |= {each["metadata"]["name"]: each for each in documents if each["kind"] == "Namespace"}
    # Each node's own addresses, as they were: on the bridge, on the tunnel, on the wire.
    own = {"cp": ("10.244.0.1", "10.244.0.0", "172.31.65.11"), "w1": ("10.244.1.1", "10.244.1.0", "172.31.65.12")}
    return World([each for each in documents if each["kind"] == "NetworkPolicy"], pods, list(namespaces.values()), own)


def to_pods() -> list[Any]:
    """Requests to a Pod's own address, from somebody else: the others are changed by kube-proxy on their way."""
    known = [each for each in SEEN if each["to"].startswith("10.244.") and each["source"] != each["to"].partition(":")[0]]
    return [pytest.param(each, id=f"{each['from']} to {each['to']}") for each in known]


@pytest.mark.parametrize("record", to_pods())
def test_the_evaluator_says_what_kube_router_did(world: World, record: dict[str, Any]) -> None:
    address, _, port = record["to"].partition(":")
    request = Request(record["source"], address, record["protocol"].upper(), int(port))
    assert allowed(world, request) == (record["result"] == "answered")
