"""Checks of lab 12: what is right is read from the cluster and its nodes, or tried out on objects of the checks' own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from lab_utils.checks import CheckContext, check, cleanup, setup
from lab_utils.cluster import Node
from lab_utils.labs.workspace import LABEL, Workspace
from lab_utils.volumes import nodes_of

FOLDERS = "/var/lib/lab-12"
DYNAMIC = "/opt/local-path-provisioner"
BUSYBOX = "docker.io/library/busybox:1.37"
RWO, RWX, RWOP = "ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

# The volumes of the second task: name, size, access modes, class.
VOLUMES: list[tuple[str, str, list[str], str]] = [
    ("amber", "1Gi", [RWO], "lab-12"),
    ("birch", "4Gi", [RWO], "lab-12"),
    ("cedar", "6Gi", [RWO, RWX], "lab-12"),
    ("dogwood", "8Gi", [RWO], "lab-12-other"),
    ("elm", "2Gi", [RWX], "lab-12"),
]


def claims(lab: Workspace) -> list[tuple[str, str, str]]:
    """The claims of the second task, in their order: name, size, access mode."""
    ask = f"{lab.params['ask']}Gi"
    return [
        ("first", ask, RWO),
        ("second", "3Gi", RWO),
        ("third", "3Gi", RWX),
        ("fourth", "500Mi", RWX),
        ("fifth", "500Mi", RWO),
        ("sixth", "7Gi", RWO),
    ]


# objects


def volume(lab: Workspace, name: str, size: str, modes: list[str], of: str, node: str, policy: str = "Retain") -> dict[str, Any]:
    """A local volume. Its folder is made at once."""
    path = f"{FOLDERS}/{name}"
    lab.node(node).run(["mkdir", "-p", path], check=True)
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"lab-12-{name}", "labels": {LABEL: lab.name}},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": modes,
            "storageClassName": of,
            "persistentVolumeReclaimPolicy": policy,
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
        },
    }


def claim(name: str, size: str, of: str, mode: str = RWO) -> dict[str, Any]:
    spec = {"accessModes": [mode], "storageClassName": of, "resources": {"requests": {"storage": size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def pod_spec(of: str, node: str = "", command: str = "exec sleep infinity") -> dict[str, Any]:
    mount = {"name": "data", "mountPath": "/data"}
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", command], "volumeMounts": [mount]}
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": of}}],
    }
    return {**spec, "nodeSelector": {"kubernetes.io/hostname": node}} if node else spec


def pod(name: str, of: str, node: str = "") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod_spec(of, node)}


# the starting state, and back


@setup
def _(lab: Workspace) -> None:
    home = lab.params["home"]
    other = next(node.name for node in lab.cluster.workers if node.name != home)
    lab.cluster.apply([volume(lab, name, size, modes, of, "w1") for name, size, modes, of in VOLUMES])
    lab.cluster.apply(volume(lab, "ledger", "1Gi", [RWO], "lab-12-ledger", home))
    # The volume controller takes the smaller one, and that is on the wrong node.
    lab.cluster.apply([volume(lab, "far", "1Gi", [RWO], "lab-12-now", other), volume(lab, "near", "2Gi", [RWO], "lab-12-now", home)])
    lab.apply([claim("ledger", "1Gi", "lab-12-ledger"), pod("scribe", "ledger"), claim("clock", "1Gi", "lab-12-now")])
    lab.cluster.wait(f"pvc/clock jsonpath={{.status.phase}}=Bound -n {lab.namespace}", timeout=60)
    template = {"metadata": {"labels": {"app": "clock"}}, "spec": pod_spec("clock", home, "while true; do date > /data/now; sleep 1; done")}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "clock"}}, "strategy": {"type": "Recreate"}, "template": template}
    lab.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "clock"}, "spec": spec})

    for name in ("client", "press", "scribe"):
        lab.cluster.wait(f"pod/{name} condition=Ready -n {lab.namespace}", timeout=120)
    lab.cluster.wait(f"deployment/files condition=Available -n {lab.namespace}", timeout=120)
    write(lab, "scribe", "/data/diary", f"The word is {lab.params['word']}.")
    lab.store.sight("diary", inode(lab.node(home), f"{FOLDERS}/ledger/diary"))
    holder = lab.pods("app=files")[0]["metadata"]["name"]
    write(lab, holder, f"/data/{lab.params['file']}", f"Report number {lab.params['number']}.")
    lab.store.sight("holder", holder)


def write(lab: Workspace, name: str, path: str, text: str) -> None:
    lab.kubectl("exec", name, "--", "sh", "-c", f"echo '{text}' > {path}")


@cleanup
def _(lab: Workspace) -> None:
    """Volumes belong to no namespace, and those that the learner made carry no label: they are known by their class, name or claim."""
    lab.kubectl("delete", "deployments,statefulsets,daemonsets,jobs", "--all", "--ignore-not-found", check=False)
    lab.kubectl("delete", "pods", "--all", "--grace-period=1", "--ignore-not-found", "--timeout=60s", check=False)
    lab.kubectl("delete", "pvc", "--all", "--ignore-not-found", "--timeout=60s", check=False)
    deadline = time.monotonic() + 60
    while (going := [each for each in own_volumes(lab) if by_provisioner(each)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    left = [each["metadata"]["name"] for each in own_volumes(lab)]
    if left:
        lab.cluster.kubectl("delete", "pv", *left, "--ignore-not-found", "--wait=false")
        for name in (each["metadata"]["name"] for each in going):  # its provisioner is not there, or gave up
            lab.cluster.kubectl("patch", "pv", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}', check=False)
        lab.cluster.wait(lambda: not own_volumes(lab), timeout=60, why=f"volumes of lab 12 do not go: {', '.join(left)}")
    classes = [each["metadata"]["name"] for each in lab.cluster.get("storageclasses")["items"]]
    if own := [name for name in classes if name.startswith("lab-12")]:
        lab.cluster.kubectl("delete", "storageclass", *own, "--ignore-not-found")
    for node in lab.nodes:
        node.run(f"rm -rf {FOLDERS} {DYNAMIC}/*_{lab.namespace}_*")


def own_volumes(lab: Workspace) -> list[dict[str, Any]]:
    def ours(item: Mapping[str, Any]) -> bool:
        spec = item["spec"]
        names = (item["metadata"]["name"], spec.get("storageClassName", ""), (spec.get("claimRef") or {}).get("namespace", ""))
        return any(name.startswith("lab-12") for name in names)

    return [item for item in lab.cluster.get("persistentvolumes")["items"] if ours(item)]


def by_provisioner(item: Mapping[str, Any]) -> bool:
    """Whether somebody will delete it with its folder, now that its claim is gone."""
    made = "pv.kubernetes.io/provisioned-by" in (item["metadata"].get("annotations") or {})
    return made and item["spec"]["persistentVolumeReclaimPolicy"] == "Delete"


# looking


def inode(node: Node, path: str) -> str:
    """Device and inode: the same for every name of a file or folder."""
    return node.run(["stat", "-L", "-c", "%d:%i", path]).stdout.strip()


def size(text: str) -> float:
    return float(text[:-2]) * UNITS[text[-2:]] if text[-2:] in UNITS else float(text)


def is_ready(item: Mapping[str, Any] | None) -> bool:
    conditions = item["status"].get("conditions", []) if item else []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def volume_of(lab: CheckContext, name: str) -> dict[str, Any]:
    """The volume that a claim is bound to."""
    found = lab.find("pvc", name)
    lab.require(found, expected=f"a claim named {name}", seen="none", look="kubectl get pvc")
    assert found
    phase = found["status"].get("phase", "")
    lab.require(phase == "Bound", expected=f"{name} is Bound", seen=f"it is {phase}", look=f"kubectl describe pvc {name}")
    return dict(lab.cluster.get("pv", found["spec"]["volumeName"]))


def path_of(item: Mapping[str, Any]) -> str:
    spec = item["spec"]
    return str((spec.get("local") or spec.get("hostPath") or {}).get("path", ""))


def claims_of(spec: Mapping[str, Any]) -> list[str]:
    return [each["persistentVolumeClaim"]["claimName"] for each in spec.get("volumes") or [] if each.get("persistentVolumeClaim")]


# the steps


@check("look", points=5)
def _(lab: CheckContext) -> None:
    said = lab.answered({"pods": [str], "share": float})
    holder = lab.sighted("holder")
    right = {"pods": [holder], "share": said["share"] if abs(said["share"] - 1 / 3) < 0.04 else "the share of requests that reach it"}
    lab.compare(right, said, look=f"for each Pod: kubectl exec POD -- ls /data. Whose folder has {lab.params['file']}?")


@check("predict-binding", points=10)
def _(lab: CheckContext) -> None:
    names = [name for name, _, _ in claims(lab)]
    said = lab.answered(dict.fromkeys(names, str))
    plain = {name: volume.removeprefix("lab-12-") for name, volume in said.items()}
    lab.compare(
        bindings(lab),
        plain,
        look="Take the claims one by one. Which volumes are left, of the class and with the mode, that are large enough?",
    )


def bindings(lab: CheckContext) -> dict[str, str]:
    """What the volume controller will do: the smallest volume that is free and fits. From the volumes as they are on the cluster."""
    there = {item["metadata"]["name"].removeprefix("lab-12-"): item["spec"] for item in own_volumes(lab)}
    gone = [name for name, *_ in VOLUMES if name not in there]
    lab.require(
        not gone, expected="the volumes that the lab made", seen=f"no {', '.join(gone)}", look="lab.reset() gives you the volumes back"
    )
    free = {name: there[name] for name, *_ in VOLUMES}
    found = {}
    for name, asks, mode in claims(lab):
        fits = [
            (size(spec["capacity"]["storage"]), each)
            for each, spec in free.items()
            if spec["storageClassName"] == "lab-12" and mode in spec["accessModes"] and size(spec["capacity"]["storage"]) >= size(asks)
        ]
        found[name] = min(fits)[1] if fits else "none"
        free.pop(found[name], None)
    return found


@check("bind", points=5)
def _(lab: CheckContext) -> None:
    right = bindings(lab)
    for name, asks, mode in claims(lab):
        item = lab.find("pvc", name)
        lab.require(item, expected=f"a claim named {name}", seen="none", look="kubectl get pvc")
        assert item
        spec = item["spec"]
        wanted = {"size": size(asks), "modes": [mode], "class": "lab-12"}
        made = {
            "size": size(spec["resources"]["requests"]["storage"]),
            "modes": spec["accessModes"],
            "class": spec.get("storageClassName"),
        }
        lab.expect(wanted, made, look=f"kubectl get pvc {name} -o yaml")

    def now() -> dict[str, str]:
        items = {item["metadata"]["name"]: item for item in lab.objects("pvc")}
        return {name: (items[name]["spec"].get("volumeName") or "none").removeprefix("lab-12-") for name in right if name in items}

    lab.eventually(lambda: now() == right, timeout=15)
    lab.expect(right, now(), look="They have to come in their order, one by one. lab.reset() gives you the volumes back")


@check("where", points=7)
def _(lab: CheckContext) -> None:
    said = lab.answered({"node": str, "volume": str, "folder": str})
    home = lab.params["home"]
    # Whatever name the folder is given by: it is right if it is that folder, by device and inode.
    there = inode(lab.node(home), f"{FOLDERS}/ledger") if said["node"] == home else ""
    given = inode(lab.node(home), said["folder"].rstrip("/") or "/")
    right = {"node": home, "volume": "lab-12-ledger", "folder": True}
    lab.compare(
        right,
        {**said, "folder": bool(there) and given == there},
        look="kubectl get pod scribe -o wide; kubectl get pv lab-12-ledger -o yaml",
    )


@check("predict-delete", points=8, timeout=180)
def _(lab: CheckContext) -> None:
    claim_is, volume_is = {"gone", "still there"}, {"Available", "Released", "Bound", "Failed", "gone"}
    said = lab.answered(
        {
            "claim_while_pod_runs": claim_is,
            "pod_can_write": bool,
            "claim_after_pod": claim_is,
            "volume": volume_is,
            "file_is_there": bool,
            "next_claim": {"bound", "waits"},
        }
    )
    lab.compare(deletion(lab), said, look="Try it with a volume and a claim of your own, or read the chapter: After the claim")


def deletion(lab: CheckContext) -> dict[str, Any]:
    """Do it, to a volume, a claim and a Pod of the check's own."""

    def there(kind: str, name: str) -> bool:
        return lab.find(kind, name) is not None

    forget_trial(lab)
    try:
        made = [claim("trial", "1Gi", "lab-12-trial"), pod("trial", "trial")]
        lab.cluster.apply(volume(lab, "trial", "1Gi", [RWO], "lab-12-trial", "w1"))
        lab.apply(made)
        lab.cluster.wait(f"pod/trial condition=Ready -n {lab.namespace}", timeout=60)
        found: dict[str, Any] = {}
        lab.kubectl("delete", "pvc", "trial", "--wait=false")
        time.sleep(3)
        found["claim_while_pod_runs"] = "still there" if there("pvc", "trial") else "gone"
        found["pod_can_write"] = lab.run_in("trial", "echo still > /data/file").ok
        lab.kubectl("delete", "pod", "trial")
        lab.eventually(lambda: not there("pvc", "trial"), timeout=20)
        found["claim_after_pod"] = "still there" if there("pvc", "trial") else "gone"
        lab.eventually(lambda: lab.cluster.get("pv", "lab-12-trial")["status"]["phase"] != "Bound", timeout=20)
        found["volume"] = lab.cluster.get("pv", "lab-12-trial")["status"]["phase"]
        found["file_is_there"] = lab.node("w1").run(["test", "-s", f"{FOLDERS}/trial/file"]).ok
        lab.apply(made[0])
        bound = lab.eventually(lambda: lab.get("pvc", "trial")["status"].get("phase") == "Bound", timeout=4)
        found["next_claim"] = "bound" if bound else "waits"
        return found
    finally:
        forget_trial(lab)


def forget_trial(lab: CheckContext) -> None:
    pods = [f"pod/{name}" for name in ("trial", "t-first", "t-first-pod", "t-first-host", "t-same", "t-other", "t-pod", "t-host")]
    lab.kubectl("delete", *pods, "pvc/trial", "pvc/trial-pod", "pvc/trial-anywhere", "--ignore-not-found", "--timeout=60s")
    names = [f"lab-12-{name}" for name in ("trial", "trial-pod", "trial-anywhere")]
    lab.cluster.kubectl("delete", "pv", *names, "--ignore-not-found", "--timeout=60s")


@check("save", points=12)
def _(lab: CheckContext) -> None:
    old = lab.find("pvc", "ledger")
    lab.require(not old, expected="the claim ledger is gone", seen="it is still there", look="kubectl get pvc,pods")
    item = volume_of(lab, "ledger-2")
    reader = lab.find("pod", "reader")
    lab.require(reader, expected="a Pod named reader", seen="none", look="kubectl get pods", earned=6)
    assert reader
    lab.require(
        "ledger-2" in claims_of(reader["spec"]), expected="reader mounts the claim ledger-2", seen=claims_of(reader["spec"]), earned=6
    )
    lab.steady(lambda: is_ready(lab.find("pod", "reader")), expected="reader is Ready", look="kubectl describe pod reader")
    home = lab.node(reader["spec"]["nodeName"])
    seen = inode(home, f"{path_of(item)}/diary") if home.name == lab.params["home"] else ""
    lab.require(
        seen == lab.sighted("diary"),
        expected="in the volume of ledger-2 lies the very file that scribe wrote, not a copy",
        seen=f"{path_of(item)} on {home.name} holds {'another file of that name' if seen else 'no file diary'}",
        look="kubectl get pv lab-12-ledger -o yaml; what is in its claimRef?",
        earned=4,
    )
    text = home.run(["cat", f"{path_of(item)}/diary"]).stdout
    lab.require(lab.params["word"] in text, expected="the diary as it was", seen=text.strip() or "an empty file", earned=4)


@check("modes", points=8, timeout=240)
def _(lab: CheckContext) -> None:
    outcome = {"runs", "waits"}
    said = lab.answered(dict.fromkeys(("same-node", "other-node", "once-pod", "host-path"), outcome))
    lab.compare(mounting(lab), said, look="Which node? Which Pod? And who is there to watch over it?")


def mounting(lab: CheckContext) -> dict[str, str]:
    """Two Pods on each of three volumes, and which of the second ones run."""
    forget_trial(lab)
    anywhere = volume(lab, "trial-anywhere", "1Gi", [RWO], "lab-12-trial-anywhere", "w1")
    del anywhere["spec"]["nodeAffinity"]
    del anywhere["spec"]["local"]
    anywhere["spec"]["hostPath"] = {"path": f"{FOLDERS}/trial-anywhere", "type": "DirectoryOrCreate"}

    try:
        lab.cluster.apply([volume(lab, "trial", "1Gi", [RWO], "lab-12-trial", "w1"), anywhere])
        lab.cluster.apply(volume(lab, "trial-pod", "1Gi", [RWOP], "lab-12-trial-pod", "w1"))
        lab.apply([claim("trial", "1Gi", "lab-12-trial"), claim("trial-anywhere", "1Gi", "lab-12-trial-anywhere")])
        lab.apply(claim("trial-pod", "1Gi", "lab-12-trial-pod", RWOP))
        first = [
            pod("t-first", "trial", "w1"),
            pod("t-first-pod", "trial-pod", "w1"),
            pod("t-first-host", "trial-anywhere", "w1"),
        ]
        lab.apply(first)
        for each in first:
            lab.cluster.wait(f"pod/{each['metadata']['name']} condition=Ready -n {lab.namespace}", timeout=60)
        second = {
            "same-node": pod("t-same", "trial", "w1"),
            "other-node": pod("t-other", "trial", "w2"),
            "once-pod": pod("t-pod", "trial-pod", "w1"),
            "host-path": pod("t-host", "trial-anywhere", "w2"),
        }
        lab.apply(list(second.values()))
        names = {what: each["metadata"]["name"] for what, each in second.items()}

        def settled(name: str) -> str:
            item = lab.find("pod", name)
            if is_ready(item):
                return "runs"
            conditions = item["status"].get("conditions", []) if item else []
            return "waits" if any(each.get("reason") == "Unschedulable" for each in conditions) else ""

        return {what: str(lab.eventually(partial(settled, name), timeout=30)) for what, name in names.items()}
    finally:
        forget_trial(lab)


@check("stuck", points=10)
def _(lab: CheckContext) -> None:
    home = lab.params["home"]
    deployment = lab.get("deployment", "clock")
    selector = deployment["spec"]["template"]["spec"].get("nodeSelector") or {}
    lab.expect(
        home,
        selector.get("kubernetes.io/hostname"),
        look="The clock has to stay where it is wanted: its nodeSelector is not yours to change",
    )

    def running() -> Any:
        return next((each for each in lab.pods("app=clock") if is_ready(each)), None)

    item = lab.steady(running, expected="a Pod of clock is Ready", look="kubectl describe pod -l app=clock; kubectl get pvc,pv", timeout=40)
    lab.expect(home, item["spec"]["nodeName"], look="kubectl get pods -o wide")
    mounted = claims_of(item["spec"])
    lab.require(
        mounted,
        expected="clock keeps its time in a volume of a claim",
        seen="it mounts no claim",
        look="kubectl get deployment clock -o yaml",
    )
    for name in mounted:
        found = volume_of(lab, name)
        lab.expect((home,), nodes_of(found["spec"]), look=f"The node affinity of the volume {found['metadata']['name']}")
        of = lab.find("storageclass", found["spec"].get("storageClassName") or "none")
        mode = of.get("volumeBindingMode", "Immediate") if of else "of a class that does not exist"
        lab.require(
            mode == "WaitForFirstConsumer",
            expected="the claim is of a class that binds only when a Pod is there, so that this cannot happen again",
            seen=f"volumeBindingMode {mode}",
            look="kubectl get storageclass",
            earned=5,
        )


@check("full", points=7)
def _(lab: CheckContext) -> None:
    plan = lab.injected("disk-full")
    item = lab.find("pod", "press")
    lab.require(
        item and item["metadata"]["uid"] == plan["uid"],
        expected="the Pod press, as it was",
        seen="another Pod, or none",
        look="kubectl get pods",
    )
    serial = lab.run_in("press", "cat /spool/serial").stdout.strip()
    lab.expect(str(lab.params["number"]), serial, look="The file serial in /spool is not what fills it")
    lab.steady(
        lambda: is_ready(lab.find("pod", "press")),
        expected="press is Ready",
        look="kubectl exec press -- df /spool; and then: ls -la /spool",
    )
    free = int(lab.run_in("press", "df -Pk /spool").stdout.splitlines()[-1].split()[3])
    lab.require(free >= 1024, expected="at least 1 MiB free in /spool", seen=f"{free} KiB", look="kubectl exec press -- ls -la /spool")


@check("dynamic", points=8)
def _(lab: CheckContext) -> None:
    said = lab.answered({"volume": str, "node": str, "folder": str, "policy": str})
    kept = lab.sighted("cellar")  # a later step deletes the claim; the answer was right when it was given
    if not kept:
        item = volume_of(lab, "cellar")
        spec = item["spec"]
        lab.expect("local-path", spec.get("storageClassName"), look="kubectl get pvc cellar -o yaml")
        lab.expect(lab.params["mib"] * 2**20, size(spec["capacity"]["storage"]), look="How large is the claim?")
        keeper = lab.find("pod", "keeper")
        lab.require(
            keeper and "cellar" in claims_of(keeper["spec"]),
            expected="a Pod keeper that mounts cellar",
            seen="none",
            look="kubectl get pods",
        )
        [home] = nodes_of(spec)
        there = inode(lab.node(home), f"{path_of(item)}/wine")
        lab.require(
            there,
            expected="a file named wine in the volume",
            seen=f"none in {path_of(item)} on {home}",
            look="kubectl exec keeper -- ls -R /",
        )
        policy = spec["persistentVolumeReclaimPolicy"]
        kept = {"volume": item["metadata"]["name"], "node": home, "folder": path_of(item), "policy": policy, "wine": there}
    given = {**said, "folder": said["folder"].rstrip("/")}
    right = {key: kept[key] for key in said}
    if given["folder"] != right["folder"] and inode(lab.node(kept["node"]), f"{given['folder']}/wine") == kept["wine"]:
        given["folder"] = right["folder"]
    if given == right:
        lab.sight("cellar", kept)
    lab.compare(right, given, look="kubectl get pv -o yaml: its name, its nodeAffinity, its path")


@check("keep", points=8, after=["dynamic"])
def _(lab: CheckContext) -> None:
    kept = lab.sighted("cellar")
    left = [each["metadata"]["name"] for each in lab.objects("pvc") if each["spec"].get("volumeName") == kept["volume"]]
    lab.require(
        not left, expected="the claim of this volume is gone", seen=f"{left[0] if left else ''} is there", look="kubectl get pvc,pods"
    )
    lab.eventually(lambda: (found := lab.find("pv", kept["volume"])) is None or found["status"]["phase"] == "Released", timeout=15)
    there = inode(lab.node(kept["node"]), f"{kept['folder']}/wine")
    lab.require(
        there == kept["wine"],
        expected=f"the wine is still in {kept['folder']} on {kept['node']}",
        seen="it is gone",
        look="lab.reset() gives you a new start",
    )
    item = lab.find("pv", kept["volume"])
    lab.require(item, expected=f"the volume {kept['volume']} is there", seen="it is gone", look="kubectl get pv", earned=4)
    assert item
    lab.expect("Released", item["status"]["phase"], look="kubectl get pv")


@check("mend", points=12, timeout=240)
def _(lab: CheckContext) -> None:
    file, text = lab.params["file"], f"Report number {lab.params['number']}."
    mark, value = f"check-{secrets.token_hex(4)}", secrets.token_hex(8)

    def ready() -> list[dict[str, Any]]:
        pods = lab.pods("app=files")
        return [each for each in pods if is_ready(each)] if len(pods) == 3 else []

    def served(name: str) -> dict[str, str]:
        return {
            each["metadata"]["name"]: lab.run_in("client", f"wget -qO- -T 3 http://{each['status']['podIP']}:8080/{name}").stdout.strip()
            for each in ready()
        }

    look = "kubectl get pods -l app=files -o wide; kubectl get deployment files -o yaml"
    lab.steady(
        lambda: len(ready()) == 3, expected="three Ready replicas of files", seen=lambda: f"{len(ready())} are", look=look, timeout=40
    )
    found = served(file)
    lacking = sorted(name for name, said in found.items() if said != text)
    lab.require(not lacking, expected=f"each replica serves {file} as it was", seen=f"not so: {', '.join(lacking)}", look=look)
    done = lab.run_in(ready()[0]["metadata"]["name"], f"echo {value} > /data/{mark}")
    lab.require(done.ok, expected="a replica can write into /data", seen=done.stderr.strip(), look=look)
    try:
        lacking = sorted(name for name, said in served(mark).items() if said != value)
        lab.require(not lacking, expected="what one replica writes, all serve", seen=f"not so: {', '.join(lacking)}", look=look, earned=4)
        lab.kubectl("delete", "pods", "-l", "app=files")
        lab.steady(lambda: len(ready()) == 3, expected="three Ready replicas after all were replaced", look=look, timeout=60)
        lacking = sorted(name for name, said in served(mark).items() if said != value)
        lab.require(not lacking, expected="the files outlive all Pods", seen=f"not so: {', '.join(lacking)}", look=look, earned=8)
    finally:
        for each in ready()[:1]:
            lab.run_in(each["metadata"]["name"], f"rm -f /data/{mark}")
