"""What kubeadm is told, and the manifests that are applied after it. Pure: text and objects out, nothing is run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from lab_utils.embedded import slow

POD_SUBNET = "10.244.0.0/16"
SERVICE_SUBNET = "10.96.0.0/16"
SOCKET = "unix:///run/containerd/containerd.sock"

# Preflight checks that look at the host's kernel rather than at the node, and cannot hold in a namespace:
# SystemVerification reads the kernel's configuration and cgroup tree, Swap and Mem the whole machine's memory,
# NumCPU its processors, FileContent a sysctl that exists only where br_netfilter is a module of the host.
IGNORED = (
    "SystemVerification,Swap,NumCPU,Mem,FileContent--proc-sys-net-bridge-bridge-nf-call-iptables,FileContent--proc-sys-net-ipv4-ip_forward"
)


def reason(errors: str) -> str:
    """Of all that a kubeadm that failed has said, the line that tells why."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return next((line for line in lines if "[ERROR" in line or line.startswith("error")), lines[-1] if lines else "it said nothing")


def init_config(
    *,
    ip: str,
    node: str,
    token: str,
    kubernetes: str,
    cgroup: str,
    proxy_mode: str,
    alone: bool,
    etcd_sync: bool = False,
    patience: float = 1,
) -> str:
    """The configuration of `kubeadm init`. `alone` (no workers): Pods may run on the control plane."""
    registration: dict[str, Any] = {
        "name": node,
        "criSocket": SOCKET,
        "imagePullPolicy": "IfNotPresent",
        "kubeletExtraArgs": [{"name": "node-ip", "value": ip}],
    }
    if alone:
        registration["taints"] = []
    init = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": ip, "bindPort": 6443},
        "bootstrapTokens": [{"token": token, "ttl": "0s", "description": "made by lab up"}],
        "nodeRegistration": registration,
    }
    cluster: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "kubernetesVersion": kubernetes,
        # An RSA key pair costs a second of processor time, and kubeadm makes a dozen; ECDSA costs none.
        "encryptionAlgorithm": "ECDSA-P256",
        "networking": {"podSubnet": POD_SUBNET, "serviceSubnet": SERVICE_SUBNET},
        "apiServer": {"certSANs": [ip, node, "localhost", "127.0.0.1"]},
        # The default ServiceAccount, without which no Pod starts, waits in this controller's queue behind its own rate limit.
        "controllerManager": {"extraArgs": [{"name": "kube-api-qps", "value": "300"}, {"name": "kube-api-burst", "value": "600"}]},
    }
    if not etcd_sync:
        # A killed etcd loses nothing by this; only a host that loses power does, and then `lab reset` puts back what `up` had made.
        cluster["etcd"] = {"local": {"extraArgs": [{"name": "unsafe-no-fsync", "value": "true"}]}}
    kubelet = kubelet_config(cgroup)
    init |= slow.waits(patience, control_plane=True)  # what else a slow machine needs are patches
    slow.relax_kubelet(kubelet, patience)
    return yaml.safe_dump_all([init, cluster, kubelet, proxy_config(proxy_mode)], sort_keys=False)


def kubelet_config(cgroup: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd" if cgroup == "v2" else "cgroupfs",
        "failSwapOn": False,
        # The disk is the host's own: what fills it is seldom a Pod, and evicting Pods would not help.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
    }
    if cgroup == "v1":
        config["failCgroupV1"] = False  # kubelet 1.35 and later refuse v1 without this (KEP-5573)
        config["cgroupRoot"] = "/kubelet"
    return config


def proxy_config(mode: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        # nf_conntrack_max belongs to the host and cannot be set in a network namespace; 0 leaves all of these as they are.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def join_config(*, ip: str, node: str, token: str, endpoint: str, ca_hash: str, patience: float = 1) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "JoinConfiguration",
            "discovery": {"bootstrapToken": {"apiServerEndpoint": endpoint, "token": token, "caCertHashes": [ca_hash]}},
            "nodeRegistration": {
                "name": node,
                "criSocket": SOCKET,
                "imagePullPolicy": "IfNotPresent",
                "kubeletExtraArgs": [{"name": "node-ip", "value": ip}],
            },
            **slow.timeouts(patience),
        },
        sort_keys=False,
    )


def ca_hash(pem: str) -> str:
    """What `kubeadm join` calls --discovery-token-ca-cert-hash: SHA-256 over the CA's public key (SubjectPublicKeyInfo)."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def ca_of(kubeconfig: str) -> str:
    data = yaml.safe_load(kubeconfig)
    return base64.b64decode(data["clusters"][0]["cluster"]["certificate-authority-data"]).decode()


def user_kubeconfig(admin: str, name: str) -> str:
    """kubeadm's admin.conf with the cluster's own name in it, so that several can be told apart."""
    data = yaml.safe_load(admin)
    quoted = _Quoted(name)
    data["clusters"][0]["name"] = quoted
    data["users"][0]["name"] = f"{name}-admin"
    data["contexts"] = [{"name": quoted, "context": {"cluster": quoted, "user": f"{name}-admin"}}]
    data["current-context"] = quoted
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)


class _Quoted(str):
    """kubectl's YAML takes n, y, no, on and 12 for something else than names, and n and y are none of those to PyYAML."""


class _Dumper(yaml.SafeDumper):
    """One of our own, so that nobody else's YAML changes."""


_Dumper.add_representer(_Quoted, lambda dumper, name: dumper.represent_scalar("tag:yaml.org,2002:str", str(name), style='"'))


def manifest(name: str, **values: str) -> str:
    text = files("lab_utils").joinpath("manifests", f"{name}.yaml").read_text()
    for key, value in values.items():
        text = text.replace("{" + key + "}", value)
    return text


# Which device flannel tunnels over. A machine whose first card is its provider's way out has the nodes' network on another, whose
# name differs: there flannel is told the node's own address (--node-ip) instead, from its Pod's environment.
DEVICE_OF_NODE_IP = "$(NODE_IP)"


FLANNEL_IMAGES = ("flannel", "flannel-cni-plugin")  # as versions.toml calls them


def flannel(*, api: str, images: Mapping[str, str], iface: str = "eth0", patience: float = 1) -> str:
    """`api`: the API server's host, as every node reaches it without a Service; `images`: the names of FLANNEL_IMAGES."""
    names = {"FLANNEL": images["flannel"], "CNI_PLUGIN": images["flannel-cni-plugin"]}
    words = ", ".join(["--ip-masq", "--kube-subnet-mgr", f'"--iface={iface}"', *slow.flannel(patience)])
    return manifest("flannel", POD_SUBNET=POD_SUBNET, API_HOST=api, ARGUMENTS=words, **names)
