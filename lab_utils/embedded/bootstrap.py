"""From booted nodes to a cluster: `kubeadm init`, the Pod network, `kubeadm join`, and a copy of the result to go back to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab_utils.embedded import cgroups, kubeadm, node, pristine, slow
from lab_utils.embedded.attempt import kubeadm_on
from lab_utils.embedded.gate import Gate
from lab_utils.embedded.patience import patience
from lab_utils.embedded.state import State
from lab_utils.errors import Unhealthy
from lab_utils.progress import Progress
from lab_utils.together import each


def bootstrap(new: State, kubectl: str, progress: Progress) -> str:
    """kubeadm on every node; the Pod network goes in as soon as the API server takes it."""
    cp, ip = new.control_plane, new.ip(new.control_plane)
    config = kubeadm.init_config(
        ip=ip,
        node=cp,
        token=new.token,
        kubernetes=new.options["kubernetes"],
        cgroup=cgroups.version(),
        proxy_mode=new.options["proxy_mode"],
        alone=not new.workers,
        patience=patience(),
    )
    with progress.step("kubeadm init on cp"):
        write(new, cp, "/root/kubeadm.yaml", config)
        for name, text in slow.patches(patience()).items():
            write(new, cp, f"{slow.PATCHES}/{name}", text)
        run_kubeadm(new, cp, "init", "--config=/root/kubeadm.yaml", "--skip-token-print")
        node.inside(new, cp, ["sh", "-c", "mkdir -p /root/.kube && ln -sf /etc/kubernetes/admin.conf /root/.kube/config"])
        admin = node.inside(new, cp, ["cat", "/etc/kubernetes/admin.conf"]).stdout
        kubeconfig = kubeadm.user_kubeconfig(admin, new.name)
    with kubeconfig_file(kubeconfig) as file:
        gate = Gate(new, kubectl, file, progress)
        network = kubeadm.flannel(api=ip, images=new.options["images"], patience=patience())
        gate.kubectl("apply", "-f", "-", input=network)
        if new.workers:
            with progress.step(f"kubeadm join on {', '.join(new.workers)}"):
                ca = kubeadm.ca_hash(kubeadm.ca_of(admin))
                gate.token(new.token)
                each(new.workers, lambda name: _join(new, name, f"{ip}:6443", ca), leave=True)
        with progress.step("Waiting until Pods reach each other on every node"):
            gate.everything()
        with progress.step("Keeping a copy of the pristine cluster for `lab reset`"):
            pristine.take(new, etcd_pid(new))
    return kubeconfig


def _join(new: State, name: str, endpoint: str, ca: str) -> None:
    config = kubeadm.join_config(ip=new.ip(name), node=name, token=new.token, endpoint=endpoint, ca_hash=ca, patience=patience())
    write(new, name, "/root/kubeadm.yaml", config)
    run_kubeadm(new, name, "join", "--config=/root/kubeadm.yaml")


def run_kubeadm(new: State, name: str, verb: str, *words: str) -> None:
    line = ["kubeadm", verb, *words, f"--ignore-preflight-errors={kubeadm.IGNORED}"]
    log = new.node_dir(name) / f"kubeadm-{verb}.log"
    kubeadm_on(name, verb, log, lambda: node.inside(new, name, line, timeout=400 * patience(), check=False))


def etcd_pid(known: State) -> int:
    """etcd's process, as the host numbers it: the one in the control plane's groups that is called so."""
    for pid in cgroups.processes([Path(group) for group in known.groups[known.control_plane]]):
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == "etcd":
                return pid
        except OSError:
            continue
    raise Unhealthy("no etcd process runs on the control plane", f"Look with `lab logs --name {known.name} cp`")


def write(known: State, name: str, path: str, text: str) -> None:
    node.inside(known, name, ["sh", "-c", 'mkdir -p "${0%/*}" && cat > "$0"', path], input=text)


@contextmanager
def kubeconfig_file(text: str) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", prefix="lab-kubeconfig-", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        yield file.name
