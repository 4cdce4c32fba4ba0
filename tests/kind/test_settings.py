"""What kind is told: names, ports, the Pod network and the kubelet."""

from __future__ import annotations

import pytest
import yaml

from lab_utils.errors import BadInput
from lab_utils.kind.settings import config, container_of, node_names, read_port, why_kind_failed


def test_kinds_names_of_our_nodes() -> None:
    assert [container_of("shop", name) for name in node_names(3)] == [
        *("shop-control-plane", "shop-worker", "shop-worker2", "shop-worker3")
    ]


def test_kubernetes_is_told_our_names_of_the_nodes() -> None:
    told = yaml.safe_load(config("shop", workers=2, image="node:1", proxy_mode="nftables"))
    patches = [yaml.safe_load(node["kubeadmConfigPatches"][0]) for node in told["nodes"]]
    assert [(patch["kind"], patch["nodeRegistration"]["name"]) for patch in patches] == [
        *(("InitConfiguration", "cp"), ("JoinConfiguration", "w1"), ("JoinConfiguration", "w2"))
    ]
    assert {node["image"] for node in told["nodes"]} == {"node:1"}
    assert told["networking"]["kubeProxyMode"] == "nftables"
    assert told["networking"]["disableDefaultCNI"] is True


def test_the_kubelet_is_told_to_live_with_cgroup_v1() -> None:
    told = yaml.safe_load(config("shop", workers=0, image="node:1", proxy_mode="iptables"))
    assert yaml.safe_load(told["kubeadmConfigPatches"][0]) == {"kind": "KubeletConfiguration", "failCgroupV1": False}


def test_ports_are_opened_on_the_hosts_loopback_alone() -> None:
    told = yaml.safe_load(config("shop", workers=1, image="node:1", proxy_mode="iptables", ports=["8080:30080", "30443"]))
    assert told["nodes"][0]["extraPortMappings"] == [
        {"hostPort": 8080, "containerPort": 30080, "listenAddress": "127.0.0.1"},
        {"hostPort": 30443, "containerPort": 30443, "listenAddress": "127.0.0.1"},
    ]
    assert "extraPortMappings" not in told["nodes"][1]


@pytest.mark.parametrize("text", ["", "http", "0:80", "80:0", "70000", "80:", ":80", "80:90:100", "-1:80", "8080 :30080"])
def test_a_port_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="cannot be a pair of ports"):
        read_port(text)


def test_the_cause_of_a_failure_is_found_among_kinds_many_lines() -> None:
    said = [
        "Creating cluster ...",
        "ERROR: failed to create cluster: failed to init node with kubeadm: command failed",
        "Command Output: I0101 00:00:00.000000",
        "error execution phase wait-control-plane: could not initialize a Kubernetes cluster",
        "goroutine 1",
    ]
    assert why_kind_failed(said) == "error execution phase wait-control-plane: could not initialize a Kubernetes cluster"
    assert why_kind_failed(said[:2]) == "failed to init node with kubeadm: command failed"
    assert why_kind_failed(["", "something else"]) == "something else"
    assert why_kind_failed([]) == "it said nothing"
