"""What Vagrant leaves: machines that it was killed while making, and what it keeps by design.

Everything of a cluster has its name, `kio-NAME-…`, so it is found even where no note of it was written.
libvirt keeps a copy of the box's disk in its storage pool, and a pool that Vagrant made; both go when nobody uses them any more.
"""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import PurePath

from lab_utils.run import Result, run

URI = "qemu:///system"
MANAGEMENT = "vagrant-libvirt"  # the network by which Vagrant reaches all of its machines
POOL = "default"  # where it keeps their disks
SECONDS = 60  # a libvirtd that hangs must not keep `down` from going on


def answers() -> bool:
    """Whether libvirt can be asked. An empty list from one that cannot be reached would read as "nothing is left"."""
    return bool(shutil.which("virsh")) and _virsh("list", "--all", "--name").ok


def machine_prefix(cluster: str) -> str:
    return f"kio-{cluster}-"


def sweep(cluster: str, provider: str, networks_before: Sequence[str] = ()) -> list[str]:
    """Remove machines and networks of this cluster that Vagrant does not know of. Returns what was found."""
    if provider == "libvirt" and shutil.which("virsh"):
        return _sweep_libvirt(cluster, networks_before)
    if provider == "virtualbox" and shutil.which("VBoxManage"):
        return _sweep_virtualbox(cluster)
    return []


def _sweep_libvirt(cluster: str, networks_before: Sequence[str]) -> list[str]:
    found = []
    for domain in _names("list", "--all", "--name"):
        if is_machine(cluster, domain):
            found.append(domain)
            _virsh("destroy", domain)
            _virsh("undefine", domain, "--snapshots-metadata", "--managed-save", "--nvram")
    for pool in _names("pool-list", "--name"):
        for volume in _volumes(pool):
            if volume.endswith(".img") and is_machine(cluster, volume.removesuffix(".img")):
                found.append(volume)
                _virsh("vol-delete", volume, "--pool", pool)
    for network in _names("net-list", "--all", "--name"):
        ours = network == f"kio-{cluster}" or (network == MANAGEMENT and network not in networks_before)
        if ours and not has_machines(_virsh("net-dumpxml", network).stdout):
            found.append(network)
            _virsh("net-destroy", network)
            _virsh("net-undefine", network)
    return found


def has_machines(network_xml: str) -> bool:
    """libvirt counts the machines on a network, and leaves the number out when there are none."""
    return bool(network_xml) and "connections" in ElementTree.fromstring(network_xml).attrib


def is_machine(cluster: str, name: str) -> bool:
    """`kio-a-b-cp` is a machine of the cluster a-b, not of a."""
    return re.fullmatch(re.escape(machine_prefix(cluster)) + r"(cp|w\d)", name) is not None


def _sweep_virtualbox(cluster: str) -> list[str]:
    said = run(["VBoxManage", "list", "vms"], check=False, timeout=SECONDS).stdout
    found = [name for name in virtualbox_machines(said) if is_machine(cluster, name)]
    for name in found:
        run(["VBoxManage", "controlvm", name, "poweroff"], check=False, timeout=SECONDS)
        run(["VBoxManage", "unregistervm", name, "--delete"], check=False, timeout=SECONDS)
    return found


def virtualbox_machines(said: str) -> list[str]:
    """Names of `VBoxManage list vms`: "name" {uuid}."""
    return re.findall(r'^"([^"]*)" \{', said, re.MULTILINE)


def networks() -> list[str]:
    return _names("net-list", "--all", "--name") if shutil.which("virsh") else []


def taken() -> list[str]:
    """The addresses of libvirt's networks, also of those that are not started: Vagrant would put machines on one that has the same."""
    return [address for name in networks() for address in addresses_of(_virsh("net-dumpxml", name).stdout)]


def addresses_of(network_xml: str) -> list[str]:
    """IPv4 address and mask of a network, as libvirt writes them: with a netmask, or with a prefix. Pure."""
    found = ElementTree.fromstring(network_xml).findall("./ip") if network_xml else []
    plain = [each.attrib for each in found if each.get("family", "ipv4") == "ipv4" and each.get("address")]
    return [f"{each['address']}/{each.get('netmask') or each.get('prefix') or 32}" for each in plain]


def pools() -> list[str]:
    """libvirt's storage pools; what is not in this list before `up` was made by it."""
    return _names("pool-list", "--all", "--name") if shutil.which("virsh") else []


def forget_box(box: str, pools_before: list[str]) -> list[str]:
    """libvirt: delete the box's disk from the pools where no machine lies over it, and pools that we made and that are empty."""
    if not shutil.which("virsh"):
        return []
    found = []
    in_use = _backing_files()
    prefix = box_volume_prefix(box)
    for pool in _names("pool-list", "--name"):
        for volume in _volumes(pool):
            if volume.startswith(prefix) and volume not in in_use:
                found.append(volume)
                _virsh("vol-delete", volume, "--pool", pool)
        if pool == POOL and pool not in pools_before and not _volumes(pool):
            found.append(f"pool {pool}")
            _virsh("pool-destroy", pool)
            _virsh("pool-undefine", pool)
    return found


def box_volume_prefix(box: str) -> str:
    """As vagrant-libvirt names it (action/handle_box_image.rb, get_volume_name), without the version."""
    return box.replace("/", "-VAGRANTSLASH-") + "_vagrant_box_image_"


def _backing_files() -> set[str]:
    """Names of volumes that others lie over: those are what a machine's disk is a difference to."""
    used = set()
    for pool in _names("pool-list", "--name"):
        for volume in _volumes(pool):
            said = _virsh("vol-dumpxml", volume, "--pool", pool)
            if said.ok:
                used |= backing_of(said.stdout)
    return used


def backing_of(volume_xml: str) -> set[str]:
    root = ElementTree.fromstring(volume_xml)
    return {PurePath(path.text).name for path in root.findall("./backingStore/path") if path.text}


def _volumes(pool: str) -> list[str]:
    """Of `virsh vol-list`, a table with two lines of heading; names hold no blanks here."""
    return [row.split()[0] for row in _virsh("vol-list", pool).stdout.splitlines()[2:] if row.strip()]


def _names(*words: str) -> list[str]:
    return _virsh(*words).stdout.split()


def _virsh(*words: str) -> Result:
    return run(["virsh", "--connect", URI, *words], check=False, timeout=SECONDS)
