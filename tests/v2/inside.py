"""Runs in the guest, as its root: what a learner does, first as root, then as a user with sudo, and what is left afterwards.

Each line that begins with `ok` or `FAIL` is one thing proven or not; the last one is END. Nothing here stands in for anything:
the commands are the `lab` that a person would type.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import traceback
from pathlib import Path
from typing import Any

from tests.cluster.leaks import difference, look
from tests.proof import START, WEB, Said, prove, say, sh, talk
from tests.v2.guest import CHECKOUTS, TIMES

# Everything takes several times as long in an emulated machine. Nothing may be downloaded or built: the caches hold it all.
# Waits of kubectl's own that nothing makes longer: ten seconds for a handshake, and thirty for a sign of life on a connection. An emulated
# machine with all it can do on hand misses either now and then, and then it is asked once more.
KUBECTL_GAVE_UP = ("net/http: TLS handshake timeout", "http2: client connection lost")
SETTINGS = {"LAB_PATIENCE": "20", "LAB_SOURCES": "cache", "TERM": "dumb"}

# Said on the kernel's command line by machine.py.
BARE = "lab.bare" in Path("/proc/cmdline").read_text().split()


class Person:
    """root, or a user in a login session of their own (a logind scope below user.slice, where `lab` really starts from)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checkout = CHECKOUTS[name]
        self.home = Path("/root" if name == "root" else f"/home/{name}")

    def lab(self, *words: str, minutes: float = 20, loud: bool = False) -> str:
        """`lab …` as this person. `loud` shows what it says as it goes, for the long ones."""
        settings = [f"{name}={value}" for name, value in SETTINGS.items()]
        session = ["systemd-run", "--pipe", "--wait", "--quiet", "--collect", "-p", "PAMName=login", "-p", f"User={self.name}"]
        session += [f"--working-directory={self.checkout}", f"--setenv=HOME={self.home}", "--", "env", *settings]
        for _ in range(4):
            process = subprocess.Popen(
                [*session, f"{self.checkout}/.venv/bin/lab", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            output, errors = talk(process, loud=loud, seconds=60 * minutes)
            if process.returncode == 0 or words[0] != "kubectl" or not any(sign in errors for sign in KUBECTL_GAVE_UP):
                break
        if process.returncode != 0:
            raise Said(f"lab {' '.join(words)} ended with code {process.returncode}\n{output[-1500:]}{errors[-1500:]}")
        return output

    def kubectl(self, *words: str) -> str:
        return self.lab("kubectl", "--", *words)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))


def main() -> None:
    times = json.loads(Path("/", TIMES).read_text())
    for path, stamp in times.items():
        os.utime(path, ns=(stamp, stamp), follow_symlinks=False)
    say(f"     {time.monotonic() - START:5.0f} s | the machine is up: {len(times)} times put right")
    try:
        the_machine()
        for name in CHECKOUTS:
            whole_life(Person(name))
        say("\n--- as root, with AppArmor")
        prove("nodes come up where AppArmor takes all rights from what unshare starts", lambda: confined(Person("root")))
    except Exception:
        say("FAIL the test itself")
        say(traceback.format_exc())
    say("END")


def the_machine() -> None:
    def cgroups() -> str:
        kind = sh("stat", "-f", "-c", "%T", "/sys/fs/cgroup").strip()
        first = Path("/proc/1/comm").read_text().strip()
        if (kind, first) != ("cgroup2fs", "systemd"):
            raise Said(f"{kind}, {first}")
        return f"{os.uname().release}, {sh('systemctl', '--version').splitlines()[0]}"

    prove("this is a machine with cgroup v2 alone and systemd as process 1", cgroups)


def whole_life(person: Person) -> None:
    say(f"\n--- as {person.name}")
    owned_before = not_theirs(person)
    # A first command makes Python's own byte code and asks the kernel for its modules; only after it the host is as found.
    prove("lab doctor calls the embedded provider usable", lambda: doctor(person))
    before = look()
    started = time.monotonic()
    if BARE:
        if prove("lab up --bare --workers 1", lambda: up(person, started, "--bare")):
            prove("/sys/fs/cgroup inside the nodes is their own cgroup2 tree", lambda: trees(person, "system.slice"))
            prove("the nodes live in scopes that systemd delegated", lambda: scopes("containerd.service"))
            prove("systemd in the nodes divides its groups and sets limits", lambda: limits(person))
            prove(
                "nodes outlive the session that started them",
                lambda: person.lab("ssh", "w1", "--", "systemctl is-active containerd").strip(),
            )
    elif prove("lab up --workers 1", lambda: up(person, started)):
        prove("both nodes are Ready", lambda: nodes_ready(person))
        prove("kubelet and containerd use the systemd cgroup driver", lambda: cgroup_driver(person))
        prove("/sys/fs/cgroup inside the nodes is their own cgroup2 tree", lambda: trees(person, "system.slice", "kubepods.slice"))
        prove("the nodes live in scopes that systemd delegated", lambda: scopes("kubelet.service", "kubepods.slice", "/usr/bin/kubelet"))
        prove("Pods have their groups and limits below the node's", lambda: pods_below(person))
        prove("a Service answers from every node by the Pods of both", lambda: service(person))
        prove("nodes outlive the session that started them", lambda: outlived(person))
        prove("lab reset", lambda: reset(person))
        prove("a Service answers after the reset", lambda: service(person))
    else:
        why()
    prove("lab down", lambda: person.lab("down", loud=True) and "")
    prove("nothing is left on the host", lambda: nothing_left(before))
    if person.name != "root":
        prove("nothing in the user's home belongs to root", lambda: home_is_theirs(person, owned_before))


# As Ubuntu has it since 25.04 (/etc/apparmor.d/unshare-userns-restrict), in the words of this older AppArmor.
PROFILE = """
profile unshare /usr/bin/unshare flags=(attach_disconnected) {
    capability, network, mount, umount, pivot_root, signal, ptrace,
    /{,**} rwlkm,
    /** px -> unshare_child,
}
profile unshare_child flags=(attach_disconnected) {
    network, signal, ptrace,
    /{,**} rwlkm,
    /** ix,
}
"""


def confined(person: Person) -> str:
    file = Path("/run/confined-unshare")
    file.write_text(PROFILE)
    sh("apparmor_parser", "--replace", str(file))
    try:
        mounts = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
        if mounts.returncode == 0:
            raise Said("this AppArmor does not confine it")
        person.lab("up", "--bare", "--workers", "1", loud=True)
        said = person.lab("ssh", "w1", "--", "systemctl is-active containerd").strip()
        person.lab("down")
    finally:
        sh("apparmor_parser", "--remove", str(file))
    return f"unshare --mount mount: {mounts.stderr.strip().splitlines()[0]}; containerd on w1 is {said}"


def why() -> None:
    """After a failed `up`: what the kept logs say last."""
    for folder in sorted(Path("/tmp").glob("lab-up-*")):
        for file in sorted(folder.iterdir()):
            say(f"     == {file.name}")
            for line in file.read_text(errors="replace").splitlines()[-25:]:
                say(f"     {line[:220]}")


def doctor(person: Person) -> str:
    report = json.loads(person.lab("doctor", "--json"))
    mine = next(each for each in report["providers"] if each["name"] == "embedded")
    if not mine["usable"]:
        raise Said(f"{mine['why']}; {mine['mend']}")
    return str(mine["why"])


def up(person: Person, started: float, *options: str) -> str:
    person.lab("up", "--workers", "1", *options, loud=True)
    return f"{time.monotonic() - started:.0f} s, emulated"


def reset(person: Person) -> str:
    started = time.monotonic()
    person.kubectl("create", "namespace", "litter")
    person.lab("reset", loud=True)
    if "litter" in person.kubectl("get", "namespaces", "-o", "name"):
        raise Said("the namespace made before the reset is still there")
    nodes_ready(person)
    return f"{time.monotonic() - started:.0f} s, emulated"


def nodes_ready(person: Person) -> str:
    nodes = person.get("nodes")["items"]
    ready = {n["metadata"]["name"] for n in nodes for c in n["status"]["conditions"] if (c["type"], c["status"]) == ("Ready", "True")}
    if ready != {"cp", "w1"}:
        raise Said(f"Ready are {sorted(ready)}")
    return str(nodes[0]["status"]["nodeInfo"]["kubeletVersion"])


def cgroup_driver(person: Person) -> str:
    for node in ("cp", "w1"):
        config = json.loads(person.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/configz"))["kubeletconfig"]
        if config["cgroupDriver"] != "systemd":
            raise Said(f"kubelet on {node} runs with {config['cgroupDriver']}")
        if "SystemdCgroup = true" not in person.lab("ssh", node, "--", "cat", "/etc/containerd/config.toml"):
            raise Said(f"containerd on {node} does not have SystemdCgroup = true")
    return ""


def trees(person: Person, *slices: str) -> str:
    for node in ("cp", "w1"):
        seen = person.lab(
            "ssh", node, "--", "stat -f -c %T /sys/fs/cgroup; cat /proc/1/cgroup; ls -d /sys/fs/cgroup/*.slice; ls /sys/fs/cgroup"
        )
        for expected in ("cgroup2fs", "0::/init.scope", *(f"/sys/fs/cgroup/{each}" for each in slices)):
            if expected not in seen:
                raise Said(f"on {node}, no {expected} in:\n{seen}")
        if "kio-" in seen:
            raise Said(f"{node} sees the host's groups:\n{seen}")
    return ""


def scopes(*inside: str) -> str:
    for node in ("cp", "w1"):
        scope = f"kio-lab-{node}.scope"
        shown = sh("systemctl", "show", scope, "-p", "Delegate,ActiveState,ControlGroup")
        for expected in ("Delegate=yes", "ActiveState=active", f"ControlGroup=/system.slice/{scope}"):
            if expected not in shown:
                raise Said(f"{scope}: no {expected} in:\n{shown}")
        listing = sh("systemd-cgls", "--no-pager", "--full", "--unit", scope)
        for expected in ("containerd.service", *inside):
            if expected not in listing:
                raise Said(f"no {expected} below {scope}:\n{listing}")
    return "systemd-cgls shows their services below kio-lab-cp.scope and kio-lab-w1.scope"


def limits(person: Person) -> str:
    """What systemd on a node hands down, seen from a service with limits of its own."""
    for node in ("cp", "w1"):
        script = "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); cat memory.max pids.max cpu.weight"
        words = ["systemd-run", "--wait", "--pipe", "--quiet", "-p", "MemoryMax=64M", "-p", "TasksMax=50", "-p", "CPUWeight=77"]
        seen = person.lab("ssh", node, "--", shlex.join([*words, "sh", "-c", script])).split()
        if seen != [str(64 << 20), "50", "77"]:
            raise Said(f"on {node}: {seen}")
    return ""


def pods_below(person: Person) -> str:
    """The limit of a Pod's container, as the kernel has it, at the place where systemd on the node put it."""
    person.kubectl("delete", "daemonset", "web", "--ignore-not-found")
    Path("/tmp/web.yaml").write_text(WEB)
    person.kubectl("apply", "-f", "/tmp/web.yaml")
    person.kubectl("rollout", "status", "daemonset/web", "--timeout=600s")
    for node in ("cp", "w1"):
        seen = person.lab("ssh", node, "--", "find /sys/fs/cgroup/kubepods.slice -name memory.max | xargs cat | sort -u").split()
        if str(64 << 20) not in seen:
            raise Said(f"no group on {node} has the container's limit of 64 MiB: {seen}")
    return ""


def service(person: Person) -> str:
    person.kubectl("apply", "-f", "/tmp/web.yaml")
    person.kubectl("rollout", "status", "daemonset/web", "--timeout=600s")
    address = person.get("service", "web")["spec"]["clusterIP"]
    pods = {pod["metadata"]["name"] for pod in person.get("pods", "-l", "app=web")["items"] if not pod["metadata"].get("deletionTimestamp")}
    for node in ("cp", "w1"):
        script = f"for i in $(seq 20); do curl -s --max-time 10 http://{address}/hostname; echo; done"
        seen = set(person.lab("ssh", node, "--", script).split())
        if seen != pods:
            raise Said(f"from {node} answered {sorted(seen)}, and the Pods are {sorted(pods)}")
    return f"{len(pods)} Pods"


def outlived(person: Person) -> str:
    said = person.lab("status")
    if said.count("Ready") != 2:
        raise Said(said)
    return ""


def nothing_left(before: dict[str, set[str]]) -> str:
    """But for what any firewall brings with it: modules such as nf_conntrack stay loaded, and their settings, at the kernel's own
    values, are visible from then on. What is gone again, or must be, is the one for bridges."""
    after = look()
    known = {line.partition(" = ")[0] for line in before["sysctls"]}
    settings = {line for line in after["sysctls"] if line.partition(" = ")[0] not in known and not line.startswith("net/bridge/")}
    after["sysctls"] -= settings
    for seen in (before, after):  # a login session's own folder comes and goes with it, seconds late
        seen["mounts"] = {line for line in seen["mounts"] if not line.startswith("/run/user/")}
    left = difference(before, after)
    if left:
        raise Said("\n".join(left))
    return f"{len(settings)} settings of modules that are loaded now" if settings else ""


def not_theirs(person: Person) -> set[str]:
    return set(sh("find", str(person.home), "!", "-user", person.name).splitlines())


def home_is_theirs(person: Person, before: set[str]) -> str:
    if found := not_theirs(person) - before:
        raise Said("\n".join(sorted(found)))
    return ""


if __name__ == "__main__":
    main()
