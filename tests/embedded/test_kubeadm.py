"""What kubeadm is told."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from lab_utils.embedded import kubeadm, slow


def documents(**changes: Any) -> dict[str, dict[str, Any]]:
    wanted: dict[str, Any] = {
        "ip": "172.31.64.11",
        "node": "cp",
        "token": "abcdef.0123456789abcdef",
        "kubernetes": "v1.36.3",
        "cgroup": "v1",
        "proxy_mode": "iptables",
        "alone": False,
    }
    return {document["kind"]: document for document in yaml.safe_load_all(kubeadm.init_config(**{**wanted, **changes}))}


def test_kubelet_is_told_to_accept_cgroup_v1_only_where_it_is_met() -> None:
    assert documents(cgroup="v1")["KubeletConfiguration"]["failCgroupV1"] is False
    assert "failCgroupV1" not in documents(cgroup="v2")["KubeletConfiguration"]


def test_systemd_manages_cgroups_on_v2() -> None:
    assert documents(cgroup="v2")["KubeletConfiguration"]["cgroupDriver"] == "systemd"


def test_the_control_plane_keeps_its_taint_unless_it_is_alone() -> None:
    assert "taints" not in documents()["InitConfiguration"]["nodeRegistration"]
    assert documents(alone=True)["InitConfiguration"]["nodeRegistration"]["taints"] == []


def test_where_everything_is_slow_nobody_is_ended_for_a_lease_that_was_renewed_late() -> None:
    assert slow.patches(1) == {}
    assert "scheduler" not in documents()["ClusterConfiguration"], "kubeadm's own"
    added = {name: yaml.safe_load(text) for name, text in slow.patches(20).items() if name.endswith("0+json.yaml")}
    assert set(added) == {"kube-scheduler0+json.yaml", "kube-controller-manager0+json.yaml", "etcd0+json.yaml"}
    assert all(each["op"] == "add" and each["path"] == "/spec/containers/0/command/-" for patch in added.values() for each in patch)
    words = {name: [each["value"] for each in patch] for name, patch in added.items()}
    assert words["kube-scheduler0+json.yaml"] == ["--leader-elect=false"]
    assert words["kube-controller-manager0+json.yaml"] == ["--leader-elect=false", "--node-monitor-grace-period=1000s"]
    assert "--watch-progress-notify-interval=60s" in words["etcd0+json.yaml"]


def test_where_everything_is_slow_kubelet_gives_the_control_plane_more_time_to_answer() -> None:
    usual, slowly = (documents(patience=factor) for factor in (1, 20))
    assert "patches" not in usual["InitConfiguration"]
    assert slowly["InitConfiguration"]["patches"] == {"directory": slow.PATCHES}
    texts = {name: text for name, text in slow.patches(20).items() if name.endswith("+strategic.yaml")}
    patches = {name.removesuffix("+strategic.yaml"): yaml.safe_load(text)["spec"]["containers"][0] for name, text in texts.items()}
    assert set(patches) == set(slow.PROBES)
    assert patches["kube-apiserver"]["livenessProbe"]["timeoutSeconds"] == 300
    go = [{"name": "GOMAXPROCS", "value": "1"}, {"name": "GOGC", "value": "400"}]
    assert all(patch["env"] == go for patch in patches.values())
    assert not slow.units(1)
    assert slow.units(20) == {slow.UNITS: "[Manager]\nDefaultEnvironment=GOMAXPROCS=1 GOGC=400\n"}
    # kubeadm gives it none, and a patch would make one that asks nothing, which no API server takes.
    assert "readinessProbe" not in patches["kube-controller-manager"]
    assert slowly["KubeletConfiguration"]["runtimeRequestTimeout"] == "2400s"


def test_kubeadm_itself_waits_as_long_as_the_machine_needs_it() -> None:
    assert slow.waits(1, control_plane=True) == slow.waits(1, control_plane=False) == {}
    init, join = (slow.waits(20, control_plane=alike) for alike in (True, False))
    assert init["timeouts"] == join["timeouts"] and init["timeouts"]["controlPlaneComponentHealthCheck"] == "4800s"
    assert init["patches"] == {"directory": slow.PATCHES} and "patches" not in join, "a worker has no Pods from files"


# Two seconds were not enough for a containerd on an emulated machine; on the other, nothing listened.
PREFLIGHT = """[preflight] Some fatal errors occurred:
\t[ERROR CRI]: could not connect to the container runtime: failed to create new CRI runtime service: validate service connection: \
validate CRI v1 runtime API for endpoint "unix:///run/containerd/containerd.sock": rpc error: code = {}
error: error execution phase preflight: preflight checks failed
To see the stack trace of this error execute with --v=5 or higher
"""
LATE = PREFLIGHT.format("DeadlineExceeded desc = context deadline exceeded while waiting for connections to become ready")
DEAD = PREFLIGHT.format('Unavailable desc = connection error: desc = "transport: Error while dialing: dial unix: connect: no such file"')


def test_a_runtime_that_is_late_is_asked_again_and_one_that_is_dead_is_not() -> None:
    assert slow.too_late(LATE) and not slow.too_late(DEAD) and not slow.too_late("")


def test_of_what_kubeadm_said_the_line_that_tells_why_is_shown() -> None:
    assert kubeadm.reason(LATE).startswith("[ERROR CRI]: could not connect to the container runtime")
    assert kubeadm.reason("I1130 something\nended after 600 s\n") == "ended after 600 s"
    assert kubeadm.reason("\n") == "it said nothing"


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_the_proxy_mode_is_passed_on(mode: str) -> None:
    assert documents(proxy_mode=mode)["KubeProxyConfiguration"]["mode"] == mode


def test_flannel_has_its_images_and_the_pod_subnet() -> None:
    images = {"flannel": "example.org/flannel:1", "flannel-cni-plugin": "example.org/plugin:1"}
    text = kubeadm.flannel(api="172.31.64.11", images=images)
    *_, daemon = documents = list(yaml.safe_load_all(text))
    kinds = [document["kind"] for document in documents]
    assert kinds[0] == "Namespace"
    assert kinds[-1] == "DaemonSet"
    assert f'"Network": "{kubeadm.POD_SUBNET}"' in text
    assert "{FLANNEL}" not in text and "example.org/flannel:1" in text
    arguments = daemon["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments == ["--ip-masq", "--kube-subnet-mgr", "--iface=eth0"]
    assert '"--iface=eth0", --iptables-resync=100]' in kubeadm.flannel(api="172.31.64.11", images=images, patience=20)
    # It does not wait for kube-proxy's rules.
    assert {"name": "KUBERNETES_SERVICE_HOST", "value": "172.31.64.11"} in daemon["spec"]["template"]["spec"]["containers"][0]["env"]


def test_the_hash_of_a_ca_is_what_openssl_computes() -> None:
    # openssl x509 -pubkey -in ca.crt | openssl pkey -pubin -outform der | sha256sum
    pem = """-----BEGIN CERTIFICATE-----
MIIBgDCCASegAwIBAgIUNCkDl4verGbL9zqIlU1Dj6aJMlcwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjEwODExNDNaGA8yMTI2MTAy
ODA4MTE0M1owFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABAeR9p7Cs0hwjlf/OIfSQ/bTFiNG56huacL2PfzKGC0TTsBQ9Mfn
ij7ytVbfzkSYjOzIcRSvgyG8lZb5U1MVpPejUzBRMB0GA1UdDgQWBBRyQ73CGsSO
vHANT14puCId7gncijAfBgNVHSMEGDAWgBRyQ73CGsSOvHANT14puCId7gncijAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIDfkPM6n0Y5Q0GzDeO/M
unRisMAvW8AeoJgUEFSE8K1sAiA3XcS2LjulmVaSJsZadGW84jUxBp/92+sANxzO
Kpe7vQ==
-----END CERTIFICATE-----
"""
    assert kubeadm.ca_hash(pem) == "sha256:77f6d493ccb580ab10b323300a15d4fc903eb4737d8ed9a3c2fc7ded12162ac7"


def test_a_users_kubeconfig_carries_the_clusters_name() -> None:
    admin = yaml.safe_dump(
        {
            "clusters": [{"name": "kubernetes", "cluster": {"server": "https://172.31.64.11:6443"}}],
            "users": [{"name": "kubernetes-admin", "user": {}}],
            "contexts": [],
            "current-context": "x",
        }
    )
    config = yaml.safe_load(kubeadm.user_kubeconfig(admin, "team-2"))
    assert config["current-context"] == "team-2"
    assert config["contexts"][0]["context"] == {"cluster": "team-2", "user": "team-2-admin"}


@pytest.mark.parametrize("name", ["n", "y", "no", "on", "12", "1e3", "team-2"])
def test_a_cluster_may_be_called_what_other_readers_of_yaml_take_for_no_text(name: str) -> None:
    admin = "clusters: [{name: kubernetes, cluster: {}}]\nusers: [{name: admin, user: {}}]\n"
    text = kubeadm.user_kubeconfig(admin, name)
    assert text.count(f'"{name}"') == 4
    assert yaml.safe_load(text)["current-context"] == name
