"""What kind is told, and how its names and ours go together. Pure: values in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from lab_utils.embedded.kubeadm import POD_SUBNET, SERVICE_SUBNET
from lab_utils.errors import BadInput

# kind wants the image that was built for its own release, named by digest: kind v0.33.0's release notes list this one as the newest of
# the Kubernetes minor version that the course is about. LAB_KIND_IMAGE names another.
RELEASE = "v0.33.0"
IMAGE = "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"

PORT = re.compile(r"(?:(\d{1,5}):)?(\d{1,5})")
LOOPBACK = "127.0.0.1"  # where the host's ports are opened

# How the daemon's own errors begin, after whatever the `docker` command puts before them.
DAEMON = "Error response from daemon: "
# Docker's words for a port of the host that somebody else has, in its versions from 20.10 on.
BUSY = re.compile(r"(?:Bind for|bind host port(?: for)?|listen tcp4?) \S*?:(\d+)\b.*(?:already allocated|already in use)")
# What kind and kubeadm say where systemd or the kubelet did not come up in a container. Of what an image or a port lacks they say nothing.
NOT_STARTED = (
    *("inotify", "too many open files", "could not find a log line that matches", "Failed to allocate manager object"),
    *("kubelet is not healthy", "kubelet isn't running", "wait-control-plane", "localhost:10248", "127.0.0.1:10248"),
)


def container_of(cluster: str, node: str) -> str:
    """kind's name for one of our nodes: cp is NAME-control-plane, w1 NAME-worker, w2 NAME-worker2."""
    if node == "cp":
        return f"{cluster}-control-plane"
    number = int(node.removeprefix("w"))
    return f"{cluster}-worker{number if number > 1 else ''}"


def node_names(workers: int) -> list[str]:
    return ["cp", *(f"w{number}" for number in range(1, workers + 1))]


def config(name: str, *, workers: int, image: str, proxy_mode: str, ports: Sequence[str] = ()) -> str:
    """kind's own configuration of a cluster (kind.x-k8s.io/v1alpha4)."""
    mappings = [{"hostPort": host, "containerPort": node, "listenAddress": LOOPBACK} for host, node in read_ports(ports)]
    nodes: list[dict[str, Any]] = []
    for node in node_names(workers):
        first = node == "cp"
        registration = {"kind": "InitConfiguration" if first else "JoinConfiguration", "nodeRegistration": {"name": node}}
        nodes.append(
            {
                "role": "control-plane" if first else "worker",
                "image": image,
                # Kubernetes knows the node by the name that labs use, whatever its container is called.
                "kubeadmConfigPatches": [yaml.safe_dump(registration)],
                **({"extraPortMappings": mappings} if first and mappings else {}),
            }
        )
    # kubelet 1.35 and later end at once on a host with cgroup v1 without this (KEP-5573).
    kubelet = {"kind": "KubeletConfiguration", "failCgroupV1": False}
    whole = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": name,
        "networking": {
            # flannel, as on the other providers: labs look at its bridge and its tunnel.
            "disableDefaultCNI": True,
            "podSubnet": POD_SUBNET,
            "serviceSubnet": SERVICE_SUBNET,
            "kubeProxyMode": proxy_mode,
        },
        "kubeadmConfigPatches": [yaml.safe_dump(kubelet)],
        "nodes": nodes,
    }
    return yaml.safe_dump(whole, sort_keys=False)


def read_port(text: str) -> tuple[int, int]:
    """ "8080:30080" is the host's port and the nodes' port; one number is both."""
    found = PORT.fullmatch(text)
    numbers = [int(found[1] or found[2]), int(found[2])] if found else []
    if not found or not all(0 < number < 65536 for number in numbers):
        raise BadInput(f"--port {text} cannot be a pair of ports", "Write HOST:NODE, such as 8080:30080")
    return numbers[0], numbers[1]


def read_ports(texts: Sequence[str]) -> list[tuple[int, int]]:
    """All of them; a port of the host leads to one place only."""
    pairs = [read_port(text) for text in texts]
    hosts = [host for host, _ in pairs]
    if twice := [host for host in dict.fromkeys(hosts) if hosts.count(host) > 1]:
        raise BadInput(f"--port names port {twice[0]} of this host twice", "Choose another for one of them")
    return pairs


def busy_port(said: Sequence[str]) -> int | None:
    """The port of the host that Docker could not open, for somebody else has it."""
    found = BUSY.search("\n".join(said))
    return int(found[1]) if found else None


def did_not_start(said: Sequence[str]) -> bool:
    """Whether a node's systemd or kubelet did not come up, as where the host lacks inotify instances."""
    return any(sign in line for line in said for sign in NOT_STARTED)


def why_kind_failed(said: Sequence[str]) -> str:
    """The line of kind's output that names the cause: Docker's own error, or kubeadm's, where there is one."""
    lines = [line.strip() for line in said if line.strip()]
    if refused := [line for line in lines if DAEMON in line]:  # kind's own line before it gives the whole `docker run` and no cause
        return f"Docker says: {refused[-1].partition(DAEMON)[2].rstrip('.')}"
    for sign in ("[ERROR", "error execution phase", "error:", "ERROR:"):
        if named := [line for line in lines if sign in line]:
            return named[-1].removeprefix("ERROR: ").removeprefix("failed to create cluster: ")
    return lines[-1] if lines else "it said nothing"
