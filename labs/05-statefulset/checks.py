"""Checks of lab 05: names are resolved, Pods replaced, and rows counted, on the cluster itself."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from lab_utils.checks import CheckContext, check, cleanup, setup
from lab_utils.labs.workspace import Workspace

DYNAMIC = "/opt/local-path-provisioner"

# the starting state, and back


@setup
def _(lab: Workspace) -> None:
    lab.cluster.wait(f"pod/client condition=Ready -n {lab.namespace}", timeout=120)
    lab.kubectl("rollout", "status", "statefulset/web", "--timeout=180s", timeout=200)
    lab.store.sight("claims", {name: lab.get("pvc", name)["metadata"]["uid"] for name in ("data-web-0", "data-web-1")})


@cleanup
def _(lab: Workspace) -> None:
    """Volumes go after their claims, in their provisioner's own time: the lab ends when they are gone."""
    lab.kubectl("delete", "statefulsets,deployments", "--all", "--ignore-not-found", check=False)
    lab.kubectl("delete", "pods", "--all", "--grace-period=1", "--ignore-not-found", "--timeout=60s", check=False)
    lab.kubectl("delete", "pvc", "--all", "--ignore-not-found", "--timeout=60s", check=False)
    deadline = time.monotonic() + 90
    while (left := own_volumes(lab)) and time.monotonic() < deadline:
        if kept := [name for name, policy in left.items() if policy != "Delete"]:
            lab.cluster.kubectl("delete", "pv", *kept, "--ignore-not-found", "--wait=false")
        time.sleep(0.5)
    if left:
        lab.cluster.kubectl("delete", "pv", *left, "--ignore-not-found", "--timeout=30s", check=False)


def own_volumes(lab: Workspace) -> dict[str, str]:
    """Volumes that belong to claims of the lab, and their reclaim policy."""
    items = lab.cluster.get("persistentvolumes")["items"]
    return {
        item["metadata"]["name"]: item["spec"]["persistentVolumeReclaimPolicy"]
        for item in items
        if (item["spec"].get("claimRef") or {}).get("namespace") == lab.namespace
    }


# looking


def is_ready(item: Mapping[str, Any] | None) -> bool:
    conditions = item["status"].get("conditions", []) if item else []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def ready_pods(lab: CheckContext, app: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in lab.pods(f"app={app}") if is_ready(each)}


def dig(lab: CheckContext, name: str, kind: str = "A") -> list[str]:
    return lab.run_in("client", ["dig", "+short", "+search", "+time=2", kind, name]).stdout.split("\n")[:-1]


def environment(item: Mapping[str, Any], name: str) -> str:
    return next((str(each.get("value", "")) for each in item["spec"]["containers"][0].get("env") or [] if each["name"] == name), "")


def sql(lab: CheckContext, pod: str, statement: str) -> str:
    said = lab.run_in(pod, ["mariadb", "-u", "root", "-N", "shop", "-e", statement], container="mariadb", timeout=90)
    if not said.ok:
        lab.fail(expected=f"{pod} answers {statement}", seen=said.stderr.strip() or said.stdout.strip(), look=f"kubectl logs {pod}")
    return said.stdout.strip()


def status(lab: CheckContext, pod: str) -> dict[str, str]:
    """What a replica says of its work: SHOW SLAVE STATUS."""
    said = lab.run_in(pod, ["mariadb", "-u", "root", "-E", "-e", "SHOW SLAVE STATUS"], container="mariadb").stdout
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in said.splitlines()) if value}


def is_replica(lab: CheckContext, pod: str, ordinal: int) -> None:
    """It may not be written to, it follows db-0 by its name, and both of its threads run."""
    number, read_only = sql(lab, pod, "SELECT @@server_id, @@read_only").split()
    look = f"kubectl logs {pod} -c configure; kubectl logs {pod} -c clone"
    lab.expect({"server_id": 100 + ordinal, "read_only": 1}, {"server_id": int(number), "read_only": int(read_only)}, look=look)
    lab.eventually(lambda: status(lab, pod).get("Slave_IO_Running") == "Yes", timeout=20)
    said = status(lab, pod)
    wanted = {"Slave_IO_Running": "Yes", "Slave_SQL_Running": "Yes"}
    lab.expect(wanted, {key: said.get(key, "") for key in wanted}, look=f"{look}; SHOW SLAVE STATUS says {said.get('Last_IO_Error', '')}")
    host = said.get("Master_Host", "")
    lab.require(host.split(".")[0] == "db-0", expected="it follows db-0, by its name", seen=host, look=look)


# the steps


@check("names", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({"name": str, "claim": str, "port": int, "made_from": {"StatefulSet", "EndpointSlice", "PersistentVolumeClaim"}})
    pod = lab.find("pod", "web-1")
    lab.require(pod, expected="the Pod web-1", seen="none", look="kubectl get pods")
    assert pod
    right = {"name": True, "claim": pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "made_from": "EndpointSlice"}
    records = dig(lab, f"_http._tcp.web.{lab.namespace}.svc.cluster.local", "SRV")
    right["port"] = next((int(record.split()[2]) for record in records if " web-1." in f" {record}"), 8080)
    # Any name is right that leads to web-1 and to nobody else.
    seen = {**said, "name": dig(lab, said["name"]) == [pod["status"]["podIP"]]}
    lab.compare(right, seen, look="kubectl exec client -- dig +search +short web-1.web; dig SRV _http._tcp.web.lab-05.svc.cluster.local")


@check("replaced", points=12, timeout=180)
def _(lab: CheckContext) -> None:
    said = lab.answered(dict.fromkeys(("name", "uid", "address", "claim", "file", "node"), bool))

    def facts() -> dict[str, Any]:
        pod = lab.get("pod", "web-0")
        claim = pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
        return {
            "name": pod["spec"].get("hostname"),
            "uid": pod["metadata"]["uid"],
            "address": pod["status"].get("podIP"),
            "claim": lab.get("pvc", claim)["metadata"]["uid"],
            "node": pod["spec"]["nodeName"],
        }

    look = "kubectl delete pod web-0, and compare what was before with what is after"
    lab.steady(lambda: is_ready(lab.find("pod", "web-0")), expected="web-0 is Ready", look="kubectl get pods", timeout=60)
    mark = secrets.token_hex(4)
    lab.run_in("web-0", f"echo {mark} > /data/mark")
    before = facts()
    lab.kubectl("delete", "pod", "web-0")
    lab.steady(lambda: is_ready(lab.find("pod", "web-0")), expected="web-0 comes back", look="kubectl get pods", timeout=90)
    after = facts()
    right = {key: before[key] == after[key] for key in before}
    right["file"] = lab.run_in("web-0", "cat /data/mark; rm -f /data/mark").stdout.strip() == mark
    lab.compare(right, said, look=look)


@check("scale", points=8)
def _(lab: CheckContext) -> None:
    spec = lab.get("statefulset", "web")["spec"]
    policy = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    wanted = {"replicas": 2, "whenScaled": "Delete", "whenDeleted": "Retain"}
    seen = {"replicas": spec["replicas"], **{key: policy.get(key, "Retain") for key in ("whenScaled", "whenDeleted")}}
    lab.expect(
        wanted, seen, look="kubectl get statefulset web -o yaml; kubectl explain statefulset.spec.persistentVolumeClaimRetentionPolicy"
    )
    lab.eventually(lambda: lab.find("pvc", "data-web-2") is None, timeout=30)
    lab.require(lab.find("pvc", "data-web-2") is None, expected="the claim data-web-2 is gone", seen="it is there", look="kubectl get pvc")
    uids = {name: (lab.find("pvc", name) or {"metadata": {"uid": "none"}})["metadata"]["uid"] for name in ("data-web-0", "data-web-1")}
    lab.expect(lab.sighted("claims"), uids, look="The claims of the two others are those of the beginning")


@check("canary", points=10)
def _(lab: CheckContext) -> None:
    colour = lab.params["colour"]

    def colours() -> dict[str, str]:
        return {name: environment(each, "COLOUR") for name, each in sorted(ready_pods(lab, "web").items())}

    wanted = {"web-0": "white", "web-1": colour}
    look = "kubectl get statefulset web -o yaml: spec.updateStrategy, and COLOUR in the template"
    lab.steady(lambda: colours() == wanted, expected=f"Ready with these colours: {wanted}", seen=colours, look=look)
    template = environment(lab.get("statefulset", "web")["spec"]["template"], "COLOUR")
    lab.expect(colour, template, look="The colour belongs into the template, or it is lost when web-1 is replaced")


@check("stuck", points=12, after=["canary"])
def _(lab: CheckContext) -> None:
    lab.injected("set-image-missing")
    template = lab.get("statefulset", "web")["spec"]["template"]
    image = template["spec"]["containers"][0]["image"]
    lab.require(
        "no-such-tag" not in image,
        expected="an image that is there, in the template",
        seen=image,
        look="kubectl get statefulset web -o yaml",
    )
    look = "kubectl get pods -l app=web; which image does the Pod ask for that does not run?"

    def fine() -> bool:
        found = ready_pods(lab, "web")
        return set(found) == {"web-0", "web-1"} and all(
            each["spec"]["containers"][0]["image"] == image or name == "web-0" for name, each in found.items()
        )

    lab.steady(fine, expected="web-0 and web-1 are Ready, web-1 with the template's image", look=look, timeout=40)
    lab.expect(lab.params["colour"], environment(lab.get("pod", "web-1"), "COLOUR"), look="The canary keeps its colour")


@check("resolve", points=8)
def _(lab: CheckContext) -> None:
    lab.injected("selector-wrong")

    def wrong() -> dict[str, Any]:
        addresses = {name: each["status"].get("podIP") for name, each in ready_pods(lab, "web").items()}
        found = {name: dig(lab, f"{name}.web.{lab.namespace}.svc.cluster.local") for name in addresses}
        return {name: said for name, said in found.items() if said != [addresses[name]]} or ({} if found else {"web": "no Pod is ready"})

    # CoreDNS may keep for up to 30 seconds that there is no such name.
    lab.eventually(lambda: not wrong(), timeout=45)
    lab.expect(
        {}, wrong(), look="dig web-0.web; kubectl get endpointslices -l kubernetes.io/service-name=web; whom does the Service select?"
    )
    lab.expect("None", lab.get("service", "web")["spec"].get("clusterIP"), look="web has to stay headless")


@check("database", points=16, timeout=240)
def _(lab: CheckContext) -> None:
    look = "kubectl get statefulset,pods,pvc -l app=db; kubectl describe pod db-0; kubectl logs db-1 -c clone"
    lab.steady(
        lambda: {"db-0", "db-1"} <= set(ready_pods(lab, "db")),
        expected="db-0 and db-1 are Ready, with the label app=db",
        seen=lambda: f"Ready are {sorted(ready_pods(lab, 'db')) or 'none'}",
        look=look,
        timeout=60,
    )
    for name in ("db-0", "db-1"):
        volumes = lab.get("pod", name)["spec"]["volumes"]
        claims = [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]
        own = [each for each in claims if each.endswith(f"-{name}")]
        lab.require(
            own,
            expected=f"{name} has a claim of its own, made from a template",
            seen=claims or "no claim",
            look="volumeClaimTemplates",
            earned=2,
        )
    number, read_only = sql(lab, "db-0", "SELECT @@server_id, @@read_only").split()
    found = {"server_id": int(number), "read_only": int(read_only)}
    lab.expect({"server_id": 100, "read_only": 0}, found, look="kubectl logs db-0 -c configure", earned=4)
    is_replica(lab, "db-1", 1)
    mark = secrets.randbelow(10**9)
    sql(lab, "db-0", f"CREATE TABLE IF NOT EXISTS checked (id INT PRIMARY KEY); REPLACE INTO checked VALUES ({mark})")

    def arrived() -> bool:
        said = lab.run_in(
            "db-1", ["mariadb", "-u", "root", "-N", "shop", "-e", f"SELECT id FROM checked WHERE id = {mark}"], container="mariadb"
        )
        return said.stdout.strip() == str(mark)

    lab.require(
        lab.eventually(arrived, timeout=20), expected="a row written to db-0 is found on db-1", seen="it is not", look=look, earned=8
    )
    lab.sight("primary", identity(lab))


def identity(lab: CheckContext) -> dict[str, Any]:
    """Changes when db-0's server is another process."""
    pod = lab.get("pod", "db-0")
    main = next(each for each in pod["status"]["containerStatuses"] if each["name"] == "mariadb")
    return {"container": main.get("containerID", "")}


@check("read", points=6, after=["database"])
def _(lab: CheckContext) -> None:
    service = lab.find("service", "db-read")
    lab.require(service, expected="a Service db-read", seen="none", look="kubectl get services")
    assert service
    lab.require(
        service["spec"].get("clusterIP") not in ("None", "", None),
        expected="a ClusterIP",
        seen="it is headless",
        look="kubectl get service db-read",
    )
    pods = sorted(ready_pods(lab, "db"))
    port = service["spec"]["ports"][0]["port"]
    once = f"mariadb -h db-read -P {port} -u root --connect-timeout=3 -N -e 'SELECT @@hostname'"
    said = lab.run_in("db-0", f"for i in $(seq 24); do {once}; done", container="mariadb", timeout=90)
    answers = sorted(set(said.stdout.split()))
    lab.expect(pods, answers, look=f"24 connections to db-read; {said.stderr.strip()[:200]}", earned=2)


@check("grow", points=8, after=["database"], timeout=240)
def _(lab: CheckContext) -> None:
    lab.steady(
        lambda: {"db-0", "db-1", "db-2"} <= set(ready_pods(lab, "db")),
        expected="db-0, db-1 and db-2 are Ready",
        seen=lambda: f"Ready are {sorted(ready_pods(lab, 'db'))}",
        look="kubectl get pods -l app=db; kubectl logs db-2 -c clone",
        timeout=60,
    )
    is_replica(lab, "db-2", 2)
    rows = len(acknowledged(lab))
    lab.require(
        rows >= 20, expected="the writer has written, at least 20 rows", seen=f"{rows} are acknowledged", look="kubectl logs writer"
    )
    caught_up(lab, "db-2")
    lost = missing(lab, "db-2", before=set(acknowledged(lab)))
    lab.require(
        not lost,
        expected="db-2 has every row that was acknowledged",
        seen=f"{len(lost)} are missing",
        look="kubectl logs db-2 -c clone",
        earned=4,
    )


def acknowledged(lab: CheckContext) -> dict[int, float]:
    """What the writer wrote down, and when; a last line that is cut off does not count."""
    said = lab.run_in("writer", "cat /tmp/acknowledged").stdout
    lines = [line.split() for line in said[: said.rfind("\n") + 1].splitlines()]
    return {int(words[0]): float(words[1]) for words in lines if len(words) == 2}


def caught_up(lab: CheckContext, pod: str) -> None:
    position = sql(lab, "db-0", "SELECT @@gtid_binlog_pos")
    sql(lab, pod, f"SELECT MASTER_GTID_WAIT('{position}', 60)")


def missing(lab: CheckContext, pod: str, before: set[int]) -> set[int]:
    found = {int(each) for each in sql(lab, pod, "SELECT id FROM orders").split()}
    latest = max(found, default=0)
    return {number for number in before if number <= latest} - found


@check("survive", points=12, after=["grow"], timeout=240)
def _(lab: CheckContext) -> None:
    said = lab.answered({"pause": float, "missing": {"db-0": int, "db-1": int, "db-2": int}})
    before = lab.sighted("primary")
    lab.steady(
        lambda: {"db-0", "db-1", "db-2"} <= set(ready_pods(lab, "db")),
        expected="all three are Ready",
        look="kubectl get pods -l app=db",
        timeout=60,
    )
    lab.require(
        identity(lab) != before,
        expected="db-0's server was ended and runs again",
        seen="it is the same process as before",
        look="kubectl get pods",
    )
    wanted = acknowledged(lab)
    lost = {}
    for name in ("db-0", "db-1", "db-2"):
        if name != "db-0":
            caught_up(lab, name)
        lost[name] = len(missing(lab, name, set(wanted)))
    times = sorted(wanted.values())
    pauses = [b - a for a, b in pairwise(times)]
    right: dict[str, Any] = {**lost, "pause": True}
    seen = {**said["missing"], "pause": any(abs(said["pause"] - pause) < 0.6 for pause in sorted(pauses)[-3:]) and said["pause"] > 0.6}
    lab.compare(
        right, seen, look="The longest time between two lines of /tmp/acknowledged in the Pod writer; SELECT id FROM orders, on each Pod"
    )
