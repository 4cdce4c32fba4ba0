"""Labs on bare nodes: what is taken from a machine on which a stranger is root, and what is not."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_utils.cluster import Cluster, ClusterRecord
from lab_utils.labs.bare import kubeconfig, meant
from lab_utils.labs.lifecycle import missing_needs
from lab_utils.labs.spec import LabSpec, Needs

CERTIFICATE = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n").decode()
KEY = base64.b64encode(b"-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\n").decode()


def admin_conf(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> str:
    named = {"server": "https://10.0.2.15:6443", "certificate-authority-data": CERTIFICATE, **(cluster or {})}
    keys = {"client-certificate-data": CERTIFICATE, "client-key-data": KEY, **(user or {})}
    return yaml.safe_dump({"clusters": [{"name": "kubernetes", "cluster": named}], "users": [{"name": "kubernetes-admin", "user": keys}]})


def test_the_certificates_of_an_administrator_are_taken_and_the_server_is_the_node_that_was_asked() -> None:
    made = yaml.safe_load(kubeconfig(admin_conf(), "192.168.56.10", "bare"))
    assert made["clusters"][0]["cluster"] == {"server": "https://192.168.56.10:6443", "certificate-authority-data": CERTIFICATE}
    assert made["users"][0]["user"] == {"client-certificate-data": CERTIFICATE, "client-key-data": KEY}


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        ({}, {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", "id > /tmp/owned"]}}),
        ({}, {"auth-provider": {"name": "gcp", "config": {"cmd-path": "/bin/sh"}}}),
        ({}, {"tokenFile": "/etc/shadow"}),
        ({}, {"client-key": "/root/.ssh/id_ed25519"}),
        ({"proxy-url": "http://192.0.2.1:3128", "insecure-skip-tls-verify": True, "certificate-authority": "/etc/passwd"}, {}),
        ({"server": "https://169.254.169.254/"}, {}),
    ],
)
def test_a_program_a_file_or_another_server_that_a_kubeconfig_names_is_left_where_it_is(
    cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    assert kubeconfig(admin_conf(cluster, user), "192.168.56.10", "bare") == kubeconfig(admin_conf(), "192.168.56.10", "bare")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "clusters: []",
        "a: !!python/object/apply:os.system ['id']",
        "{" * 5000,
        admin_conf(user={"client-key-data": "not base64"}),
        admin_conf(user={"client-key-data": base64.b64encode(b"no key").decode()}),
        admin_conf(user={"client-key-data": ["a"]}),
        admin_conf(cluster={"certificate-authority-data": None}),
        "users: &a [*a]",
    ],
)
def test_what_holds_no_certificates_gives_no_kubeconfig(text: str) -> None:
    assert kubeconfig(text, "192.168.56.10", "bare") == ""


def test_a_bare_cluster_is_not_asked_what_only_an_api_can_say() -> None:
    record = ClusterRecord("bare", "embedded", "up", "/nowhere", [], options={"bare": True}, kubectl="/nowhere")
    usual = LabSpec("98-usual", "Usual", 5, ("Look",), Needs(workers=0, access="none", proxy="iptables", metrics=True), ("lab-98",))
    assert missing_needs(usual, Cluster(record, [])) == ["a cluster in which Kubernetes runs (the nodes of this one are bare)"]
    bare = LabSpec("98-bare", "Bare", 5, ("Look",), Needs(workers=0, access="none", bare=True), ("lab-98",))
    assert missing_needs(bare, Cluster(record, [])) == []


def test_a_lab_on_bare_nodes_takes_the_bare_cluster_whatever_else_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    for name in ("LAB_CLUSTER", "LAB_CLUSTER_FILE"):
        monkeypatch.delenv(name, raising=False)
    spec = LabSpec("98-bare", "Bare", 5, ("Look",), Needs(bare=True), ("lab-98",))
    ClusterRecord("lab", "embedded", "up", "/nowhere", [], options={"bare": False}).save()
    assert meant(spec, None) is None
    ClusterRecord("two", "embedded", "up", "/nowhere", [], options={"bare": True}).save()
    assert meant(spec, None) == "two"
    assert meant(spec, "lab") == "lab", "unless somebody names another"
    assert meant(replace(spec, needs=Needs()), None) is None
    monkeypatch.setenv("LAB_CLUSTER", "lab")
    assert meant(spec, None) is None
