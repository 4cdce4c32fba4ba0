"""What a host looks like, as far as a cluster could change it: compared before and after."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lab_utils.embedded.state import all_states
from lab_utils.run import run

# Not ours: counters and random numbers that change by themselves.
RESTLESS = (
    "kernel/random/",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/perf_event_max_sample_rate",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-",
    "fs/aio-nr",
    "fs/quota/",
    "net/netfilter/nf_conntrack_count",
    "net/ipv4/neigh/",
    "net/ipv6/neigh/",
    "vm/stat",
)


def look() -> dict[str, set[str]]:
    """Everything of interest, as sets of lines. What carries the name of a cluster that lives now is that cluster's, and left out:
    other tests make theirs and remove them meanwhile."""
    living = all_states()
    seen = _look()
    living += all_states()  # also whatever began while we looked
    words = {word for each in living for word in (f"kio-{each.name}-", each.plan.link, each.subnet.rpartition(".")[0] + ".")}
    return {what: {line for line in lines if not any(word in line for word in words)} for what, lines in seen.items()}


def _look() -> dict[str, set[str]]:
    return {
        "mounts": {line for line in mounts() if ours_or_no_namespace(line)},
        "namespaces": {line for line in run(["ip", "netns", "list"]).stdout.splitlines() if line.startswith("kio-")},
        "links": {line.split()[0].split("@")[0] for line in run(["ip", "-br", "link"]).stdout.splitlines()},
        "routes": set(run(["ip", "route", "show", "table", "all"]).stdout.splitlines()),
        "rules": {f"{table}: {line}" for table in tables() for line in rules(table)},
        # The groups of nodes, not what lives in them: Pods of another cluster come and go meanwhile.
        "cgroups": {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if Path(folder).name.startswith("kio-")},
        # A node's processes are all in its groups; only the launchers could outlive those.
        "launchers": set(launchers()),
        "sysctls": sysctls(),
    }


def launchers() -> Iterator[str]:
    """Each with the network namespace of its node, which says whose it is."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "lab_utils/embedded/boot.sh" in command:
                words = (process / "environ").read_bytes().decode(errors="replace").split("\0")
                yield " ".join([command, *(word for word in words if word.startswith("KIO_NETNS="))])
        except OSError:  # it ended while we looked
            continue


def tables() -> list[str]:
    """Those of nftables, as `nft` wants them: "table ip kio0"."""
    return run(["nft", "list", "tables"]).stdout.splitlines()


def rules(table: str) -> list[str]:
    return run(["nft", "list", *table.split()], check=False).stdout.splitlines()  # it may have gone meanwhile


def mounts() -> list[str]:
    return [" ".join(line.split()[1:3]) for line in Path("/proc/self/mounts").read_text().splitlines()]


def ours_or_no_namespace(mount: str) -> bool:
    """Namespaces that other tests made for themselves are theirs to remove."""
    return not mount.startswith("/run/netns/") or mount.startswith("/run/netns/kio-")


def sysctls() -> set[str]:
    found = set()
    root = Path("/proc/sys")
    for folder, _, files in os.walk(root):
        for name in files:
            path = Path(folder) / name
            relative = str(path.relative_to(root))
            if relative.startswith(RESTLESS):
                continue
            try:
                found.add(f"{relative} = {path.read_text().strip()}")
            except (OSError, UnicodeDecodeError):
                continue
    return found


def difference(before: dict[str, set[str]], after: dict[str, set[str]]) -> list[str]:
    """What came and what went, one line each; empty when the host is as it was found."""
    lines = []
    for what in before:
        lines += [f"{what}: left behind: {line}" for line in sorted(after[what] - before[what])]
        lines += [f"{what}: gone: {line}" for line in sorted(before[what] - after[what])]
    return lines
