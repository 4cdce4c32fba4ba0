"""The kubeconfig provider on a real cluster: the suite's own, used as if it were somebody else's."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_utils.addons import makes_volumes
from lab_utils.checks import run_checks
from lab_utils.cluster import Cluster, Node, cluster_dir, known_clusters
from lab_utils.errors import BadInput, HostLacks, NoNodeAccess, Unhealthy
from lab_utils.kubeconfig.access import NAMESPACE, made, manifest
from lab_utils.kubeconfig.objects import ours
from lab_utils.labs.catalog import find_lab
from lab_utils.labs.context import CheckContext
from lab_utils.labs.lifecycle import clean, missing_needs, prepare
from lab_utils.labs.reach import lost_steps
from lab_utils.labs.store import Store
from lab_utils.labs.workspace import LABEL
from lab_utils.network_policy import engine_of
from lab_utils.paths import repo_dir
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, provider
from lab_utils.run import run
from tests.conftest import EMBEDDED, PROVIDER
from tests.providers.pristine import everything

pytestmark = pytest.mark.cluster


@pytest.fixture
def name(cluster: Cluster, progress: Progress) -> Iterator[str]:
    name = f"theirs-{os.getpid()}"
    yield name
    provider("kubeconfig").down(name, progress)


@pytest.fixture
def looking(cluster: Cluster, name: str, progress: Progress) -> Cluster:
    """Without access to the nodes."""
    return provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(cluster.kubeconfig)), progress)


@pytest.fixture
def inside(cluster: Cluster, name: str, progress: Progress) -> Cluster:
    """With the Pods that reach them."""
    return provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(cluster.kubeconfig), node_access="debug"), progress)


def test_it_is_seen_as_it_is_and_nothing_is_made_on_it(cluster: Cluster, looking: Cluster) -> None:
    assert [(node.name, node.role, node.ip) for node in looking.nodes] == [(node.name, node.role, node.ip) for node in cluster.nodes]
    assert looking.record.kubernetes == cluster.record.kubernetes
    assert all(node.running and node.ready for node in provider("kubeconfig").status(looking.record))
    assert ours(looking) == []
    assert looking.kubeconfig != cluster.kubeconfig and looking.kubeconfig.stat().st_mode & 0o077 == 0


def test_without_access_every_way_onto_a_node_says_what_would_give_it(looking: Cluster, tmp_path: Path) -> None:
    node = looking.nodes[0]
    for attempt in (lambda: node.run("true"), lambda: node.put(b"", "/root/x"), lambda: node.get("/etc/hosts"), node.iptables):
        with pytest.raises(NoNodeAccess, match=r"gives no access to its nodes.*--node-access debug"):
            attempt()
    with pytest.raises(BadInput, match="images cannot be loaded"):
        provider("kubeconfig").load(looking.record, tmp_path / "image.tar", _quiet())


def test_a_lab_says_which_steps_it_loses_without_access(looking: Cluster) -> None:
    lab = find_lab("08")
    assert missing_needs(lab.spec, looking) == ["access to its nodes"]
    lost = lost_steps(lab.spec, lab.checks, looking)
    assert "chains" in lost and "diagnose" not in lost


def test_a_refused_up_is_not_on_record(cluster: Cluster, name: str, progress: Progress) -> None:
    with pytest.raises(BadInput, match="an engine's image has to be loaded on the nodes, and they are out of reach"):
        provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(cluster.kubeconfig), network_policy="own"), progress)
    assert name not in known_clusters()


@EMBEDDED
@pytest.mark.timeout(900)
def test_it_keeps_to_what_every_provider_does(cluster: Cluster, tmp_path: Path) -> None:
    """The same suite as with PROVIDER=kubeconfig, on this cluster; what needs a cluster of its own is skipped there."""
    told = {"KUBECONFIG": str(cluster.kubeconfig), "LAB_STATE": str(tmp_path), "LAB_TEST_PROVIDER": "kubeconfig", "LAB_TEST_CLUSTER": ""}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/providers/test_conformance.py"]
    done = run(words, cwd=repo_dir(), env=told, check=False, timeout=900)
    print(done.stdout[-5000:])
    assert done.ok and " passed" in done.stdout
    assert ours(cluster) == []


def test_with_access_commands_run_on_the_nodes_themselves(cluster: Cluster, inside: Cluster) -> None:
    assert ours(inside) == [], "a Pod was made before anybody asked for a node"
    for theirs, node in zip(cluster.nodes, inside.nodes, strict=True):
        said = node.run("hostname; id -u; echo err >&2; exit 5")
        assert (said.stdout, said.stderr, said.code) == (theirs.run("hostname").stdout + "0\n", "err\n", 5)
        assert node.run("cat /proc/self/mountinfo | wc -l").code == 0
        assert {link["ifname"] for link in node.links()} >= {"eth0", "flannel.1"}
    assert ours(inside) == [NAMESPACE]
    assert len(inside.get("pods", "-n", NAMESPACE)["items"]) == len(inside.nodes)


def test_reset_and_down_remove_what_labs_made_and_nothing_else(cluster: Cluster, inside: Cluster, name: str, progress: Progress) -> None:
    cluster.kubectl("create", "namespace", "somebodys-own")
    before = everything(cluster)
    try:
        for _ in range(2):
            inside.nodes[0].run("true", check=True)
            labels = {"labels": {LABEL: "99-example"}}
            inside.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab-99", **labels}})
            role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "lab-99", **labels}}
            inside.apply({**role, "rules": []})
            assert ours(inside) == [NAMESPACE, "lab-99"]
            inside = provider("kubeconfig").reset(name, progress)
            assert everything(cluster) == before
        inside.nodes[0].run("true", check=True)
        provider("kubeconfig").down(name, progress)
        assert everything(cluster) == before
        assert name not in known_clusters() and not cluster_dir(name).exists()
        provider("kubeconfig").down(name, progress)  # once more does no harm
    finally:
        cluster.kubectl("delete", "namespace", "somebodys-own")


def test_what_a_lab_did_to_nodes_is_undone_too(inside: Cluster, name: str, progress: Progress) -> None:
    node = inside.nodes[-1]
    inside.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab-08", "labels": {LABEL: "08-services"}}})
    node.run("iptables -w -t mangle -A POSTROUTING -d 192.0.2.1 -m comment --comment 'lab-08: a rule of the lab' -j DROP", check=True)
    inside = provider("kubeconfig").reset(name, progress)
    assert ours(inside) == []
    assert "lab-08" not in inside.nodes[-1].run("iptables-save -t mangle", check=True).stdout


def test_where_that_cannot_be_undone_nothing_is_forgotten(
    inside: Cluster, name: str, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab-08", "labels": {LABEL: "08-services"}}})

    def resists(lab: object) -> None:
        raise Unhealthy("not every fault could be undone: chain-flushed")

    monkeypatch.setattr("lab_utils.labs.lifecycle.clean", resists)
    with pytest.raises(Unhealthy, match="stays on record: not every fault could be undone"):
        provider("kubeconfig").down(name, progress)
    assert name in known_clusters() and ours(inside) == ["lab-08"]
    monkeypatch.undo()
    provider("kubeconfig").down(name, progress)
    assert name not in known_clusters()


def test_add_ons_go_with_it(cluster: Cluster, inside: Cluster, name: str, progress: Progress) -> None:
    before = everything(cluster)
    spec = ClusterSpec(name, kubeconfig=str(cluster.kubeconfig), storage=True, network_policy="own")
    found = provider("kubeconfig").up(spec, progress)
    assert makes_volumes(found) and engine_of(found) == "own"
    found = provider("kubeconfig").reset(name, progress)
    assert makes_volumes(found) and engine_of(found) == "own", "a reset is of what labs made"
    with pytest.raises(BadInput, match=r"the engine own, .* has rules on its nodes"):
        provider("kubeconfig").up(ClusterSpec(name, node_access="none"), progress)
    provider("kubeconfig").down(name, progress)
    assert everything(cluster) == before
    assert not any("policy-" in node.run("nft list tables", check=True).stdout for node in cluster.nodes)


def test_without_access_a_lab_is_prepared_and_its_other_steps_can_be_checked(looking: Cluster, tmp_path: Path) -> None:
    lab = find_lab("08")
    context = CheckContext(lab.spec, lab.checks, looking, "somebody", Store(lab.name, tmp_path))
    try:
        assert prepare(context)
        lost, kept = (run_checks(lab.checks, context, only=step)[0] for step in ("chains", "diagnose"))
        assert (lost.status, lost.counts) == ("skipped", False)
        assert kept.status == "failed", "it is checked: nothing was answered"
    finally:
        clean(context)
    assert ours(looking) == []


def test_a_user_who_may_only_look_is_refused_with_what_is_missing(cluster: Cluster, name: str, progress: Progress, tmp_path: Path) -> None:
    cluster.kubectl("create", "serviceaccount", name, "-n", "default")
    cluster.kubectl("create", "clusterrolebinding", name, "--clusterrole=view", f"--serviceaccount=default:{name}")
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    cluster.apply({**role, "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]})
    cluster.kubectl("create", "clusterrolebinding", f"{name}-nodes", f"--clusterrole={name}", f"--serviceaccount=default:{name}")
    try:
        token = cluster.kubectl("create", "token", name, "-n", "default").stdout.strip()
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        with pytest.raises(BadInput, match=r"may not create namespaces on https://.*cluster-admin"):
            provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(path)), progress)
        assert name not in known_clusters() and not cluster_dir(name).exists()
    finally:
        cluster.kubectl("delete", "clusterrolebinding", name, f"{name}-nodes")
        cluster.kubectl("delete", "clusterrole", name)
        cluster.kubectl("delete", "serviceaccount", name, "-n", "default")


def test_a_cluster_that_went_away_can_still_be_forgotten(looking: Cluster, name: str, progress: Progress) -> None:
    text = looking.kubeconfig.read_text()
    looking.kubeconfig.write_text(text.replace(str(looking.record.options["server"]), "https://127.0.0.1:1"))
    assert not any(node.running for node in provider("kubeconfig").status(looking.record))
    provider("kubeconfig").down(name, progress)
    assert name not in known_clusters()


def test_but_not_while_pods_may_be_there_that_are_root_on_its_nodes(
    cluster: Cluster, inside: Cluster, name: str, progress: Progress
) -> None:
    node = inside.nodes[0]
    node.run("true", check=True)
    text = inside.kubeconfig.read_text()
    inside.kubeconfig.write_text(text.replace(str(inside.record.options["server"]), "https://127.0.0.1:1"))
    with pytest.raises(HostLacks, match=rf"root on its nodes: node-{node.name} in {NAMESPACE}\).*stays on record: .*nothing listens there"):
        provider("kubeconfig").down(name, progress)
    assert name in known_clusters()
    inside.kubeconfig.write_text(text)  # as when the tunnel is open again
    provider("kubeconfig").down(name, progress)
    assert name not in known_clusters() and not cluster_dir(name).exists() and ours(cluster) == []


def test_who_no_longer_allows_the_pods_has_none_of_them_left(cluster: Cluster, inside: Cluster, name: str, progress: Progress) -> None:
    inside.nodes[0].run("true", check=True)
    assert ours(cluster) == [NAMESPACE]
    closed = provider("kubeconfig").up(ClusterSpec(name, node_access="none"), progress)
    assert ours(cluster) == [] and made(closed.record) == []
    with pytest.raises(NoNodeAccess):
        closed.nodes[0].run("true")


@contextmanager
def administrator(cluster: Cluster, name: str) -> Iterator[str]:
    """A token of one who may do everything, until the end."""
    cluster.kubectl("create", "serviceaccount", name, "-n", "default")
    cluster.kubectl("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", f"--serviceaccount=default:{name}")
    try:
        yield cluster.kubectl("create", "token", name, "-n", "default").stdout.strip()
    finally:
        cluster.kubectl("delete", "clusterrolebinding", name)
        cluster.kubectl("delete", "serviceaccount", name, "-n", "default")


def as_user(cluster: Cluster, path: Path, **user: Any) -> Path:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = user
    path.write_text(yaml.safe_dump(config))
    return path


def test_down_keeps_the_record_until_it_could_remove_everything(cluster: Cluster, name: str, progress: Progress, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    with administrator(cluster, name) as token:
        as_user(cluster, path, token=token)
        found = provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(path), node_access="debug"), progress)
        found.nodes[0].run("true", check=True)
    cluster.wait(lambda: not found.kubectl("get", "--raw=/readyz", check=False).ok)  # the API server remembers a token for a while
    with pytest.raises(HostLacks, match=rf"stays on record: .*does not accept this user.*Log in anew, then `lab down --name {name}` again"):
        provider("kubeconfig").down(name, progress)
    assert name in known_clusters() and ours(cluster) == [NAMESPACE]
    with administrator(cluster, name) as token:
        as_user(cluster, path, token=token)
        provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(path)), progress)
        provider("kubeconfig").down(name, progress)
    assert name not in known_clusters() and ours(cluster) == []


def test_down_keeps_the_record_while_a_namespace_does_not_end(
    cluster: Cluster, looking: Cluster, name: str, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = {"namespace": "lab-99", "name": "held", "finalizers": ["example.com/held"]}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab-99", "labels": {LABEL: "99-example"}}})
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    monkeypatch.setattr("lab_utils.kubeconfig.objects.PATIENCE", 3)
    try:
        with pytest.raises(Unhealthy, match=rf"stays on record: these namespaces do not end: lab-99.*`lab down --name {name}` again"):
            provider("kubeconfig").down(name, progress)
        assert name in known_clusters()
    finally:
        cluster.kubectl("patch", "configmap", "held", "-n", "lab-99", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    monkeypatch.undo()
    provider("kubeconfig").down(name, progress)
    assert name not in known_clusters() and ours(cluster) == []


def test_a_record_is_never_lost_to_another_cluster_or_to_a_failure(
    cluster: Cluster, inside: Cluster, name: str, progress: Progress, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in cluster_dir(name).iterdir()}
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["contexts"].append({**config["contexts"][0], "name": "other"})
    (tmp_path / "k").write_text(yaml.safe_dump(config))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(yaml.safe_dump(config).replace(str(inside.record.options["server"]), "https://127.0.0.1:1"))
    for wrong in (ClusterSpec(name, kubeconfig=str(tmp_path / "k"), context="other"), ClusterSpec(name, kubeconfig=str(elsewhere))):
        with pytest.raises(BadInput, match=rf"exists for context .* of server https://.*`lab down --name {name}`.*another --name"):
            provider("kubeconfig").up(wrong, progress)
    with pytest.raises(HostLacks, match="does not accept this user"):
        provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(as_user(cluster, tmp_path / "k", token="x"))), progress)
    assert {path.name: path.read_bytes() for path in cluster_dir(name).iterdir()} == before
    again = provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(cluster.kubeconfig)), progress)
    assert again.record == inside.record, "what was allowed before stays allowed"
    refused = provider("kubeconfig").up(ClusterSpec(name, kubeconfig=str(cluster.kubeconfig), node_access="none"), progress)
    assert refused.record.options["node_access"] == "none"


@pytest.mark.parametrize("way", ["exec", "tokenFile"])
def test_credentials_beside_one_of_several_kubeconfigs_are_found_from_anywhere(
    cluster: Cluster, name: str, progress: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    folder = tmp_path / "users"
    (folder / "bin").mkdir(parents=True)
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "bin/login", "interactiveMode": "Never"}
    path = as_user(cluster, folder / "k", **({"exec": plugin} if way == "exec" else {"tokenFile": "token"}))
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({"users": config.pop("users")}))
    (tmp_path / "clusters").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'clusters'}:{path}")
    with administrator(cluster, name) as token:
        said = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "status": {"token": token}}
        (folder / "token").write_text(token)
        (folder / "bin/login").write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(said)}\nEND\n")
        (folder / "bin/login").chmod(0o755)
        found = provider("kubeconfig").up(ClusterSpec(name), progress)
        assert len(found.get("nodes")["items"]) == len(cluster.nodes)
        assert found.kubeconfig.stat().st_mode & 0o077 == 0
        provider("kubeconfig").down(name, progress)


class TestAPodThatIsNoMore:
    def test_one_that_was_removed_is_made_again_and_the_command_runs_once(self, cluster: Cluster, inside: Cluster) -> None:
        node = inside.nodes[-1]
        node.run("rm -f /root/times", check=True)
        cluster.kubectl("delete", "namespace", NAMESPACE)
        assert node.run("cat >> /root/times; wc -l < /root/times", input="a line\n").stdout == "1\n"
        node.run("rm /root/times", check=True)

    def test_one_that_failed_is_made_anew(self, cluster: Cluster, inside: Cluster) -> None:
        node = inside.nodes[-1]
        space, pod = manifest(node.name, f"node-{node.name}")
        pod["spec"] |= {"restartPolicy": "Never", "containers": [{**pod["spec"]["containers"][0], "command": ["false"]}]}
        cluster.apply([space, pod])
        cluster.wait(f"pod/node-{node.name} jsonpath={{.status.phase}}=Failed -n {NAMESPACE}")
        assert node.run("hostname", check=True).stdout == cluster.nodes[-1].run("hostname").stdout

    def test_one_that_is_removed_under_a_command_is_told_and_the_command_not_repeated(self, cluster: Cluster, inside: Cluster) -> None:
        node = inside.nodes[-1]
        node.run("rm -f /root/times", check=True)
        with ThreadPoolExecutor() as pool:
            running = pool.submit(node.run, "echo >> /root/times; sleep 50")
            cluster.wait(lambda: cluster.nodes[-1].run("test -s /root/times").ok)
            cluster.kubectl("delete", "pod", "-n", NAMESPACE, f"node-{node.name}")
            with pytest.raises(Unhealthy, match=f"node {node.name} cannot be reached by its Pod"):
                running.result()
        assert node.run("wc -l < /root/times; rm /root/times", check=True).stdout == "1\n"

    @pytest.mark.skipif(PROVIDER == "kubeconfig", reason="a kubelet of somebody's own cluster could not be started again from here")
    def test_a_kubelet_that_is_down_is_no_answer_of_the_command(self, cluster: Cluster, inside: Cluster) -> None:
        node = inside.nodes[-1]
        node.run("true", check=True)
        cluster.nodes[-1].run("systemctl stop kubelet", check=True)
        try:
            with pytest.raises(Unhealthy, match=rf"node {node.name} cannot be reached by its Pod: .*connection refused"):
                node.run("true")
        finally:
            cluster.nodes[-1].run("systemctl start kubelet", check=True)
        cluster.wait(lambda: _answers(node))

    def test_a_command_that_only_says_so_is_believed(self, inside: Cluster) -> None:
        said = inside.nodes[-1].run("echo 'Error from server (NotFound): pods' >&2; exit 1")
        assert (said.code, said.stderr) == (1, "Error from server (NotFound): pods\n")
        assert inside.nodes[-1].run("kill -9 $$").code == 137


def _answers(node: Node) -> bool:
    try:
        return node.run("true").ok
    except Unhealthy:
        return False


def _quiet() -> Progress:
    from lab_utils.progress import Silent

    return Silent()
