"""What kind is told: names, ports, the Pod network and the kubelet."""

from __future__ import annotations

import pytest
import yaml

from lab_utils.errors import BadInput
from lab_utils.kind.settings import busy_port, config, container_of, did_not_start, node_names, read_port, read_ports, why_kind_failed


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


def test_a_port_of_the_host_leads_to_one_place_only() -> None:
    assert read_ports(["8080:30080", "30443", "8081:30080"]) == [(8080, 30080), (30443, 30443), (8081, 30080)]
    with pytest.raises(BadInput, match="--port names port 8080 of this host twice"):
        read_ports(["8080:30080", "30443", "8080:30081"])


# As kind v0.33 says it on Docker 20.10: its own line holds the whole `docker run`, Docker's the cause. test_docker.py asks real ones.
BUSY = [
    "Creating cluster ...",
    'ERROR: failed to create cluster: command "docker run --name lab-control-plane kindest/node" failed with error: exit status 125',
    "Command Output: 0d0a",
    "docker: Error response from daemon: driver failed programming external connectivity on endpoint lab-control-plane (1f): "
    "Bind for 127.0.0.1:8080 failed: port is already allocated.",
]


def test_dockers_own_words_go_before_kinds() -> None:
    said = why_kind_failed(BUSY)
    assert said.startswith("Docker says: driver failed programming") and said.endswith("port is already allocated")


@pytest.mark.parametrize(
    "said",
    [
        BUSY[-1],
        "failed to bind host port for 127.0.0.1:8080:172.18.0.2:30080/tcp: address already in use",
        "failed to bind host port 127.0.0.1:8080/tcp: address already in use",
        "Error starting userland proxy: listen tcp4 127.0.0.1:8080: bind: address already in use.",
        "Ports are not available: exposing port TCP 127.0.0.1:8080 -> 127.0.0.1:0: listen tcp 127.0.0.1:8080: bind: address already in use",
    ],
)
def test_a_port_that_somebody_else_has_is_found_in_the_words_of_every_docker(said: str) -> None:
    assert busy_port(["Creating cluster ...", said]) == 8080
    assert not did_not_start([said])


def test_other_errors_name_no_busy_port() -> None:
    assert busy_port(["docker: Error response from daemon: Conflict. The container name is already in use by container 12:34."]) is None


@pytest.mark.parametrize(
    "said",
    [
        'ERROR: failed to create cluster: could not find a log line that matches "Reached target .*Multi-User System.*|detected cgroup v1"',
        "[kubelet-check] The kubelet is not healthy after 4m0.000s",
        "Failed to create inotify object: Too many open files",
    ],
)
def test_a_node_that_did_not_start_says_so(said: str) -> None:
    assert did_not_start(["Creating cluster ...", said])


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
