"""Checks of lab 13: the learner's driver is called, filled, killed and judged; what is right is seen on the cluster."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lab_utils.checks import CheckContext, check, cleanup, setup
from lab_utils.csi import deploy, recording, workshop
from lab_utils.errors import LabError
from lab_utils.labs.workspace import LABEL, Workspace

DRIVER, CLASS = "disks.lab-13.example", "lab-13"
BUSYBOX = "docker.io/library/busybox:1.37"
MIB = 2**20
MODE = {"access_mode": {"mode": "SINGLE_NODE_WRITER"}, "mount": {}}
DELETE = """# By a colleague, who has left.
from csi.protocol import Refused, needs


@needs("volume_id")
def DeleteVolume(self, request):
    disk = self.volumes.find(request.volume_id)
    if disk is None:
        raise Refused("NOT_FOUND", f"there is no disk {request.volume_id}")
    self.volumes.remove(disk)
    return {}
"""


# the starting state, and back


@setup
def _(lab: Workspace) -> None:
    lab.apply(workshop.student({"delete.py": DELETE}))
    deploy.install(lab.cluster, lab.namespace, DRIVER, CLASS, module="csi.student", labels={LABEL: lab.name})


@cleanup
def _(lab: Workspace) -> None:
    """The whole driver first: one that lacks a method could not take back what it has mounted."""
    if lab.find("daemonset", "csi"):
        lab.kubectl("delete", "pods", "-l", "app!=csi", "--grace-period=1", "--wait=false", "--ignore-not-found")
        with suppress(LabError):  # whatever became of the cluster, the rest is taken away
            deploy.install(lab.cluster, lab.namespace, DRIVER, CLASS, labels={LABEL: lab.name})
        for kind in ("pods", "pvc"):
            lab.kubectl("delete", kind, "-l", "app!=csi", "--ignore-not-found", "--timeout=60s", check=False)
        settle(lambda: not volumes(lab), 30)
    for kind, names in (("pv", volumes(lab)), ("volumeattachment", attachments(lab))):
        for name in names:  # nobody is there any more who would care
            lab.cluster.kubectl("patch", kind, name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}', check=False)
            lab.cluster.kubectl("delete", kind, name, "--ignore-not-found", "--wait=false", check=False)
    deploy.remove(lab.cluster, lab.namespace, DRIVER)


def volumes(lab: Workspace) -> list[str]:
    items = lab.cluster.get("persistentvolumes")["items"]
    return [each["metadata"]["name"] for each in items if each["spec"].get("csi", {}).get("driver") == DRIVER]


def attachments(lab: Workspace) -> list[str]:
    return [each["metadata"]["name"] for each in lab.cluster.get("volumeattachments")["items"] if each["spec"]["attacher"] == DRIVER]


def settle(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (said := done()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return said


# objects of the checks' own


def claim(name: str, mib: int = 32) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": CLASS, "resources": {"requests": {"storage": f"{mib}Mi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "labels": {"trial": "yes"}}, "spec": spec}


def pod(name: str, *claims: str, **where: Any) -> dict[str, Any]:
    """Mounts each claim in a folder of its name."""
    mounts = [{"name": each, "mountPath": f"/{each}"} for each in claims]
    spec = {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": BUSYBOX, "command": ["sleep", "infinity"], "volumeMounts": mounts}],
        "volumes": [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims],
        **where,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"trial": "yes"}}, "spec": spec}


def on(node: str) -> dict[str, Any]:
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


@contextmanager
def trial(lab: CheckContext) -> Iterator[None]:
    """Objects with the label `trial` are gone before, and afterwards."""

    def forget() -> None:
        for kind in ("pods", "pvc"):
            lab.kubectl("delete", kind, "-l", "trial", "--ignore-not-found", "--timeout=60s", check=False)

    forget()
    try:
        yield
    finally:
        forget()


def is_ready(item: Mapping[str, Any] | None) -> bool:
    conditions = item["status"].get("conditions", []) if item else []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def starts(lab: CheckContext, name: str, timeout: float = 40) -> bool:
    return bool(lab.eventually(lambda: is_ready(lab.find("pod", name)), timeout=timeout))


def must_start(lab: CheckContext, name: str) -> None:
    lab.require(
        starts(lab, name),
        expected=f"a Pod with a volume of your driver starts ({name})",
        seen="it waits",
        look=f"kubectl describe pod {name}",
    )


def bound(lab: CheckContext, name: str, timeout: float = 40) -> dict[str, Any]:
    """The volume of a claim."""
    found = lab.find("pvc", name)
    lab.require(found, expected=f"a claim named {name}", seen="none", look="kubectl get pvc")
    done = lab.eventually(lambda: lab.get("pvc", name)["status"].get("phase") == "Bound", timeout=timeout)
    lab.require(done, expected=f"{name} is Bound", seen="it is Pending", look=f"kubectl describe pvc {name}")
    return dict(lab.cluster.get("pv", lab.get("pvc", name)["spec"]["volumeName"]))


def ask(lab: CheckContext, node: str, *calls: tuple[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return deploy.ask(lab.cluster, lab.namespace, node, *calls)


def judged(lab: CheckContext, *trials: tuple[str, bool], earned: float = 0, worth: float = 0, look: str) -> None:
    """Several small trials, in words, which share what is left evenly."""
    right = sum(passed for _, passed in trials)
    lab.require(
        right == len(trials),
        expected="; ".join(words for words, _ in trials),
        seen="not so: " + "; ".join(words for words, passed in trials if not passed),
        look=look,
        earned=round(earned + worth * right / len(trials), 2),
    )


# the steps


@check("register", points=6)
def _(lab: CheckContext) -> None:
    said = lab.answered({"name": str, "endpoint": str, "node_id": str, "topology": str})
    home = lab.params["home"]
    known = next((each for each in lab.cluster.get("csinode", home)["spec"].get("drivers") or [] if each["name"] == DRIVER), None)
    lab.require(
        known, expected=f"the kubelet of {home} knows {DRIVER}", seen="it does not", look="kubectl get pods; kubectl get csinode -o yaml"
    )
    assert known
    pods = deploy.pods(lab.cluster, lab.namespace)
    question = f"python3 -m csi.protocol /registry/{DRIVER}-reg.sock Registration/GetInfo"
    told = json.loads(lab.run_in(pods[home], question, container="registrar").stdout)
    right = {"name": told["name"], "endpoint": told["endpoint"], "node_id": known["nodeID"], "topology": known["topologyKeys"][0]}
    lab.compare(right, said, look="kubectl get csinode -o yaml; and the registrar's answer to GetInfo")


@check("create", points=14, timeout=180)
def _(lab: CheckContext) -> None:
    home, mib = lab.params["home"], lab.params["mib"]
    item = bound(lab, "cellar")
    name, spec = item["spec"]["csi"]["volumeHandle"], item["spec"]
    lab.expect(CLASS, spec.get("storageClassName"), look="kubectl get pvc cellar -o yaml")
    found = lab.node(home).run(["stat", "-c", "%s", f"/var/lib/{DRIVER}/volumes/{name}/disk"])
    lab.require(
        found.ok, expected=f"the disk of cellar is in {home}", seen="there is none", look="Does keeper have the right nodeSelector?"
    )
    lab.require(
        int(found.stdout) >= mib * MIB and int(found.stdout) <= 512 * MIB,
        expected=f"a disk of {mib} MiB",
        seen=f"{int(found.stdout) / MIB:g} MiB",
        look=f"ls -l /var/lib/{DRIVER}/volumes/*/disk, on {home}",
    )
    lab.require(lab.find("pod", "keeper"), expected="a Pod named keeper", seen="none", look="kubectl get pods")

    name = f"check-{secrets.token_hex(4)}"
    wanted = {"name": name, "volume_capabilities": [MODE]}

    def create(required: int = 40 * MIB, limit: int = 0, **more: Any) -> tuple[str, dict[str, Any]]:
        return "Controller/CreateVolume", {**wanted, "capacity_range": {"required_bytes": required, "limit_bytes": limit}, **more}

    first, second, larger, under, nameless, careless, _ = ask(
        lab,
        home,
        create(),
        create(),
        create(80 * MIB),
        create(0, MIB, name=f"{name}-x"),
        create(name=""),
        create(name=f"{name}-y", volume_capabilities=[]),
        ("Controller/DeleteVolume", {"volume_id": name}),
    )
    ask(lab, home, ("Controller/DeleteVolume", {"volume_id": f"{name}-x"}), ("Controller/DeleteVolume", {"volume_id": f"{name}-y"}))
    judged(
        lab,
        ("the same request twice gets the same answer", first[0] == "OK" and first == second),
        ("the disk is exactly as large as was asked for", int(first[1].get("volume", {}).get("capacity_bytes", 0)) == 40 * MIB),
        ("the same name and more bytes: ALREADY_EXISTS", larger[0] == "ALREADY_EXISTS"),
        ("a limit below what can be made: OUT_OF_RANGE", under[0] == "OUT_OF_RANGE"),
        ("no name, or no capabilities: INVALID_ARGUMENT", {nameless[0], careless[0]} == {"INVALID_ARGUMENT"}),
        earned=4,
        worth=10,
        look=f'ask("{home}", ("Controller/CreateVolume", {{"name": …}}))',
    )


@check("mount", points=16, timeout=240)
def _(lab: CheckContext) -> None:
    home = lab.params["home"]
    must_start(lab, "keeper")
    lab.expect(home, lab.get("pod", "keeper")["spec"]["nodeName"], look="kubectl get pod keeper -o wide")
    with trial(lab):
        lab.apply([claim("trial"), pod("trial", "trial", **on(home))])
        must_start(lab, "trial")
        kind = lab.run_in("trial", "grep ' /trial ' /proc/mounts").stdout.split()[2:3]
        lab.require(
            kind == ["xfs"], expected="the Pod has the disk's own file system", seen=kind, look="kubectl exec keeper -- mount", earned=4
        )
        volume = bound(lab, "trial")["spec"]["csi"]["volumeHandle"]
        uid = lab.get("pod", "trial")["metadata"]["uid"]
        places = mounted(lab, home, volume)
        target = next((each for each in places if uid in each), "")
        staged = next((each for each in places if uid not in each), "")
        judged(
            lab,
            ("staged once", staged != ""),
            ("published in the Pod's folder", target != ""),
            earned=4,
            look="mount | grep loop, on the node",
        )
        how = {"volume_id": volume, "volume_capability": MODE, "staging_target_path": staged}
        trial_target = f"/var/lib/kubelet/plugins/{DRIVER}/check"
        answers = ask(
            lab,
            home,
            ("Node/NodeStageVolume", how),
            ("Node/NodePublishVolume", {**how, "target_path": target}),
            ("Node/NodePublishVolume", {**how, "target_path": trial_target, "staging_target_path": f"{trial_target}-none"}),
            ("Node/NodePublishVolume", {**how, "target_path": trial_target, "volume_id": "no-such-volume"}),
            ("Node/NodeStageVolume", {**how, "staging_target_path": ""}),
            ("Node/NodePublishVolume", {**how, "target_path": trial_target, "readonly": True}),
        )
        stage, publish, early, nobody, careless, reader = (code for code, _ in answers)
        twice = len(mounted(lab, home, volume, each=True)) - (reader == "OK")
        touch = ["touch", f"{trial_target}/x"]
        read_only = reader == "OK" and not lab.node(home).run(touch).ok
        gone = {"volume_id": volume, "target_path": trial_target}
        away = ask(lab, home, ("Node/NodeUnpublishVolume", gone), ("Node/NodeUnpublishVolume", gone))
        clean = not lab.node(home).run(["test", "-e", trial_target]).ok
        lab.node(home).run(f"umount -q {trial_target}; rmdir {trial_target}")
        lab.kubectl("delete", "pod", "trial", "--timeout=60s", check=False)
        rest = lab.eventually(lambda: not mounted(lab, home, volume), timeout=30)
        unstaged = ask(lab, home, ("Node/NodeUnstageVolume", {"volume_id": volume, "staging_target_path": staged}))[0][0]
        judged(
            lab,
            ("a second stage and a second publish are OK, and mount nothing again", (stage, publish, twice) == ("OK", "OK", 2)),
            ("what is not staged is not published: FAILED_PRECONDITION", early == "FAILED_PRECONDITION"),
            ("a volume that is not there: NOT_FOUND", nobody == "NOT_FOUND"),
            ("an empty staging_target_path: INVALID_ARGUMENT", careless == "INVALID_ARGUMENT"),
            ("readonly means that nothing can be written", read_only),
            ("unpublish twice is OK, and the folder is gone", [code for code, _ in away] == ["OK", "OK"] and clean),
            ("after the Pod nothing is mounted any more, and unstage once more is OK", bool(rest) and unstaged == "OK"),
            earned=6,
            worth=10,
            look="mount | grep loop, on the node; and the calls in `kubectl logs` of the driver",
        )


def mounted(lab: CheckContext, node: str, volume: str, each: bool = False) -> list[str]:
    """Where a volume is mounted on its node; with `each`, a path as often as there are mounts on it."""
    script = f"""
    for loop in $(grep -l '/{volume}/disk$' /sys/block/loop*/loop/backing_file); do
        minor=${{loop#/sys/block/loop}}; minor=${{minor%%/*}}
        awk -v device="7:$minor" '$3 == device {{print $5}}' /proc/1/mountinfo
    done"""
    found = lab.node(node).run(script).stdout.split()
    return found if each else sorted(set(found))


@check("calls", points=8, timeout=180)
def _(lab: CheckContext) -> None:
    callers = {"provisioner", "attacher", "kubelet", "registrar", "resizer"}
    named = ("CreateVolume", "ControllerPublishVolume", "NodeStageVolume", "NodePublishVolume")
    said = lab.answered({**dict.fromkeys(named, callers), "again": [str]})
    home = lab.params["home"]
    with trial(lab):
        lab.apply([claim("trial"), pod("trial", "trial", **on(home))])
        must_start(lab, "trial")
        volume = bound(lab, "trial")["spec"]["csi"]["volumeHandle"]
        before = recording.about(deploy.log(lab.cluster, lab.namespace), volume)
        lab.apply(pod("trial-2", "trial", **on(home)))
        must_start(lab, "trial-2")
        after = recording.about(deploy.log(lab.cluster, lab.namespace), volume)
    right: dict[str, Any] = {call.method: call.caller for call in before if call.method in named and call.ok}
    right["again"] = sorted({call.method for call in recording.story(after[len(before) :])})
    lab.compare(right, {**said, "again": sorted(set(said["again"]))}, look="deploy.log(lab.cluster, lab.namespace)")


@check("full", points=8, timeout=180)
def _(lab: CheckContext) -> None:
    errors = {"No space left on device", "Disk quota exceeded", "File too large", "nothing"}
    said = lab.answered({"error": errors, "other_writes": bool, "small_file": bool, "node_notices": bool})
    home = lab.params["home"]

    def taken(volume: str) -> int:
        """KiB of the node's own disk. `df` would tell of everybody who writes there."""
        return int(lab.node(home).run(["du", "-k", f"/var/lib/{DRIVER}/volumes/{volume}/disk"], check=True).stdout.split()[0])

    with trial(lab):
        lab.apply([claim("trial"), claim("other"), pod("trial", "trial", "other", **on(home))])
        must_start(lab, "trial")
        lab.run_in("trial", "echo small > /trial/small; sync")
        volume = bound(lab, "trial")["spec"]["csi"]["volumeHandle"]
        before = taken(volume)
        heard = lab.run_in("trial", "dd if=/dev/zero of=/trial/large bs=1M count=64; sync")
        right = {
            "error": next((each for each in errors if each in heard.stderr), "nothing"),
            "other_writes": lab.run_in("trial", "dd if=/dev/zero of=/other/file bs=1M count=8 && sync").ok,
            "small_file": lab.run_in("trial", "cat /trial/small").stdout == "small\n",
            "node_notices": taken(volume) - before > 16 * 1024,
        }
    lab.compare(right, said, look="Try it with a Pod of yours, and compare `df` on the node before and after")


@check("grow", points=12, timeout=240)
def _(lab: CheckContext) -> None:
    home, larger = lab.params["home"], lab.params["larger"]
    done = lab.eventually(lambda: lab.get("pvc", "cellar")["status"]["capacity"]["storage"] == f"{larger}Mi", timeout=60)
    look = "kubectl describe pvc cellar; kubectl describe pod keeper"
    lab.require(done, expected=f"cellar has {larger}Mi", seen=lab.get("pvc", "cellar")["status"]["capacity"]["storage"], look=look)
    must_start(lab, "keeper")
    lab.require(
        not lab.get("pod", "keeper")["status"]["containerStatuses"][0].get("restartCount"),
        expected="keeper was not started anew",
        seen="it was",
        look="kubectl get pods",
    )
    has = int(lab.run_in("keeper", "df -Pk /data | tail -1").stdout.split()[1]) / 1024
    lab.require(has > larger * 0.8, expected=f"about {larger} MiB in keeper's /data", seen=f"{has:.0f} MiB", look=look, earned=2)
    with trial(lab):
        lab.apply([claim("trial"), pod("trial", "trial", **on(home))])
        must_start(lab, "trial")
        lab.run_in("trial", "head -c 8000000 /dev/urandom > /trial/old; md5sum /trial/old > /trial/sum; sync")
        volume = bound(lab, "trial")["spec"]["csi"]["volumeHandle"]
        uid = lab.get("pod", "trial")["metadata"]["uid"]
        path = next(each for each in mounted(lab, home, volume) if uid in each)

        def expand(mib: int, **more: Any) -> tuple[str, dict[str, Any]]:
            how = {"volume_id": volume, "volume_path": path, "capacity_range": {"required_bytes": mib * MIB}}
            return "Node/NodeExpandVolume", {**how, **more}

        first, second, less, nowhere, nobody = ask(
            lab, home, expand(64), expand(64), expand(40), expand(80, volume_path="/tmp"), expand(80, volume_id="no-such-volume")
        )
        size = int(lab.node(home).run(["stat", "-c", "%s", f"/var/lib/{DRIVER}/volumes/{volume}/disk"], check=True).stdout) / MIB
        whole = "OK" in lab.run_in("trial", "md5sum -c /trial/sum").stdout
    told = [int(answer.get("capacity_bytes", 0)) / MIB for _, answer in (first, second, less)]
    judged(
        lab,
        ("it grows while it is used, and a second call is OK", (first[0], second[0], told[:2]) == ("OK", "OK", [64, 64])),
        ("who asks for less gets what is there", (less[0], told[2], size) == ("OK", 64, 64)),
        ("not mounted there: NOT_FOUND", nowhere[0] == "NOT_FOUND"),
        ("no such volume: NOT_FOUND", nobody[0] == "NOT_FOUND"),
        ("what was in it is in it", whole),
        earned=6,
        worth=6,
        look="ask(…) with Node/NodeExpandVolume",
    )


@check("lost", points=12, timeout=180)
def _(lab: CheckContext) -> None:
    home = lab.params["home"]
    gone = lab.eventually(lambda: not forlorn(lab), timeout=90)
    name = f"check-{secrets.token_hex(4)}"
    create = ("Controller/CreateVolume", {"name": name, "volume_capabilities": [MODE], "capacity_range": {"required_bytes": 32 * MIB}})
    delete = ("Controller/DeleteVolume", {"volume_id": name})
    made, first, second, careless = ask(lab, home, create, delete, delete, ("Controller/DeleteVolume", {}))
    there = lab.node(home).run(["test", "-e", f"/var/lib/{DRIVER}/volumes/{name}"]).ok
    lab.node(home).run(["rm", "-rf", f"/var/lib/{DRIVER}/volumes/{name}"])
    lab.require(gone, expected="no volume is left whose claim is gone", seen=forlorn(lab), look="kubectl get pv; kubectl get events -A")
    mended = second[0] == "OK"
    lab.require(
        mended,
        expected="the next volume whose disk breaks goes away by itself",
        seen=f"DeleteVolume of a volume that is not there: {second[0]}",
        look="kubectl get configmap student -o yaml; the specification, at DeleteVolume",
    )
    judged(
        lab,
        ("a volume that is there is deleted, with its disk", (made[0], first[0], there) == ("OK", "OK", False)),
        ("no volume_id: INVALID_ARGUMENT", careless[0] == "INVALID_ARGUMENT"),
        earned=6,
        worth=6,
        look="ask(…) with Controller/DeleteVolume",
    )


def forlorn(lab: CheckContext) -> list[str]:
    """Volumes that should have been deleted with their claims."""
    items = lab.cluster.get("persistentvolumes")["items"]
    ours = [each for each in items if each["spec"].get("csi", {}).get("driver") == DRIVER]
    return [each["metadata"]["name"] for each in ours if each["status"]["phase"] in ("Released", "Failed")]


@check("dead", points=6, timeout=300)
def _(lab: CheckContext) -> None:
    said = lab.answered({"writes": bool, "starts": bool, "later": bool})
    home = lab.params["home"]
    with trial(lab):
        lab.apply([claim("trial"), pod("trial", "trial", **on(home))])
        must_start(lab, "trial")
        with no_driver(lab):
            lab.apply(pod("trial-2", "trial", **on(home)))
            right = {"writes": lab.run_in("trial", "date > /trial/note && sync && cat /trial/note").ok, "starts": starts(lab, "trial-2", 8)}
        right["later"] = starts(lab, "trial-2", 90)
    lab.compare(right, said, look="Try it: kubectl patch daemonset csi with a nodeSelector that no node has")


@contextmanager
def no_driver(lab: CheckContext) -> Iterator[None]:
    def select(value: str | None) -> None:
        patch = {"spec": {"template": {"spec": {"nodeSelector": {"nobody": value}}}}}
        lab.kubectl("patch", "daemonset", "csi", "-p", json.dumps(patch))

    select("home")
    try:
        lab.eventually(lambda: not lab.objects("pod", "app=csi"), timeout=60)
        yield
    finally:
        select(None)
        deploy.started(lab.cluster, lab.namespace)


@check("two-nodes", points=8, timeout=240)
def _(lab: CheckContext) -> None:
    who = {"scheduler", "attach-detach controller", "kubelet", "driver"}
    said = lab.answered({"refuses": who, "starts": bool, "refuses_then": who | {"nobody"}})
    with trial(lab):
        lab.apply([claim("trial"), pod("trial", "trial", **on("w1"))])
        must_start(lab, "trial")
        lab.apply(pod("trial-2", "trial", nodeName="w2"))
        refuses = lab.eventually(lambda: refusal(lab, "trial-2", ("Multi-Attach", "NOT_FOUND", "affinity")), timeout=30)
        lab.kubectl("delete", "pod", "trial", "--timeout=60s")
        then = lab.eventually(lambda: refusal(lab, "trial-2", ("NOT_FOUND",)), timeout=60)
        runs = is_ready(lab.find("pod", "trial-2"))
    lab.compare(
        {"refuses": refuses, "starts": runs, "refuses_then": then or "nobody"}, said, look="kubectl describe pod, of the second one"
    )


def refusal(lab: CheckContext, name: str, words: tuple[str, ...]) -> str:
    """Who keeps a Pod from starting, as its events have it."""
    speakers = {"Multi-Attach": "attach-detach controller", "NOT_FOUND": "driver", "affinity": "kubelet"}
    uid = lab.get("pod", name)["metadata"]["uid"]
    events = [each["message"] for each in lab.get("events")["items"] if each["involvedObject"].get("uid") == uid]
    return next((speakers[word] for word in words for message in events if word in message), "")


@check("sanity", points=10, timeout=240)
def _(lab: CheckContext) -> None:
    said = lab.answered(int)
    where = "--csi.endpoint=/sockets/kubelet.sock --csi.mountdir=/tmp/check-m --csi.stagingdir=/tmp/check-s"
    sizes = f"--csi.testvolumesize={32 * MIB} --csi.testvolumeexpandsize={64 * MIB}"
    driver = deploy.pods(lab.cluster, lab.namespace)[lab.params["home"]]
    output = lab.run_in(driver, f"csi-sanity --ginkgo.no-color {where} {sizes} 2>&1", container="driver").stdout
    counted = {word: int(number) for number, word in re.findall(r"(\d+) (Passed|Failed|Skipped)", output)}
    failed = re.findall(r"^\s+\[FAIL\] (.+)$", output, re.M)
    lab.require(
        counted.get("Failed") == 0 and counted.get("Passed", 0) >= 40,
        expected="csi-sanity has no complaint",
        seen=f"{counted.get('Failed', 'no')} complaints: " + "; ".join(failed[:3]),
        look="print(judge())",
    )
    near = abs(said - counted["Passed"]) <= 3  # a few tests are skipped or not, as there are more or fewer volumes
    lab.require(near, expected="how many tests passed", seen=said, look="the line that begins with SUCCESS!", earned=8)
