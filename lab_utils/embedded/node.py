"""One embedded node: its folder, its processes, and commands run inside of it as root of the host."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from lab_utils import unshare
from lab_utils.embedded import cgroups, slow
from lab_utils.embedded.network import nameservers
from lab_utils.embedded.patience import patience
from lab_utils.embedded.state import State
from lab_utils.errors import CommandFailed, Unhealthy
from lab_utils.run import Result, run, start

BOOT = Path(__file__).with_name("boot.sh")
GUARD = Path(__file__).with_name("guard.py")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def furnish(state: State, node: str) -> None:
    """Make the node's folder: an empty overlay, the image store by hard links, and the few files that make it itself."""
    folder = state.node_dir(node)
    for name in ("upper", "work", "root", "containerd"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    link_tree(Path(state.store), folder / "containerd")
    for path, (text, mode) in identity(state, node).items():
        place(folder / "upper", Path(state.lower), path, text, mode)
    give_away(state, node)


def give_away(state: State, node: str) -> None:
    """What is ours in a guarded node's folders becomes its root's. The image store's files are links that others share: they stay ours."""
    first = state.first_id(node)
    if not first:
        return
    folder, owner = state.node_dir(node), f"{first}:{first}"
    (folder / "lower").mkdir(exist_ok=True)
    (folder / "root").chmod(0o755)
    run(["find", folder / "upper", folder / "work", "-uid", "0", "-exec", "chown", "-h", owner, "{}", "+"])
    run(["find", folder / "containerd", "(", "-type", "d", "-o", "-name", "*.db", ")", "-exec", "chown", "-h", owner, "{}", "+"])


def unfurnish(state: State, node: str) -> None:
    """Remove all that was written on a stopped node."""
    remove_tree(*(state.node_dir(node) / name for name in ("upper", "work", "containerd")))


def remove_tree(*folders: Path) -> None:
    """By rm: what somebody made on a node may be deeper than Python goes (shutil.rmtree ends in a RecursionError)."""
    run(["rm", "-rf", "--one-file-system", "--", *folders])


def identity(state: State, node: str) -> dict[str, tuple[str, int]]:
    """The files in which one node differs from another."""
    hosts = "".join(f"{state.ip(name)} {name}\n" for name in state.nodes)
    files = {
        "etc/hostname": (f"{node}\n", 0o644),
        "etc/hosts": (f"127.0.0.1 localhost\n::1 localhost ip6-localhost\n{hosts}", 0o644),
        "etc/resolv.conf": (resolv_conf(state), 0o644),
        "etc/machine-id": (hashlib.sha256(f"{state.name}/{node}/{state.token}".encode()).hexdigest()[:32] + "\n", 0o444),
        **keys(state),
        "etc/ssh/sshd_config.d/10-lab.conf": (
            "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nUseDNS no\nMaxSessions 200\nMaxStartups 200\n",
            0o644,
        ),
    }
    if not state.options["bare"]:
        # Until kubeadm has given kubelet a configuration, it would fail and start again every second, on each worker, while the
        # control plane needs the processor. On bare nodes it does as the official packages have it.
        files["etc/systemd/system/kubelet.service.d/30-when-configured.conf"] = (
            "[Unit]\nConditionPathExists=/var/lib/kubelet/config.yaml\n",
            0o644,
        )
    if cgroups.version() == "v1":
        # kubelet's cgroupRoot has to be in every tree. boot.sh makes it; systemd clears empty groups away when a unit that it delegated
        # controllers to, such as containerd, stops.
        files["etc/systemd/system/kubelet.service.d/40-cgroup-root.conf"] = (
            "[Service]\nExecStartPre=/bin/sh -c 'for tree in /sys/fs/cgroup/*/; do mkdir -p $${tree}kubelet; done'\n",
            0o644,
        )
    files |= {path.lstrip("/"): (text, 0o644) for path, text in slow.units(patience()).items()}
    config = (Path(state.lower) / "etc/containerd/config.toml").read_text()
    lower_oom = may_lower_oom() and not state.first_id(node)
    files["etc/containerd/config.toml"] = (containerd_config(config, v2=cgroups.version() == "v2", may_lower_oom=lower_oom), 0o644)
    return files


def keys(state: State) -> dict[str, tuple[str, int]]:
    return {
        "etc/ssh/ssh_host_ed25519_key": (state.options["host_key"], 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": (state.options["host_key_public"] + "\n", 0o644),
        "root/.ssh/authorized_keys": (state.options["authorized_key"] + "\n", 0o600),
    }


def resolv_conf(state: State) -> str:
    return "".join(f"nameserver {server}\n" for server in nameservers() or [state.plan.gateway])


def containerd_config(text: str, *, v2: bool, may_lower_oom: bool) -> str:
    """The node root's configuration, fitted to this host. Pure."""
    text = text.replace(f"SystemdCgroup = {str(not v2).lower()}", f"SystemdCgroup = {str(v2).lower()}")
    return text.replace(
        f"restrict_oom_score_adj = {str(may_lower_oom).lower()}", f"restrict_oom_score_adj = {str(not may_lower_oom).lower()}"
    )


def may_lower_oom() -> bool:
    """CAP_SYS_RESOURCE (bit 24) lets a process lower oom_score_adj; some hosts, and most containers, withhold it."""
    bounding = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    return bool(int(bounding, 16) >> 24 & 1)


def place(upper: Path, lower: Path, path: str, text: str, mode: int) -> None:
    """Write a file into the overlay's upper layer. Its folders get the mode that they have below, for the upper one wins."""
    target = upper / path
    for parent in reversed(Path(path).parents):
        folder = upper / parent
        if not folder.exists():
            folder.mkdir()
            below = lower / parent
            folder.chmod(below.stat().st_mode & 0o7777 if below.is_dir() else (0o700 if parent.name == ".ssh" else 0o755))
    target.unlink(missing_ok=True)
    target.touch(mode=mode)
    target.chmod(mode)
    target.write_text(text)


def link_tree(source: Path, target: Path) -> None:
    """Give a node the image store without copying it: every file a hard link, but for the databases that are written to.

    No link leads from one file system, subvolume or mount to another (link(2), EXDEV): there it is copied after all.
    """
    remove_tree(target)
    if not run(["cp", "-al", source, target], check=False).ok:
        remove_tree(target)
        run(["cp", "-a", "--reflink=auto", source, target])
    for database in target.rglob("*.db"):
        data = database.read_bytes()
        database.unlink()
        database.write_bytes(data)


def boot(state: State, node: str) -> None:
    """Start the node unless it runs. The control groups are recorded, then made, then entered."""
    if init_pid(state, node):
        return
    stop(state, node)  # whatever a killed node left
    spot = cgroups.place(state.unit(node))
    state.groups[node] = [str(group) for group in spot.groups]
    state.save()
    cgroups.make(spot)
    folder = state.node_dir(node)
    first = state.first_id(node)
    if first:
        cgroups.delegate(spot, first)
    environment = {
        "PATH": PATH,
        "KIO_NODE": node,
        "KIO_DIR": str(folder),
        "KIO_LOWER": state.lower,
        "KIO_NETNS": state.plan.netns(node),
        "KIO_CGROUPS": " ".join(map(str, spot.enter)),
        "KIO_DIVIDE": str(spot.divide or ""),
        "KIO_FIRST": str(first or ""),
        "KIO_UNSHARE": unshare.program(),
        "KIO_PYTHON": sys.executable,
        "KIO_GUARD": str(GUARD),
        "KIO_PROCESSES": str(cgroups.GUARDED_PROCESSES),
        "KIO_BYTES": str(cgroups.GUARDED_BYTES),
        "KIO_UUID": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{node}.{state.name}.{state.token}")),
    }
    pid = start([*spot.launcher, BOOT], log=folder / "console.log", env=environment)
    state.launchers[node] = [pid, start_time(pid)]
    state.save()


def wait_booted(state: State, node: str, seconds: float = 60) -> None:
    """Wait until sshd listens and containerd says that it is ready (its socket is there before it answers)."""
    deadline = time.monotonic() + seconds * patience()
    while time.monotonic() < deadline:
        pid = init_pid(state, node)
        root = Path(f"/proc/{pid}/root")
        try:
            listening = pid and (root / "run/containerd/containerd.sock").exists() and (root / "run/sshd.pid").exists()
            if listening and inside(state, node, ["systemctl", "is-active", "--quiet", "containerd"], check=False).ok:
                return
        except OSError:
            pass
        if not pid and not alive(state, node):
            break
        time.sleep(0.03)
    console = (state.node_dir(node) / "console.log").read_text(errors="replace").strip().splitlines()
    raise Unhealthy(
        f"node {node} did not come up: {console[-1] if console else 'its console is empty'}",
        "The file console.log has all of it",
    )


def alive(state: State, node: str) -> bool:
    """Does the launcher that we started still run? A pid alone proves nothing, so its start time is compared."""
    pid, started = state.launchers.get(node, [0, 0])
    return pid > 0 and start_time(pid) == started


def init_pid(state: State, node: str) -> int:
    """The node's process 1, as the host numbers it; 0 when the node does not run."""
    if not alive(state, node):
        return 0
    pid = state.launchers[node][0]
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children and _is_init(int(children[0])):
            return int(children[0])
    except OSError:
        pass
    return 0


def _is_init(pid: int) -> bool:
    """Has it already pivoted into the node and become systemd? Before that it still is the boot script."""
    return Path(f"/proc/{pid}/comm").read_text().strip() in ("systemd", "init")


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot (field 22 of /proc/PID/stat); 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[19])


def stop(state: State, node: str) -> None:
    """End everything of the node at once and remove its control groups. Repeating it does no harm."""
    if alive(state, node):
        os.kill(state.launchers[node][0], signal.SIGKILL)
    groups = [Path(group) for group in state.groups.get(node, [])]
    cgroups.kill(groups)
    cgroups.remove(groups)
    state.launchers.pop(node, None)


def inside(state: State, node: str, argv: Sequence[str], *, timeout: float = 60, input: str | None = None, check: bool = True) -> Result:
    """Run a command in all of the node's namespaces, as its root."""
    pid = init_pid(state, node)
    if not pid:
        raise Unhealthy(f"node {node} of cluster {state.name!r} does not run", f"Start it with `lab up --name {state.name}`")
    # Into a guarded node never with our own rights: what runs there may have been put there by a stranger.
    user = ["-U"] if state.first_id(node) else []
    enter = ["nsenter", "-t", str(pid), *user, "-m", "-n", "-p", "-u", "-i", "-C", "-r", "-w", "--"]
    clean = ["env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8"]
    try:
        return run([*enter, *clean, *argv], timeout=timeout, input=input, check=check)
    except CommandFailed as error:  # shown as a person on the node would type it
        raise CommandFailed(["lab", "ssh", "--name", state.name, node, "--", *argv], error.code, error.stdout, error.stderr) from None
