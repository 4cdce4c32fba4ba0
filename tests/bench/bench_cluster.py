"""The embedded provider: what `up`, `reset` and `ssh` cost beside the barest thing that does the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lab_utils.cluster import Cluster, cluster_dir
from lab_utils.embedded import cgroups, kubeadm, state
from lab_utils.progress import Silent
from lab_utils.providers import ClusterSpec, provider
from tests.bench.report import Row, compare, seconds

NAME = "bench"


def rows() -> list[Row]:
    chosen = provider("embedded")
    found = []
    try:
        bare = bare_init()
        made: list[Cluster] = []
        up = seconds(lambda: made.append(chosen.up(ClusterSpec(NAME, workers=2), Silent())))
        cluster = made[0]
        found.append(Row("lab up, 3 nodes, traffic / kubeadm init alone in 1 node", f"{up:.1f} s", f"{bare:.1f} s", f"{up / bare:.2f}"))
        found += [memory(cluster, each.name) for each in cluster.nodes]
        resets = sorted(seconds(lambda: chosen.reset(NAME, Silent())) for _ in range(3))
        found.append(Row("lab reset / lab up", f"{resets[1]:.1f} s", f"{up:.1f} s", f"{resets[1] / up:.2f}"))
        found.append(
            compare(
                "lab ssh cp -- true / ssh cp true", lambda: lab("ssh", "--name", NAME, "cp", "--", "true"), lambda: ssh(cluster), rounds=9
            )
        )
        cluster.close()
        cluster.node("cp").run("true")
        found.append(
            compare(
                "Node.run('true'), connection open / ssh cp true", lambda: cluster.node("cp").run("true"), lambda: ssh(cluster), rounds=9
            )
        )
        cluster.close()
    finally:
        chosen.down(NAME, Silent())
    found.append(compare("import lab_utils / python -c pass", lambda: python("import lab_utils"), lambda: python("pass"), rounds=15))
    return found


def bare_init() -> float:
    """`kubeadm init` and nothing else, in one node of the same kind that is booted and waits."""
    from lab_utils.embedded.bootstrap import run_kubeadm, write

    chosen = provider("embedded")
    chosen.up(ClusterSpec("bench-bare", workers=0, bare=True), Silent())
    known = state.load("bench-bare")
    assert known
    config = kubeadm.init_config(
        ip=known.ip("cp"),
        node="cp",
        token=known.token,
        kubernetes=known.options["kubernetes"],
        cgroup=cgroups.version(),
        proxy_mode="iptables",
        alone=True,
    )
    write(known, "cp", "/root/kubeadm.yaml", config)
    try:
        return seconds(lambda: run_kubeadm(known, "cp", "init", "--config=/root/kubeadm.yaml", "--skip-token-print"))
    finally:
        chosen.down("bench-bare", Silent())


def memory(cluster: Cluster, name: str) -> Row:
    """What the node's processes hold for themselves (Pss), against the share that the default cluster is said to need."""
    known = state.load(NAME)
    assert known
    total = 0
    for pid in cgroups.processes([Path(group) for group in known.groups[name]]):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return Row(
        f"memory of {name} (Pss) / 2 GB for three nodes", f"{total // 1024} MB", f"{2048 // 3} MB", f"{total / 1024 / (2048 / 3):.2f}"
    )


def lab(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "lab_utils", *words], check=True)


def ssh(cluster: Cluster) -> None:
    key, hosts = cluster_dir(NAME) / "id_ed25519", cluster_dir(NAME) / "known_hosts"
    options = ["-o", f"IdentityFile={key}", "-o", f"UserKnownHostsFile={hosts}", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"]
    subprocess.run(["ssh", "-F", "none", *options, f"root@{cluster.node('cp').ip}", "true"], check=True)


def python(line: str) -> None:
    subprocess.run([sys.executable, "-c", line], check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""})
