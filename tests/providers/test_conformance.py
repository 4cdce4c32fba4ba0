"""What every provider keeps to, whatever its nodes are. One suite; `make test PROVIDER=kind` runs it on another provider.

What a provider cannot do by its nature is skipped aloud: a cluster that is somebody's own is neither made nor removed.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from lab_utils import artifacts
from lab_utils.cluster import Cluster, Node, cluster_dir, connect, known_clusters
from lab_utils.errors import BadInput, CommandFailed, LabError, NoSuchCluster
from lab_utils.progress import Progress
from lab_utils.providers import Provider, provider
from tests.conftest import OWN, PROVIDER, spec_for
from tests.providers.pristine import everything
from tests.providers.traces import look, what_is_left

pytestmark = pytest.mark.cluster

WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: NODE
  tolerations: [{operator: Exists}]
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
    args: [netexec, --http-port=8080]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


@pytest.fixture
def makes(cluster: Cluster) -> Provider:
    return provider(cluster.provider)


@pytest.fixture
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace; gone afterwards."""
    name = f"conformance-{os.getpid()}"
    cluster.kubectl("create", "namespace", name)
    cluster.wait(lambda: cluster.kubectl("get", "serviceaccount", "default", "-n", name, check=False).ok, timeout=60)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=true", timeout=180)


class TestNodes:
    @OWN
    def test_their_names_are_cp_w1_w2_here_and_in_kubernetes(self, cluster: Cluster) -> None:
        assert [(node.name, node.role) for node in cluster.nodes] == [("cp", "control-plane"), ("w1", "worker"), ("w2", "worker")]
        assert [node["metadata"]["name"] for node in cluster.get("nodes")["items"]] == ["cp", "w1", "w2"]
        assert [node.run("hostname").stdout.strip() for node in cluster.nodes] == ["cp", "w1", "w2"]

    def test_their_addresses_are_those_that_kubernetes_knows(self, cluster: Cluster) -> None:
        known = {
            item["metadata"]["name"]: [each["address"] for each in item["status"]["addresses"] if each["type"] == "InternalIP"]
            for item in cluster.get("nodes")["items"]
        }
        assert {node.name: [node.ip] for node in cluster.nodes} == known

    def test_their_kubelets_have_the_version_that_is_recorded(self, cluster: Cluster) -> None:
        versions = {item["status"]["nodeInfo"]["kubeletVersion"] for item in cluster.get("nodes")["items"]}
        assert versions == {cluster.record.kubernetes}

    def test_status_says_that_all_of_them_run_and_are_ready(self, cluster: Cluster, makes: Provider) -> None:
        assert [(node.name, node.running, node.ready) for node in makes.status(cluster.record)] == [
            (node.name, True, True) for node in cluster.nodes
        ]

    def test_an_unknown_one_is_refused_with_those_that_there_are(self, cluster: Cluster) -> None:
        with pytest.raises(BadInput, match=f"It has: {cluster.nodes[0].name}"):
            cluster.node("w9")


class TestCommandsOnANode:
    def test_keep_their_streams_and_their_code(self, cluster: Cluster) -> None:
        said = cluster.nodes[-1].run("echo out; echo err >&2; exit 7")
        assert (said.stdout, said.stderr, said.code) == ("out\n", "err\n", 7)

    def test_run_as_root_on_the_node_itself(self, cluster: Cluster) -> None:
        for node in cluster.nodes:
            assert node.run("id -u; cat /proc/1/comm").stdout.split() == ["0", "systemd"]
        assert len({node.run("cat /proc/sys/kernel/random/boot_id /etc/machine-id").stdout for node in cluster.nodes}) == len(cluster.nodes)

    def test_take_words_as_they_are_and_lines_as_a_shell_does(self, cluster: Cluster) -> None:
        words = ["printf", "%s|", "a b", "$HOME", "it's", '"', ""]
        assert cluster.nodes[0].run(words).stdout == "a b|$HOME|it's|\"||"
        assert cluster.nodes[0].run("for i in 1 2; do echo $i; done | sort -r").stdout == "2\n1\n"

    def test_read_what_is_given_to_them(self, cluster: Cluster) -> None:
        assert cluster.nodes[-1].run("cat", input="through\n").stdout == "through\n"
        big = "x" * 2_000_000
        assert len(cluster.nodes[-1].run("cat", input=big).stdout) == len(big)

    def test_are_given_all_of_it_also_when_they_read_late(self, cluster: Cluster) -> None:
        big = b"x" * 9_000_000  # several times what ssh sends ahead
        done = cluster.nodes[-1].run("sleep 2; wc -c", input=big, timeout=60, check=True)
        assert int(done.stdout) == len(big)

    def test_may_say_much(self, cluster: Cluster) -> None:
        assert len(cluster.nodes[-1].run("head -c 3000000 /dev/zero | tr '\\0' x").stdout) == 3_000_000

    def test_are_given_up_when_their_time_is_over(self, cluster: Cluster) -> None:
        node = cluster.nodes[-1]
        begun = time.monotonic()
        assert node.run("sleep 987", timeout=1).code == 124
        assert time.monotonic() - begun < 60 * node.patience
        if PROVIDER in ("embedded", "vagrant"):
            # sshd lets a command without a terminal run on, and passes no signals on to root's.
            node.run("pkill -fx 'sleep 987'")
        cluster.wait(lambda: node.run("pgrep -fx 'sleep 987'").stdout == "", timeout=20)

    def test_that_fail_are_errors_only_where_that_is_asked_for(self, cluster: Cluster) -> None:
        node = cluster.nodes[0]
        assert node.run(["no-such-program"]).code == 127
        with pytest.raises(CommandFailed, match=r"lab ssh .* -- .*false.* ended with code 1"):
            node.run("false", check=True)

    def test_may_be_many_at_once(self, cluster: Cluster) -> None:
        with ThreadPoolExecutor(8) as pool:
            said = list(
                pool.map(lambda number: cluster.nodes[number % len(cluster.nodes)].run(f"sleep 0.3; echo {number}").stdout, range(12))
            )
        assert said == [f"{number}\n" for number in range(12)]

    def test_are_what_lab_ssh_runs(self, cluster: Cluster) -> None:
        said = lab("ssh", "--name", cluster.name, cluster.nodes[0].name, "--", "echo out; echo err >&2; exit 3")
        assert (said.stdout, said.returncode) == ("out\n", 3)
        assert "err" in said.stderr.splitlines()

    def test_show_the_journal_by_lab_logs(self, cluster: Cluster) -> None:
        said = lab("logs", "--name", cluster.name, cluster.nodes[0].name, "kubelet")
        assert said.returncode == 0 and "kubelet" in said.stdout
        unknown = lab("logs", "--name", cluster.name, cluster.nodes[0].name, "kubelets")
        assert unknown.returncode == 2 and "has no unit 'kubelets'" in unknown.stderr and not unknown.stdout


class TestFiles:
    def test_go_to_a_node_and_come_back(self, cluster: Cluster) -> None:
        node, data = cluster.nodes[-1], bytes(range(256)) * 4000
        node.put(data, "/root/a folder/it's a blob", mode=0o640)
        assert node.get("/root/a folder/it's a blob") == data
        assert node.run(["stat", "-c", "%a", "/root/a folder/it's a blob"]).stdout.strip() == "640"
        node.run(["rm", "-r", "/root/a folder"], check=True)

    @pytest.mark.skipif(PROVIDER not in ("embedded", "vagrant"), reason="only ssh keeps a connection that can break")
    def test_whose_connection_breaks_leave_no_half_of_them(self, cluster: Cluster) -> None:
        node, draft = cluster.nodes[-1], "/root/half.lab-new"
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(node.put, bytes(200_000_000), "/root/half")
            cluster.wait(lambda: node.run(f"test -s {draft}").ok, timeout=60)
            node.close()
            with pytest.raises(CommandFailed):
                sending.result()
        cluster.wait(lambda: not node.run(f"test -e {draft}").ok, timeout=60)
        assert not node.run("test -e /root/half").ok

    def test_that_are_not_there_are_an_error(self, cluster: Cluster) -> None:
        with pytest.raises(CommandFailed):
            cluster.nodes[0].get("/no/such/file")


class TestLooking:
    def test_at_rules_links_processes_containers_and_sandboxes(self, cluster: Cluster) -> None:
        node = cluster.nodes[0]
        rules = node.iptables()
        assert "KUBE-SERVICES" in str(rules)
        assert {"lo", "eth0", "flannel.1"} <= {link["ifname"] for link in node.links()}
        assert {"kubelet", "kube-apiserver", "etcd"} <= {process.args.split()[0].rpartition("/")[2] for process in node.processes()}
        assert {"etcd", "kube-apiserver", "kube-proxy"} <= {container["metadata"]["name"] for container in node.containers()}
        assert {"kube-system"} <= {sandbox["metadata"]["namespace"] for sandbox in node.sandboxes()}


class TestKubernetes:
    def test_answers_kubectl_and_the_official_client(self, cluster: Cluster) -> None:
        names = {node.name for node in cluster.nodes}
        assert set(cluster.kubectl("get", "nodes", "-o", "name").stdout.split()) == {f"node/{name}" for name in names}
        assert {item.metadata.name for item in cluster.api.list_node().items if item.metadata} == names
        assert not cluster.kubectl("get", "pod", "nobody", check=False).ok
        assert Path(lab("kubeconfig", "--name", cluster.name).stdout.strip()) == cluster.kubeconfig
        assert Path(cluster.kubeconfig).stat().st_mode & 0o077 == 0, "others can read the administrator's key"

    def test_carries_traffic_from_every_node_to_a_pod_on_the_last(self, cluster: Cluster, place: str) -> None:
        cluster.apply(WEB.replace("NODE", cluster.nodes[-1].name), place)
        cluster.wait(f"pod/web condition=Ready -n {place}", timeout=180)
        address = cluster.get("service", "web", "-n", place)["spec"]["clusterIP"]

        def answered(node: Node) -> bool:
            return node.run(f"curl -s --max-time {3 * node.patience:g} http://{address}/hostname").stdout == "web"

        for node in cluster.nodes:
            cluster.wait(partial(answered, node), timeout=30)

    def test_resolves_names_in_pods(self, cluster: Cluster, place: str) -> None:
        words = [
            "run",
            "ask",
            "-n",
            place,
            "--image=docker.io/library/busybox:1.37",
            "--restart=Never",
            "--attach",
            "--rm",
            "--quiet",
            "--",
        ]
        said = cluster.kubectl(*words, "nslookup", "kubernetes.default.svc.cluster.local", timeout=180)
        assert cluster.get("service", "kubernetes", "-n", "default")["spec"]["clusterIP"] in said.stdout


def test_an_image_is_loaded_on_every_node(cluster: Cluster, makes: Provider, progress: Progress, tmp_path: Path) -> None:
    name = f"docker.io/conformance/loaded:{os.getpid()}"
    archive = renamed(artifacts.image("busybox", progress), name, tmp_path / "image.tar")
    for _ in range(2):  # the second time it is there already
        assert name in makes.load(cluster.record, archive, progress)
    for node in cluster.nodes:
        listed = json.loads(node.run("crictl images -o json", check=True).stdout)["images"]
        assert name in {tag for image in listed for tag in image.get("repoTags") or []}, node.name
        node.run(["ctr", "-n", "k8s.io", "images", "rm", name])  # crictl would take every other name of the same image along


@OWN
def test_up_again_finds_it_made_and_another_number_of_workers_is_refused(cluster: Cluster, makes: Provider, progress: Progress) -> None:
    begun = time.monotonic()
    again = makes.up(spec_for(cluster.name), progress)
    assert [(node.name, node.ip) for node in again.nodes] == [(node.name, node.ip) for node in cluster.nodes]
    assert time.monotonic() - begun < 30 * cluster.patience
    with pytest.raises(BadInput, match="exists with 2 workers, not 1"):
        makes.up(spec_for(cluster.name, workers=1), progress)


@OWN
def test_reset_brings_back_the_pristine_cluster(cluster: Cluster, makes: Provider, progress: Progress) -> None:
    pristine = everything(reset(cluster, makes, progress))
    cluster = connect(cluster.name)
    cluster.kubectl("create", "namespace", "litter")
    cluster.kubectl("create", "configmap", "litter", "-n", "kube-system")
    cluster.kubectl("delete", "deployment", "coredns", "-n", "kube-system")
    cluster.kubectl("taint", "node", "w1", "litter=here:NoSchedule")
    cluster.node("w1").run("touch /root/litter; rm -f /opt/cni/bin/flannel", check=True)
    cluster = reset(cluster, makes, progress)
    assert everything(cluster) == pristine
    assert not cluster.get("node", "w1")["spec"].get("taints")
    assert not cluster.node("w1").run("test -e /root/litter").ok
    assert cluster.node("w1").run("test -x /opt/cni/bin/flannel").ok
    for node in cluster.nodes:  # a machine that comes back from a snapshot believes that it is still then
        assert abs(float(node.run(["date", "+%s"]).stdout) - time.time()) < 60, node.name


@OWN
class TestComingAndGoing:
    @pytest.fixture
    def name(self, cluster: Cluster, makes: Provider, progress: Progress) -> Iterator[str]:
        name = f"second-{os.getpid()}"
        yield name
        makes.down(name, progress)

    def test_a_second_cluster_leaves_nothing_and_the_first_untouched(
        self, cluster: Cluster, makes: Provider, progress: Progress, name: str
    ) -> None:
        before = look(makes.name)
        second = makes.up(spec_for(name, workers=0), progress)
        assert [node.name for node in second.nodes] == ["cp"]
        assert {node.ip for node in second.nodes}.isdisjoint({node.ip for node in cluster.nodes})
        second.kubectl("create", "namespace", "only-here")
        assert "only-here" not in cluster.kubectl("get", "namespaces", "-o", "name").stdout
        # Nothing else than the control plane is there, so Pods may run on it.
        assert not second.get("node", "cp")["spec"].get("taints")
        second.close()
        makes.down(name, progress)
        assert what_is_left(makes.name, before) == []
        assert name not in known_clusters() and not cluster_dir(name).exists()
        makes.down(name, progress)  # once more does no harm
        assert all(node.ready for node in makes.status(connect(cluster.name).record))

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
    def test_an_up_that_ends_half_way_leaves_nothing_that_down_does_not_remove(
        self, makes: Provider, progress: Progress, name: str, how: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the logs go
        before = look(makes.name)
        words = ["up", "--name", name, "--provider", makes.name, "--workers", "0"]
        with subprocess.Popen([sys.executable, "-m", "lab_utils", *words], stderr=subprocess.DEVNULL, start_new_session=True) as process:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (cluster_dir(name) / "cluster.json").exists():
                time.sleep(0.05)
            time.sleep(4)
            assert process.poll() is None, "it had already ended"
            process.send_signal(how)
            code = process.wait(240)
        if how == signal.SIGINT:
            assert code == 130
            assert name not in known_clusters()
        makes.down(name, progress)
        assert what_is_left(makes.name, before) == []


@pytest.mark.skipif(PROVIDER in ("embedded", "vagrant"), reason="it makes bare nodes")
def test_bare_nodes_are_refused_where_there_are_none(makes: Provider, progress: Progress) -> None:
    from dataclasses import replace

    with pytest.raises(LabError, match="bare nodes"):
        makes.up(replace(spec_for("bare"), bare=True), progress)
    assert "bare" not in known_clusters()


def test_a_cluster_that_does_not_exist_is_said_to_be_none() -> None:
    with pytest.raises(NoSuchCluster, match="there is no cluster named 'nowhere'"):
        connect("nowhere")


def reset(cluster: Cluster, makes: Provider, progress: Progress) -> Cluster:
    cluster.close()
    return makes.reset(cluster.name, progress)


def renamed(archive: Path, name: str, target: Path) -> Path:
    """The same image under another name: what tools read a name from is its manifest.json or its index.json."""
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old:
            data = (file.read() if (file := old.extractfile(member)) else b"") if member.isfile() else b""
            if member.name == "manifest.json":
                data = json.dumps([{**each, "RepoTags": [name]} for each in json.loads(data)]).encode()
            if member.name == "index.json":
                index = json.loads(data)
                for each in index["manifests"]:
                    each["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
                data = json.dumps(index).encode()
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target


def lab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab_utils", *words], capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )
