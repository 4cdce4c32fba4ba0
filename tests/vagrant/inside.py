"""Runs in the corner that world.py makes: what a learner does with `lab up --provider vagrant`, and what is left afterwards.

Each line that begins with `ok` or `FAIL` is one thing proven or not; the last one is END. Nothing here stands in for anything:
the commands are the `lab` that a person would type, Vagrant, libvirt and QEMU are Debian's, and the nodes boot a kernel of their own.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lab_utils.paths import repo_dir
from tests.proof import START, WEB, Said, prove, say, sh, talk
from tests.vagrant import world

LAB = [sys.executable, "-m", "lab_utils"]
NAME = "lab"
NODES = ["cp", "w1", "w2"]  # lab 08 asks for two workers
BOX = "kio/test"

# An idle worker with two emulated processors takes a fifth of a real one, with one of them a fortieth: they do not wake each other.
SETTINGS = f"""provider: libvirt
box: {BOX}
packaged: true
control_plane: {{cpus: 2, memory: 2560}}
worker: {{cpus: 1, memory: 1536}}
boot_timeout: 900
patience: 20
"""


def virsh(*words: str) -> set[str]:
    return set(sh("virsh", "--connect", "qemu:///system", *words).split())


class Learner:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = folder / "settings.yaml"
        settings.write_text(SETTINGS)
        self.environment = {**world.environment(folder), "LAB_VAGRANT_SETTINGS": str(settings), "LAB_CLUSTER": NAME}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*LAB, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)

    def lab(self, *words: str, code: int = 0, loud: bool = False, minutes: float = 40) -> str:
        """`lab …`; `loud` shows what it says as it goes, for the long ones. Returns both streams of a refusal, else the output."""
        process = self.start(*words)
        output, errors = talk(process, loud=loud, seconds=60 * minutes)
        if process.returncode != code:
            raise Said(f"lab {' '.join(words)} ended with code {process.returncode}, not {code}\n{output[-2500:]}{errors[-2500:]}")
        return output if code == 0 else output + errors

    def get(self, *words: str) -> Any:
        return json.loads(self.lab("kubectl", "--", "get", *words, "-o", "json"))

    def on(self, node: str, command: str) -> str:
        return self.lab("ssh", node, "--", command)


def main(folder: Path, bare: bool, only: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
    log = folder / "daemons.log"
    try:
        with world.daemons(log):
            say(f"     {time.monotonic() - START:5.0f} s | libvirtd runs")
            learner = Learner(folder)
            sh_vagrant(learner, "box", "add", "--name", BOX, str(folder / "node.box"))
            if not bare:
                whole_life(learner, only)
            if bare or not only:
                bare_life(learner)
    except Exception:
        say("FAIL the test itself")
        say(traceback.format_exc())
        say(log.read_text(errors="replace")[-2000:])
    say("END")


def sh_vagrant(learner: Learner, *words: str) -> None:
    done = subprocess.run(["vagrant", *words], capture_output=True, text=True, env=learner.environment)
    if done.returncode != 0:
        raise Said(f"vagrant {' '.join(words)}: {done.stdout[-500:]}{done.stderr[-1500:]}")


def whole_life(learner: Learner, only: str) -> None:
    before = look()
    cluster: list[tuple[str, Callable[[Learner], object]]] = [
        ("all nodes are Ready, at the addresses of their own network", nodes_ready),
        ("lab status", status),
        ("flannel's tunnel and the API are on the nodes' network, not on the way out", devices),
        ("every node answers lab ssh and lab logs, and has what labs look at", looks),
        ("all that every provider keeps to: nodes, commands, files, traffic, images, a second `lab up`, resets by snapshots", suite),
        ("lab 08's solution is graded at full marks", lambda learner: grade(learner, "08")),
        ("a stopped machine is named, and `lab up` starts it", stopped),
        ("a Service answers after that", service),
    ]
    prove("lab doctor calls the vagrant provider usable", lambda: doctor(learner))
    if prove(f"lab up --provider vagrant --workers {len(NODES) - 1}", lambda: up(learner)):
        for what, holds in cluster:
            if only in what:
                prove(what, partial(holds, learner))
    prove("lab down", lambda: learner.lab("down", loud=True) and "")
    prove("no domain, network, pool, disk, link or rule is left", lambda: nothing_left(before))
    if not only:
        prove("bad input ends with code 2 and one line, and makes nothing", lambda: refusals(learner, before))
        prove("kill -9 in the middle of `lab up`, then `lab down`: nothing is left", lambda: killed(learner, before))


def bare_life(learner: Learner) -> None:
    before = look()
    if prove("lab up --bare --provider vagrant --workers 1", lambda: up(learner, "1", "--bare")):
        prove("Kubernetes' programs are there, nothing is configured, and there is no container", lambda: untouched(learner))
        prove("a new cp and w1 by `lab reset`", lambda: reset_bare(learner))
        prove("lab 01's solution is graded at full marks", lambda: grade(learner, "01"))
    prove("lab down", lambda: learner.lab("down", loud=True) and "")
    prove("no domain, network, pool, disk, link or rule is left", lambda: nothing_left(before))


def untouched(learner: Learner) -> str:
    """What lab 01 begins with."""
    said = []
    for node in ("cp", "w1"):
        learner.on(node, "kubeadm version -o short && kubelet --version && containerd --version")
        learner.on(node, "test ! -e /var/lib/kubelet/config.yaml && ! ls /etc/kubernetes/*.conf")
        learner.on(node, 'containers=$(crictl ps -aq) && test -z "$containers"')  # a runtime that does not answer is no proof
        said.append(f"{node}: {learner.on(node, 'uname -r').strip()}")
    return "; ".join(said)


def reset_bare(learner: Learner) -> str:
    learner.on("w1", "touch /root/was-here")
    learner.lab("reset", loud=True)
    learner.on("w1", "test ! -e /root/was-here")
    return untouched(learner)


def look() -> dict[str, set[str]]:
    """All that a cluster could leave, as this corner of the machine shows it."""
    disks = {str(path) for place in ("/var/lib/libvirt/images",) for path in Path(place).rglob("*")}
    return {
        "domains": virsh("list", "--all", "--name"),
        "networks": virsh("net-list", "--all", "--name"),
        "pools": virsh("pool-list", "--all", "--name"),
        "disks": disks,
        "links": {link["ifname"] for link in json.loads(sh("ip", "-j", "link"))},
        "addresses": set(sh("ip", "-br", "address").splitlines()),
        "processes": {name for name in sh("ps", "-eo", "comm=").split() if name.startswith(("qemu", "dnsmasq", "vagrant", "ruby"))},
        # libvirt keeps its own chains, empty, and forwarding on; neither is a cluster's.
        "rules": {line for line in sh("iptables-save").splitlines() if line.startswith("-A") and "LIBVIRT" not in line.split()[1]},
    }


def nothing_left(before: dict[str, set[str]]) -> str:
    after = look()
    # The rules that lead to libvirt's own chains stay as long as libvirtd runs.
    new = {kind: sorted(item for item in after[kind] - before[kind] if "-j LIBVIRT" not in item) for kind in before}
    if left := [f"{kind}: {items}" for kind, items in new.items() if items]:
        raise Said("\n".join(left))
    return ""


def doctor(learner: Learner) -> str:
    report = json.loads(learner.lab("doctor", "--json"))
    mine = next(each for each in report["providers"] if each["name"] == "vagrant")
    if not mine["usable"]:
        raise Said(f"{mine['why']}; {mine['mend']}")
    return str(mine["why"])


def refusals(learner: Learner, before: dict[str, set[str]]) -> str:
    def refused(text: str, *expected: str, **environment: str) -> None:
        file = learner.folder / "wrong.yaml"
        file.write_text(SETTINGS + text)
        kept = learner.environment
        # An `up` that fails keeps Vagrant's log where temporary files go: here, in what the test takes away.
        learner.environment = {**kept, "LAB_VAGRANT_SETTINGS": str(file), "TMPDIR": str(learner.folder), **environment}
        try:
            said = learner.lab("up", "--provider", "vagrant", "--name", "wrong", code=2)
        finally:
            learner.environment = kept
        errors = [line for line in said.splitlines() if line.startswith("lab: ")]
        if len(errors) != 1 or any(word not in errors[0] for word in expected) or "Traceback" in said:
            raise Said(f"expected one line with {expected}, and got:\n{said}")
        if (learner.folder / "state/clusters/wrong").exists():
            raise Said("a folder of the refused cluster is left")
        nothing_left(before)

    bare_path = learner.folder / "bin"
    bare_path.mkdir(exist_ok=True)
    refused("", "Vagrant is not installed", PATH=str(bare_path))
    refused("provider: virtualbox\n", "virtualbox", "not installed")
    refused("network: 10.0.0.0/24\n", "192.168.56.0/21")
    refused("worker: {cpus: 2, memory: 900000}\n", "1802560 MB", "MB are free")
    refused("boxen: {}\n", "boxen", "Did you mean boxes?")
    refused("box: kio/absent\n", "box", "vagrant box add")
    return "6 kinds"


def killed(learner: Learner, before: dict[str, set[str]]) -> str:
    process = learner.start("up", "--provider", "vagrant", "--workers", "0", "--name", "victim")
    deadline = time.monotonic() + 300
    while "kio-victim-cp" not in virsh("list", "--all", "--name"):
        if time.monotonic() > deadline or process.poll() is not None:
            raise Said(f"no machine appeared: {process.stderr.read() if process.poll() is not None and process.stderr else ''}")
        time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    learner.lab("down", "--name", "victim", loud=True)
    if (learner.folder / "state/clusters/victim").exists():
        raise Said("the folder of the cluster is left")
    nothing_left(before)
    return ""


def up(learner: Learner, workers: str = str(len(NODES) - 1), *options: str) -> str:
    learner.lab("up", "--provider", "vagrant", "--workers", workers, "--name", NAME, *options, loud=True)
    return "emulated"


def nodes_ready(learner: Learner) -> str:
    nodes = learner.get("nodes")["items"]
    ready = {n["metadata"]["name"] for n in nodes for c in n["status"]["conditions"] if (c["type"], c["status"]) == ("Ready", "True")}
    addresses = {a["address"] for n in nodes for a in n["status"]["addresses"] if a["type"] == "InternalIP"}
    expected = {f"192.168.56.{10 + index}" for index in range(len(NODES))}
    if ready != set(NODES) or addresses != expected:
        raise Said(f"Ready are {sorted(ready)}, at {sorted(addresses)}")
    info = nodes[0]["status"]["nodeInfo"]
    return f"{info['kubeletVersion']}, {info['kernelVersion']}, {info['containerRuntimeVersion']}"


def status(learner: Learner) -> str:
    report = json.loads(learner.lab("status", "--json"))["clusters"][0]
    if not report["healthy"] or report["provider"] != "vagrant":
        raise Said(json.dumps(report))
    return ""


def devices(learner: Learner) -> str:
    for node in NODES:
        link = json.loads(learner.on(node, "ip -j -d link show flannel.1"))[0]
        said = link["linkinfo"]["info_data"]
        if said.get("link") != "eth1" or not said.get("local", "").startswith("192.168.56."):
            raise Said(f"on {node}, flannel.1 is {said}")
    flags = learner.on("cp", "pgrep -a kube-apiserver")
    if "--advertise-address=192.168.56.10" not in flags:
        raise Said(flags)
    return ""


def looks(learner: Learner) -> str:
    for node in NODES:
        if learner.on(node, "hostname").strip() != node:
            raise Said(f"{node} is called otherwise")
        if "127.0" in learner.on(node, f"getent hosts {node}"):
            raise Said(f"on {node}, its own name means a loopback address")
        if int(learner.on(node, "cat /proc/sys/fs/inotify/max_user_instances")) < 8192:
            raise Said(f"{node} has too few inotify instances")
        if "kubelet" not in learner.lab("logs", node, "kubelet"):
            raise Said(f"lab logs {node} kubelet said nothing of it")
        for command in ("crictl ps -q", "iptables-save -t nat | grep -q KUBE-SERVICES && echo yes"):
            if not learner.on(node, command).strip():
                raise Said(f"`{command}` said nothing on {node}")
    return ""


def service(learner: Learner) -> str:
    manifest = learner.folder / "web.yaml"
    manifest.write_text(WEB)
    learner.lab("kubectl", "--", "apply", "-f", str(manifest))
    learner.lab("kubectl", "--", "rollout", "status", "daemonset/web", "--timeout=900s")
    address = learner.get("service", "web")["spec"]["clusterIP"]
    pods = {
        pod["metadata"]["name"] for pod in learner.get("pods", "-l", "app=web")["items"] if not pod["metadata"].get("deletionTimestamp")
    }
    for node in NODES:
        script = f"for i in $(seq 30); do curl -s --max-time 20 http://{address}/hostname; echo; done"
        seen = set(learner.on(node, script).split())
        if seen != pods:
            raise Said(f"from {node} answered {sorted(seen)}, and the Pods are {sorted(pods)}")
    return f"{len(pods)} Pods on {len(NODES)} nodes"


def suite(learner: Learner) -> str:
    """The providers' own suite on this cluster, but for what makes others: `killed` and `bare_life` do that here."""
    asked = [
        str(repo_dir() / "tests/providers/test_conformance.py"),
        "-k",
        "not TestComingAndGoing",
        "--timeout=3600",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**learner.environment, "LAB_TEST_PROVIDER": "vagrant", "LAB_TEST_CLUSTER": NAME}
    words = ["sh", "-c", 'exec "$@" >&2', "sh", sys.executable, "-m", "pytest", "-v", *asked]  # what is said on stderr is shown as it comes
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    _, said = talk(process, loud=True, seconds=3600)
    if process.returncode != 0:
        raise Said(said[-6000:])
    return said.strip().splitlines()[-1].strip("= ")


def grade(learner: Learner, number: str) -> str:
    notebook = learner.folder / f"solution-{number}.ipynb"
    learner.lab("solution", number, "--out", str(notebook))
    out = learner.folder / f"reports-{number}"
    words = ["grade", number, str(notebook), "--out", str(out), "--cluster", NAME, "--timeout", "7200", "--cell-timeout", "1800"]
    learner.lab(*words, loud=True, minutes=120)
    results = json.loads((out / "results.json").read_text())
    one = results["submissions"][0]
    if one["score"] != one["max_score"]:
        raise Said("\n".join(f"{step['step']}: {step['status']}: {step['message']}" for step in one["steps"]))
    return f"{one['score']} of {one['max_score']}"


def stopped(learner: Learner) -> str:
    sh("virsh", "--connect", "qemu:///system", "destroy", f"kio-{NAME}-w1")
    said = learner.lab("status", code=1)
    row = next(line for line in said.splitlines() if " w1 " in line)
    if "Stopped" not in row or "lab up" not in row:
        raise Said(said)
    learner.lab("up", "--name", NAME, loud=True)
    nodes_ready(learner)
    return shlex.join(row.split())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "bare", sys.argv[3])
