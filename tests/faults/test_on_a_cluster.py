"""Each fault on a real cluster: it shows, it holds, and it is undone. Those that hurt a whole node come last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab_utils.checks import CheckSet
from lab_utils.cluster import Cluster
from lab_utils.errors import BadInput
from lab_utils.faults import fault, inject, undo_all
from lab_utils.faults.rules import read_nat
from lab_utils.labs.lifecycle import clean, prepare
from lab_utils.labs.spec import LabSpec, Needs
from lab_utils.labs.store import Store
from lab_utils.labs.workspace import Workspace
from tests.conftest import OWN

pytestmark = [pytest.mark.cluster, OWN]

SETUP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: httpd
        image: busybox:1.37
        command: [sh, -c, "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{name: small, emptyDir: {medium: Memory, sizeLimit: 4Mi}}]
  containers:
  - name: main
    image: busybox:1.37
    command: [sh, -c, "touch /tmp/ready; exec sleep infinity"]
    volumeMounts: [{name: small, mountPath: /small}]
    readinessProbe: {exec: {command: [cat, /tmp/ready]}, periodSeconds: 1}
"""


@pytest.fixture(scope="module")
def lab(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder: Path = tmp_path_factory.mktemp("faults")
    (folder / "setup.yaml").write_text(SETUP)
    spec = LabSpec("97-faults", "Faults", 5, ("Break things",), Needs(), ("lab-97",))
    made = Workspace(spec, CheckSet(folder / "checks.py"), cluster, "ada", Store("97-faults", folder / "store"))
    clean(made)
    prepare(made)
    try:
        cluster.wait("deployment/web condition=Available -n lab-97", timeout=180)
        cluster.wait("pod/box condition=Ready -n lab-97", timeout=180)
        eventually(lambda: len(set(answers(made, 24))) == 3)  # kube-proxy hears of the EndpointSlice later than we do
        yield made
    finally:
        clean(made)


@pytest.fixture(autouse=True)
def mended(lab: Workspace) -> Iterator[None]:
    yield
    undo_all(lab)
    assert lab.store.faults() == []


def eventually(holds: Callable[[], object], timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.5)


def endpoints(lab: Workspace) -> list[str]:
    slices = lab.objects("endpointslices", "kubernetes.io/service-name=web")
    return [each["addresses"][0] for piece in slices for each in piece.get("endpoints") or [] if each["conditions"].get("ready")]


def pod_is_ready(lab: Workspace) -> bool:
    conditions = (lab.find("pod", "box") or {})["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def node_is_ready(lab: Workspace, name: str) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in lab.cluster.get("node", name)["status"]["conditions"])


def holds(lab: Workspace) -> bool:
    record = lab.store.faults()[-1]
    return fault(record["name"]).holds(lab, record["plan"])


def answers(lab: Workspace, times: int) -> list[str]:
    """The Pods that answer so many visits to the Service, from a node; a visit that none answers is missing."""
    address = (lab.find("service", "web") or {})["spec"]["clusterIP"]
    loop = f"for i in $(seq {times}); do curl -sf -m 1 http://{address}; done"
    return lab.node("cp").run(loop, timeout=times * 2 + 30).stdout.split()


def test_a_lost_rule_loses_a_part_of_the_visits_and_lasts_over_a_sync(lab: Workspace) -> None:
    assert len(answers(lab, 12)) == 12
    change = inject(lab, "rule-lost", service="web", node="cp")["changes"][0]
    time.sleep(35)  # every 30 s kube-proxy looks whether its canary chain is there; if not, it writes all rules anew
    assert holds(lab), "kube-proxy does not heal the chain of one Service in an ordinary sync"
    assert 0 < len(answers(lab, 24)) < 24
    undo_all(lab)
    assert read_nat(lab.node("cp"))[change["chain"]] == change["before"]
    assert len(answers(lab, 12)) == 12


def test_a_changed_endpoint_heals_the_rules(lab: Workspace) -> None:
    inject(lab, "rule-doubled", service="web", node="cp")
    assert holds(lab)
    lab.kubectl("scale", "deployment", "web", "--replicas=2")
    eventually(lambda: not holds(lab))
    lab.kubectl("scale", "deployment", "web", "--replicas=3")
    eventually(lambda: len(endpoints(lab)) == 3)


def test_a_wrong_selector_takes_the_endpoints_and_undoing_gives_them_back(lab: Workspace) -> None:
    inject(lab, "selector-wrong", name="web")
    eventually(lambda: not endpoints(lab))
    undo_all(lab)
    eventually(lambda: len(endpoints(lab)) == 3)


def test_what_a_learner_mended_in_another_way_is_left_alone(lab: Workspace) -> None:
    inject(lab, "target-port-wrong", name="web")
    mend = '[{"op": "replace", "path": "/spec/ports/0/targetPort", "value": 8080}]'
    lab.kubectl("patch", "service", "web", "--type=json", "--patch", mend)
    assert not holds(lab)
    undo_all(lab)
    assert (lab.find("service", "web") or {})["spec"]["ports"][0]["targetPort"] == 8080


@pytest.mark.parametrize(("name", "reason"), [("probe-wrong", ""), ("image-missing", "ErrImage")])
def test_a_broken_template_stops_the_rollout_and_keeps_the_old_pods(lab: Workspace, name: str, reason: str) -> None:
    before = (lab.find("deployment", "web") or {})["spec"]["template"]
    inject(lab, name, name="web")
    eventually(lambda: len(lab.pods("app=web")) > 3 and reason in str(lab.pods("app=web")))
    assert len(endpoints(lab)) == 3
    undo_all(lab)
    assert (lab.find("deployment", "web") or {})["spec"]["template"] == before
    eventually(lambda: len(lab.pods("app=web")) == 3)


def test_a_lost_file_makes_the_pod_unready(lab: Workspace) -> None:
    inject(lab, "file-lost", pod="box", path="/tmp/ready")
    eventually(lambda: not pod_is_ready(lab))
    undo_all(lab)
    eventually(lambda: pod_is_ready(lab))


def test_a_full_disk_takes_no_more_and_only_small_volumes_are_filled(lab: Workspace) -> None:
    inject(lab, "disk-full", pod="box", path="/small")
    assert (
        "No space left"
        in lab.run_in("box", "echo more than one page of text | tr -d e > /small/file; head -c 8192 /dev/zero > /small/file").stderr
    )
    undo_all(lab)
    assert lab.run_in("box", "head -c 8192 /dev/zero > /small/file").ok
    with pytest.raises(BadInput, match="is not a volume of its own"):
        inject(lab, "disk-full", pod="box", path="/tmp")
    with pytest.raises(BadInput, match="may be the node's own disk"):
        inject(lab, "disk-full", pod="box", path="/etc/hosts")


def test_an_object_that_is_not_there_is_refused(lab: Workspace) -> None:
    with pytest.raises(BadInput, match="service lab-97/none does not exist"):
        inject(lab, "selector-wrong", name="none")
    with pytest.raises(BadInput, match="has no node 'w9'"):
        inject(lab, "node-tainted", node="w9")


def test_broken_dns_resolves_nothing_while_addresses_work(lab: Workspace) -> None:
    lookup = "nslookup -timeout=1 web.lab-97.svc.cluster.local"
    assert lab.run_in("box", lookup).ok
    inject(lab, "dns-broken")
    eventually(lambda: not lab.run_in("box", lookup).ok)
    undo_all(lab)
    eventually(lambda: lab.run_in("box", lookup).ok)


def test_a_taint_is_put_on_and_taken_off(lab: Workspace) -> None:
    inject(lab, "node-tainted", node="w1")
    assert holds(lab)
    undo_all(lab)
    assert not lab.cluster.get("node", "w1")["spec"].get("taints")


def test_expired_tokens_are_gone_and_come_back(lab: Workspace) -> None:
    named = ("-n", "kube-system", "--field-selector=type=bootstrap.kubernetes.io/token")
    before = {each["metadata"]["name"]: each["data"] for each in lab.cluster.get("secrets", *named)["items"]}
    if not before:
        pytest.skip("this cluster's bootstrap tokens have expired by themselves")
    inject(lab, "tokens-expired")
    assert not lab.cluster.get("secrets", *named)["items"]
    undo_all(lab)
    assert {each["metadata"]["name"]: each["data"] for each in lab.cluster.get("secrets", *named)["items"]} == before


# on nodes


def test_without_forwarding_a_nodes_pods_are_cut_off(lab: Workspace) -> None:
    inject(lab, "ip-forward-off", node="w1")
    assert lab.node("w1").run("sysctl -n net.ipv4.ip_forward").stdout.strip() == "0"
    undo_all(lab)
    assert lab.node("w1").run("sysctl -n net.ipv4.ip_forward").stdout.strip() == "1"


def test_a_lost_route_is_put_back_as_it_was(lab: Workspace) -> None:
    before = lab.node("cp").run("ip -4 route").stdout
    inject(lab, "route-lost", node="cp", to="w1")
    time.sleep(12)
    assert holds(lab), "flannel's VXLAN backend does not look at its routes by itself"
    undo_all(lab)
    assert sorted(lab.node("cp").run("ip -4 route").stdout.splitlines()) == sorted(before.splitlines())


def test_a_wrong_cni_file_keeps_new_pods_from_starting(lab: Workspace) -> None:
    worker = lab.node("w1")
    before = worker.run("cat /etc/cni/net.d/*").stdout
    inject(lab, "cni-config-wrong", node="w1")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late"}}
    container = {"name": "main", "image": "busybox:1.37", "command": ["sleep", "infinity"]}
    lab.apply({**pod, "spec": {"nodeName": "w1", "terminationGracePeriodSeconds": 0, "containers": [container]}})
    eventually(lambda: "failed to find plugin" in lab.kubectl("get", "events", "--field-selector=involvedObject.name=late").stdout)
    undo_all(lab)
    assert worker.run("cat /etc/cni/net.d/*").stdout == before
    lab.cluster.wait("pod/late condition=Ready -n lab-97", timeout=120)
    lab.kubectl("delete", "pod", "late")


@pytest.mark.parametrize("name", ["kubelet-stopped", "kubelet-config-wrong"])
def test_a_kubelet_that_does_not_run_starts_again_when_undone(lab: Workspace, name: str) -> None:
    worker = lab.node("w1")
    before = worker.run("cat /var/lib/kubelet/config.yaml").stdout
    inject(lab, name, node="w1")
    eventually(lambda: not worker.run("curl -sf http://127.0.0.1:10248/healthz").ok)
    undo_all(lab)
    eventually(lambda: worker.run("curl -sf http://127.0.0.1:10248/healthz").ok)
    assert worker.run("cat /var/lib/kubelet/config.yaml").stdout == before
    eventually(lambda: node_is_ready(lab, "w1"))


@pytest.mark.parametrize("component", ["kube-scheduler", "kube-apiserver"])
def test_a_stopped_component_comes_back_even_if_it_is_the_api_itself(lab: Workspace, component: str) -> None:
    inject(lab, "component-stopped", component=component)
    eventually(lambda: not lab.node("cp").run(["pgrep", "-x", component]).ok)
    undo_all(lab)
    eventually(lambda: lab.node("cp").run(["pgrep", "-x", component]).ok)
    eventually(lambda: lab.cluster.kubectl("get", "--raw", "/readyz", check=False).ok)
