"""What the host's kernel can do, found out by trying, and what nodes stand on, as the kernel tells it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lab_utils import unshare
from lab_utils.embedded import network
from lab_utils.run import run


def kernel_lacks() -> list[str]:
    """What this kernel cannot do that a node needs; found out by trying, in a namespace that is gone afterwards."""
    trials = {
        "network namespaces and veth pairs": "ip link add kiotest type veth peer name kiotest2",
        "VXLAN devices": "ip link add kiotest type vxlan id 1 dstport 4789 dev lo",
        "bridges": "ip link add kiotest type bridge",
        "nftables": "nft add table ip kiotest",
    }
    found = [what for what, words in trials.items() if not run([unshare.program(), "--net", *words.split()], check=False).ok]
    filesystems = Path("/proc/filesystems").read_text().split()
    if "overlay" not in filesystems and not run(["modprobe", "overlay"], check=False).ok:
        found.append("overlay file systems")
    if network.bridge_netfilter() == "not loaded" and not run(["modprobe", "--dry-run", "br_netfilter"], check=False).ok:
        found.append("netfilter for bridges (br_netfilter)")
    return found


MODULES = {
    "veth": "veth pairs",
    "vxlan": "VXLAN devices",
    "bridge": "bridges",
    "nf_tables": "nftables",
    "overlay": "overlay file systems",
    "br_netfilter": "netfilter for bridges (br_netfilter)",
}


def seems_to_lack(modules: Path | None = None, loaded: Path = Path("/sys/module")) -> list[str]:
    """The same as far as it can be told without root: what is neither in this kernel, nor loaded, nor there to be loaded.

    Where the kernel has no folder of modules (in a container) that cannot be told, and nothing is said to be missing.
    """
    folder = modules or Path("/lib/modules", os.uname().release)
    try:
        listed = "".join((folder / name).read_text() for name in ("modules.builtin", "modules.dep"))
    except OSError:
        return []
    return [what for name, what in MODULES.items() if f"/{name}.ko" not in listed and not (loaded / name).exists()]


def mounted_over(folder: Path) -> list[Path]:
    """The folders below `folder` that are the lower layer of some process's root: of a node that runs, whoever made it."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            text = file.read_text()
        except OSError:  # it has ended
            continue
        found |= set(re.findall(rf"lowerdir=({re.escape(str(folder))}/[^,: ]+)", text))
    return sorted(map(Path, found))


def closed_to_others(folder: Path) -> Path | None:
    """The first folder on the way there that only its owner may pass: a guarded node's root is somebody else."""
    return next((each for each in (*reversed(folder.parents), folder) if each.exists() and not each.stat().st_mode & 0o001), None)
