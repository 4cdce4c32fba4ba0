"""What `reset` goes back to: a copy of what kubeadm made, taken once, right after the first `up`.

Kept are etcd's data and each node's own files. Not kept are containers and Pods: they are made anew from what
etcd says, over a fresh image store. etcd is frozen for the blink that the copy takes, which leaves its files as
a power cut would, and that it recovers from (its write-ahead log and bbolt's two meta pages are made for it).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab_utils.embedded.node import give_away, identity, inside, link_tree, place, remove_tree
from lab_utils.embedded.state import State
from lab_utils.run import Result, run

# Below a node's upper layer: what belongs to running Pods and would only be in the way of new ones.
NOT_KEPT = (
    "var/lib/kubelet/pods",
    "var/lib/kubelet/cpu_manager_state",
    "var/lib/kubelet/memory_manager_state",
    "var/lib/cni",
    "var/log",
    "tmp",
    "run",
)

# What writes down the rules of kube-proxy and flannel, and what loads them.
RESTORE = {"iptables-save": "iptables-restore", "nft list table ip kube-proxy": "nft -f -"}
SUBNET_ENV = "/run/flannel/subnet.env"


def take(state: State, etcd_pid: int) -> None:
    """Make the copy; a half-made one is never taken for whole, for it gets its name last."""
    target = state.folder / "pristine"
    draft = state.folder / "pristine.new"
    remove_tree(target, draft)
    draft.mkdir()
    with frozen(etcd_pid):
        for node in state.nodes:
            copy_tree(state.node_dir(node) / "upper", draft / node)
    for node in state.nodes:
        remove_tree(*(draft / node / path for path in NOT_KEPT))
        (draft / f"{node}.subnet.env").write_text(inside(state, node, ["cat", SUBNET_ENV], check=False).stdout)
        for save in RESTORE:
            (draft / f"{node}.{save.split()[0]}").write_text(loadable(inside(state, node, save.split(), check=False).stdout))
    draft.rename(target)


def hint_subnet(state: State, node: str) -> None:
    """Tell the CNI plugin of a freshly booted node which addresses are its own, as flannel will in a few seconds.

    The file lies on a tmpfs and is lost at every boot. Without it the first Pods fail, and kubelet tries each again only
    after ten seconds (backOffPeriod in pkg/kubelet/kubelet.go); with it they start at once.
    """
    kept = state.folder / "pristine" / f"{node}.subnet.env"
    if kept.exists() and (text := kept.read_text()):
        inside(state, node, ["sh", "-c", f"mkdir -p $(dirname {SUBNET_ENV}) && cat > {SUBNET_ENV}"], input=text)


def hint_rules(state: State, node: str) -> None:
    """Give the fresh network of a node that does not run yet the rules that it had after `up`; kube-proxy makes them its own later.

    Pods start before that, thanks to the other hint. Without a rule for the Service of the API their first connection to it is lost,
    and CoreDNS tries another only after half a minute (the dialer's timeout in k8s.io/client-go/transport/cache.go).
    """
    for save, restore in RESTORE.items():
        kept = state.folder / "pristine" / f"{node}.{save.split()[0]}"
        if kept.exists() and (text := kept.read_text()):
            load_rules(restore, text, netns=state.plan.netns(node), root=state.lower)


def loadable(rules: str) -> str:
    """Without those that count in an object of the kernel's, which kube-proxy makes beforehand (`-m nfacct`). Pure."""
    return "".join(line for line in rules.splitlines(keepends=True) if "--nfacct-name" not in line)


def load_rules(restore: str, text: str, *, netns: str, root: str) -> Result:
    """By the nodes' own programs: the host's iptables may be another one. They are a hint; without them all comes about, too, but later."""
    return run(["nsenter", f"--net=/run/netns/{netns}", "chroot", root, *restore.split()], input=text, check=False)


def there(state: State) -> bool:
    return (state.folder / "pristine").is_dir()


def put_back(state: State, node: str) -> None:
    """Give a stopped node the files that it had right after `up`."""
    folder = state.node_dir(node)
    remove_tree(folder / "upper", folder / "work")
    (folder / "work").mkdir()
    copy_tree(state.folder / "pristine" / node, folder / "upper")
    for path, (text, mode) in identity(state, node).items():
        place(folder / "upper", Path(state.lower), path, text, mode)
    link_tree(Path(state.store), folder / "containerd")
    give_away(state, node)


def copy_tree(source: Path, target: Path) -> None:
    # Extended attributes carry the overlay's own marks (trusted.overlay.opaque), holes the unwritten half of etcd's log.
    run(["cp", "-a", "--sparse=always", "--reflink=auto", source, target])


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
