"""Behind a proxy of the user's network, clusters on this machine are reached directly; and somebody's own as they are set up to be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils import proxies
from lab_utils.cluster import Cluster, ClusterRecord, NodeRecord, connect, past_proxies
from lab_utils.embedded.gate import Gate
from lab_utils.embedded.kubeadm import user_kubeconfig
from lab_utils.progress import Silent

NOBODY = "http://127.0.0.1:9"  # a proxy that does not answer
EVERY_PROXY = {name: NOBODY for word in proxies.ASKED for name in (word, word.upper())}
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: it
clusters:
- name: it
  cluster:
    server: https://172.31.64.11:6443
contexts:
- {name: it, context: {cluster: it, user: me}}
users:
- {name: me, user: {token: secret}}
"""


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        (KUBECONFIG, ["172.31.64.11"]),
        ('{"clusters": [{"cluster": {"server": "https://kind.local:1"}}]}', []),
        ('{\n "clusters": [{"cluster": {\n  "server": "https://kind.local:1"\n}}]}', ["kind.local"]),
        ("- cluster:\n    server: 'https://[fd00::1]:6443'\n- cluster:\n    server: https://10.0.0.1\n", ["fd00::1", "10.0.0.1"]),
        ("server: https://[fd00", []),
        ("    tls-server-name: other\n", []),
        ("", []),
    ],
)
def test_the_servers_of_a_kubeconfig(text: str, hosts: list[str]) -> None:
    assert proxies.servers(text) == hosts


def test_the_kubeconfig_that_we_write_is_read() -> None:
    assert proxies.servers(user_kubeconfig(KUBECONFIG.replace("it", "kubernetes"), "lab")) == ["172.31.64.11"]


def test_exceptions_are_added_to_those_that_are_there_in_both_spellings() -> None:
    there = {"https_proxy": NOBODY, "NO_PROXY": "a.corp, b.corp", "no_proxy": "b.corp,.c.corp"}
    wanted = "a.corp,b.corp,.c.corp,172.31.64.11"
    assert proxies.around(["172.31.64.11", "", "b.corp"], there) == {"NO_PROXY": wanted, "no_proxy": wanted}


@pytest.mark.parametrize("environment", [{}, {"HTTPS_PROXY": ""}, {"NO_PROXY": "a.corp"}])
def test_where_there_is_no_proxy_nothing_changes(environment: dict[str, str]) -> None:
    assert proxies.around(["172.31.64.11"], environment) == {}


def record(folder: Path, provider: str = "embedded") -> ClusterRecord:
    (folder / "kubeconfig").write_text(KUBECONFIG)
    program = folder / "kubectl"
    program.write_text(f"#!{sys.executable}\nimport json, os\nprint(json.dumps(dict(os.environ)))\n")
    program.chmod(0o755)
    nodes = [NodeRecord("cp", "172.31.64.11", "control-plane"), NodeRecord("w1", "172.31.64.12", "worker")]
    return ClusterRecord("lab", provider, "up", str(folder / "kubeconfig"), nodes, kubectl=str(program))


@pytest.fixture
def behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in EVERY_PROXY.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("provider", ["embedded", "kind", "vagrant"])
def test_kubectl_asks_no_proxy_for_a_cluster_of_ours(provider: str, tmp_path: Path, behind_a_proxy: None) -> None:
    seen = json.loads(Cluster(record(tmp_path, provider), []).kubectl("get", "nodes").stdout)
    assert (seen["NO_PROXY"], seen["no_proxy"], seen["HTTPS_PROXY"]) == (*["172.31.64.11,172.31.64.12"] * 2, NOBODY)


def test_nor_does_the_kubectl_that_waits_for_it(tmp_path: Path, behind_a_proxy: None) -> None:
    known = record(tmp_path)
    gate = Gate(known, known.kubectl, known.kubeconfig, Silent())  # type: ignore[arg-type]  # only its name is asked for
    assert json.loads(gate.kubectl("get", "nodes").stdout)["NO_PROXY"] == "172.31.64.11"


def test_nor_does_the_client(tmp_path: Path, behind_a_proxy: None) -> None:
    from kubernetes.client.rest import should_bypass_proxies

    settings = Cluster(record(tmp_path), []).client.configuration
    assert should_bypass_proxies(settings.host, settings.no_proxy)


def test_somebodys_own_cluster_may_be_behind_the_proxy(tmp_path: Path, behind_a_proxy: None) -> None:
    known = record(tmp_path, "kubeconfig")
    assert past_proxies(known, os.environ) == {}
    cluster = Cluster(known, [])
    assert "NO_PROXY" not in json.loads(cluster.kubectl("get", "nodes").stdout)
    assert (cluster.client.configuration.proxy, cluster.client.configuration.no_proxy) == (NOBODY, None)


def test_a_record_without_a_kubeconfig_yet_has_its_nodes(tmp_path: Path) -> None:
    half = record(tmp_path).but(kubeconfig=str(tmp_path / "later"))
    assert past_proxies(half, EVERY_PROXY)["NO_PROXY"] == "172.31.64.11,172.31.64.12"


@pytest.mark.cluster
def test_a_cluster_answers_behind_a_proxy_that_knows_nothing_of_it(cluster: Cluster, behind_a_proxy: None) -> None:
    if cluster.provider == "kubeconfig":
        pytest.skip("what is in the way to somebody's own cluster is left there")
    names = {node.name for node in cluster.nodes}
    fresh = connect(cluster.name)
    assert {item.metadata and item.metadata.name for item in fresh.api.list_node(_request_timeout=20).items} == names
    assert {item["metadata"]["name"] for item in fresh.get("nodes")["items"]} == names
    words = [sys.executable, "-m", "lab_utils", "kubectl", "--name", cluster.name, "--", "get", "nodes", "-o", "name"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert {line.removeprefix("node/") for line in said.stdout.split()} == names, said.stderr
    gate = Gate(fresh.record, fresh.record.kubectl, str(fresh.kubeconfig), Silent())  # type: ignore[arg-type]
    assert gate.kubectl("get", "--raw=/readyz").stdout == "ok"
    fresh.close()
