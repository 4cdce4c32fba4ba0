"""What is decided about a cluster of virtual machines before any of them is made, and what is written down of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lab_utils.cluster import ClusterRecord, NodeRecord, cluster_dir, readable_records
from lab_utils.errors import BadInput, HostLacks
from lab_utils.paths import repo_dir
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec
from lab_utils.providers.common import host_kubectl
from lab_utils.vagrant import leftovers, settings
from lab_utils.vagrant.machines import Machines
from lab_utils.vagrant.settings import Settings

RESERVED_MEGABYTES = 512  # for the host itself, beside the machines


def read_settings() -> Settings:
    """The course's settings and, over them, the user's own (LAB_VAGRANT_SETTINGS) and LAB_PATIENCE."""
    course = repo_dir() / "vagrant" / "settings.yaml"
    texts = [(str(course), course.read_text())]
    if said := os.environ.get("LAB_VAGRANT_SETTINGS"):
        own = _expanded(said)
        if not own.is_file():
            raise BadInput(f"LAB_VAGRANT_SETTINGS names {said}, and there is no such file")
        try:
            texts.append((str(own), own.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            raise BadInput(f"{own} is not text in UTF-8", "Save it as UTF-8 in your editor") from None
    return settings.read(*texts)


def _expanded(said: str) -> Path:
    try:
        return Path(said).expanduser()
    except RuntimeError:  # ~somebody, and there is no such user
        return Path(said)


def plan(spec: ClusterSpec, chosen: Settings, provider: str, box: str, progress: Progress) -> ClusterRecord:
    """What is about to be made, before it is made."""
    from lab_utils.artifacts.machine import arch
    from lab_utils.artifacts.versions import pinned
    from lab_utils.embedded.patience import patience

    network = settings.checked_network(chosen.network) if chosen.network else settings.free_network(taken_networks(provider))
    addresses = settings.addresses(network, spec.workers)
    return ClusterRecord(
        name=spec.name,
        provider="vagrant",
        state="creating",
        kubeconfig=str(cluster_dir(spec.name) / "kubeconfig"),
        nodes=[NodeRecord(name, ip, "control-plane" if name == "cp" else "worker") for name, ip in addresses.items()],
        kubernetes=pinned().program("kubeadm").version,
        options={
            "proxy_mode": spec.proxy_mode,
            "bare": spec.bare,
            "vm_provider": provider,
            "box": box,
            "architecture": arch(),
            "network": str(network),
            "patience": max(chosen.patience, patience()),
            "pools_before": _before("pools_before", leftovers.pools) if provider == "libvirt" else [],
            "networks_before": _before("networks_before", leftovers.networks) if provider == "libvirt" else [],
        },
        kubectl=host_kubectl(progress=progress),
    )


def _before(what: str, look: Callable[[], list[str]]) -> list[str]:
    """What libvirt had before the first of our clusters: the last one removes what came since, whichever that is."""
    others, _ = readable_records()
    known = [other.options[what] for other in others if other.options.get("vm_provider") == "libvirt" and what in other.options]
    return list(known[0]) if known else look()


def taken_networks(provider: str) -> list[str]:
    """Networks of our other clusters, those that this host has on its own links, and those that libvirt would start on some."""
    others, _ = readable_records()  # one that is damaged must not keep another from being made
    taken = [str(other.options["network"]) for other in others if other.options.get("network")]
    # VirtualBox keeps its host-only networks between machines and uses them again; Linux has `ip` to tell about all others.
    if provider != "virtualbox" and shutil.which("ip"):
        import json

        from lab_utils.run import run

        links = json.loads(run(["ip", "-j", "-4", "address"], check=False).stdout or "[]")
        taken += [f"{info['local']}/{info['prefixlen']}" for link in links for info in link.get("addr_info", [])]
    if provider == "libvirt":
        taken += leftovers.taken()
    return taken


def check_box(made: Machines, box: str, architecture: str) -> None:
    """A box of another architecture boots nowhere, and takes ten minutes to say so."""
    if Path(box).is_file():
        return
    there = {one.architecture for one in made.boxes() if one.name == box and one.provider == made.provider}
    # Many boxes do not say which they are for; Vagrant then says n/a, or nothing where it is older than 2.4.
    if there and not there & {"", "n/a", "unknown", architecture}:
        raise BadInput(
            f"the box {box} is for {', '.join(sorted(there))}, and this host is {architecture}",
            f"Name one for {architecture} in the settings",
        )


def check_room(megabytes: int) -> None:
    free = available_megabytes()
    if free is not None and free < megabytes + RESERVED_MEGABYTES:
        raise HostLacks(
            f"the machines take {megabytes} MB of memory, and {free} MB are free",
            "Close something, ask for fewer (--workers 0), or give them less in the settings",
        )


def available_megabytes() -> int | None:
    """Linux says what is free; elsewhere only what there is in all is known."""
    memory = Path("/proc/meminfo")
    if memory.exists():
        fields = dict(line.split(":", 1) for line in memory.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) // 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (OSError, ValueError):
        return None


def write_settings(record: ClusterRecord, chosen: Settings, progress: Progress) -> None:
    """settings.yaml as decided, for the Vagrantfile; and what it sends to machines that are not packaged."""
    from lab_utils.artifacts.versions import pinned
    from lab_utils.providers.common import cluster_keys

    folder = record.folder / "vagrant"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    cluster: dict[str, Any] = {
        "name": record.name,
        "architecture": record.options["architecture"],
        "box": record.options["box"],
        "network": record.options["network"].rsplit(".", 1)[0],
        "kubernetes": record.kubernetes,
        "pause": pinned().image("pause").name,
        "authorized_key": cluster_keys(record.folder)["authorized_key"],
        "bare": record.options["bare"],
    }
    if not chosen.packaged:
        from lab_utils.vagrant.payload import payload

        cluster["payload"] = str(payload(folder, progress))
    data = {**asdict(chosen), "workers": len(record.nodes) - 1, "provider": record.options["vm_provider"], "cluster": cluster}
    draft = folder / "settings.yaml.new"  # where settings.yaml is, it is whole, and machines may have been made (Machines.begun)
    draft.write_text(yaml.safe_dump(data, sort_keys=False))
    draft.replace(folder / "settings.yaml")
