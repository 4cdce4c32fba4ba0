"""An add-on's objects on a cluster. On somebody's own, what was not there before carries a label, so that `lab down` finds it again."""

from __future__ import annotations

import json
from typing import Any

import yaml

from lab_utils.cluster import Cluster, is_ours

GIVEN = "kubernetes-inside-out/given"


def put(cluster: Cluster, text: str) -> None:
    if is_ours(cluster.record):  # it goes as a whole
        cluster.apply(text)
        return
    found = json.loads(cluster.kubectl("get", "-f", "-", "--ignore-not-found", "-o", "json", input=text).stdout or "{}")
    there = found.get("items", [found] if found else [])
    cluster.apply(marked([each for each in yaml.safe_load_all(text) if each], there))


def marked(objects: list[dict[str, Any]], there: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These objects, with the label where they are ours. A kind of somebody else's stays in the version that its users know. Pure."""
    theirs = {_key(each) for each in there if GIVEN not in each["metadata"].get("labels", {})}
    for each in objects:
        if _key(each) not in theirs:
            each["metadata"].setdefault("labels", {})[GIVEN] = "yes"
    return [each for each in objects if each["kind"] != "CustomResourceDefinition" or _key(each) not in theirs]


def _key(item: dict[str, Any]) -> tuple[str, str, str]:
    metadata = item["metadata"]
    return item["kind"], metadata.get("namespace", ""), metadata["name"]


def kinds(cluster: Cluster, *, namespaced: bool) -> list[str]:
    """What can be listed and deleted there. With one broken extension (a metrics-server that is down) kubectl lists the rest, and ends
    with 1."""
    asked = ["api-resources", f"--namespaced={str(namespaced).lower()}", "--verbs=list,delete", "-o", "name"]
    return cluster.kubectl(*asked, check=False).stdout.split() or cluster.kubectl(*asked).stdout.split()


def in_namespaces(cluster: Cluster) -> list[dict[str, Any]]:
    """What add-ons put into namespaces that were there before them, such as kube-system; enough of each to delete it."""
    said = cluster.kubectl("get", ",".join(kinds(cluster, namespaced=True)), "-A", "-l", GIVEN, "-o", "json", check=False).stdout
    fields = ("namespace", "name")
    return [
        {"apiVersion": each["apiVersion"], "kind": each["kind"], "metadata": {key: each["metadata"][key] for key in fields}}
        for each in json.loads(said or "{}").get("items", [])
    ]
