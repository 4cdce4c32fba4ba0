"""A CSI driver: it makes disks on the node where it runs, mounts them there, grows and copies them.

It runs on every node (a DaemonSet), and each knows only its own node's disks. All three services are in this one file, because
for node-local disks the same process can be all three:

    Identity     who are you, and what can you do?
    Controller   make, delete, attach, copy: what could be done from anywhere
    Node         mount, unmount, measure, grow: what only the node itself can do

Every method may be called twice, by a caller that did not get the first answer. So each begins by looking whether its work is
done already. The rules are those of https://github.com/container-storage-interface/spec/blob/master/spec.md.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import disks
from .disks import MIB, SMALLEST, Disk, Shelf
from .protocol import Message, Refused, as_dict, needs, serve, word

Answer = dict[str, Any]


class Identity:
    def __init__(self, name: str) -> None:
        self.name = name

    def GetPluginInfo(self, request: Message) -> Answer:
        return {"name": self.name, "vendor_version": "1"}

    def GetPluginCapabilities(self, request: Message) -> Answer:
        services = ("CONTROLLER_SERVICE", "VOLUME_ACCESSIBILITY_CONSTRAINTS")  # the second: not every node can have every volume
        return {"capabilities": [{"service": {"type": each}} for each in services] + [{"volume_expansion": {"type": "ONLINE"}}]}

    def Probe(self, request: Message) -> Answer:
        return {"ready": True}


class Controller:
    CAN: tuple[str, ...] = (
        *("CREATE_DELETE_VOLUME", "PUBLISH_UNPUBLISH_VOLUME", "LIST_VOLUMES", "GET_CAPACITY"),
        *("CREATE_DELETE_SNAPSHOT", "LIST_SNAPSHOTS", "CLONE_VOLUME"),
    )

    def __init__(self, node: str, place: dict[str, str], volumes: Shelf, snapshots: Shelf) -> None:
        self.node, self.place, self.volumes, self.snapshots = node, place, volumes, snapshots

    def ControllerGetCapabilities(self, request: Message) -> Answer:
        return {"capabilities": [{"rpc": {"type": each}} for each in self.CAN]}

    @needs("name", "volume_capabilities")
    def CreateVolume(self, request: Message) -> Answer:
        check(*request.volume_capabilities)
        self.check_place(request)
        name, about = identify(request.name), {"source": source_of(request)}
        disk = self.volumes.find(name)
        if disk is None:
            origin = self.origin(request)
            size = choose_size(request.capacity_range, origin.size if origin else SMALLEST)
            self.volumes.check_room(size)
            disk = self.volumes.add(name, about, lambda image: disks.copy(origin, image, size) if origin else disks.blank(image, size))
        elif not fits(disk.size, request.capacity_range) or disk.about != about:
            raise Refused("ALREADY_EXISTS", f"{name} exists, and is another volume than the one asked for")
        return {"volume": self.describe(disk, request)}

    @needs("volume_id")
    def DeleteVolume(self, request: Message) -> Answer:
        if disk := self.volumes.find(request.volume_id):
            if where := disks.places(disk):
                raise Refused("FAILED_PRECONDITION", f"{disk.name} is mounted on {where[0]}")
            self.volumes.remove(disk)
        return {}

    @needs("volume_id", "node_id", "volume_capability")
    def ControllerPublishVolume(self, request: Message) -> Answer:
        """Attach. These disks are in the node already, so all there is to do is to make sure of that."""
        check(request.volume_capability)
        self.volume(request.volume_id)
        if request.node_id != self.node:
            raise Refused("NOT_FOUND", f"this is {self.node}, not {request.node_id}")
        return {}

    @needs("volume_id")
    def ControllerUnpublishVolume(self, request: Message) -> Answer:
        disk = self.volumes.find(request.volume_id)
        if disk and (where := disks.places(disk)):
            raise Refused("FAILED_PRECONDITION", f"{disk.name} is mounted on {where[0]}")
        return {}

    @needs("volume_id", "volume_capabilities")
    def ValidateVolumeCapabilities(self, request: Message) -> Answer:
        self.volume(request.volume_id)
        try:
            check(*request.volume_capabilities)
        except Refused as refused:
            return {"message": refused.why}
        return {"confirmed": {"volume_capabilities": [as_dict(each) for each in request.volume_capabilities]}}

    def ListVolumes(self, request: Message) -> Answer:
        some, token = page(self.volumes.all(), request)
        return {"entries": [{"volume": self.describe(disk)} for disk in some], "next_token": token}

    def GetCapacity(self, request: Message) -> Answer:
        return {"available_capacity": shutil.disk_usage(self.volumes.folder).free, "minimum_volume_size": SMALLEST}

    @needs("name", "source_volume_id")
    def CreateSnapshot(self, request: Message) -> Answer:
        name = identify(request.name)
        disk = self.snapshots.find(name)
        if disk is None:
            source = self.volume(request.source_volume_id)
            about = {"source": source.name, "made": datetime.now(UTC).isoformat()}
            self.snapshots.check_room(source.size)
            disk = self.snapshots.add(name, about, lambda image: disks.copy(source, image, source.size))
        elif disk.about["source"] != request.source_volume_id:
            raise Refused("ALREADY_EXISTS", f"{name} is a snapshot of {disk.about['source']}")
        return {"snapshot": describe_snapshot(disk)}

    @needs("snapshot_id")
    def DeleteSnapshot(self, request: Message) -> Answer:
        if disk := self.snapshots.find(request.snapshot_id):
            self.snapshots.remove(disk)
        return {}

    def ListSnapshots(self, request: Message) -> Answer:
        wanted = [
            disk
            for disk in self.snapshots.all()
            if request.snapshot_id in ("", disk.name) and request.source_volume_id in ("", disk.about["source"])
        ]
        some, token = page(wanted, request)
        return {"entries": [{"snapshot": describe_snapshot(disk)} for disk in some], "next_token": token}

    # what they have in common

    def volume(self, name: str) -> Disk:
        if disk := self.volumes.find(name):
            return disk
        raise Refused("NOT_FOUND", f"there is no disk {name} in {self.node}")

    def origin(self, request: Message) -> Disk | None:
        """What a new volume shall be a copy of."""
        kind = request.volume_content_source.WhichOneof("type")
        if kind == "snapshot":
            name = request.volume_content_source.snapshot.snapshot_id
            if disk := self.snapshots.find(name):
                return disk
            raise Refused("NOT_FOUND", f"there is no snapshot {name} in {self.node}")
        return self.volume(request.volume_content_source.volume.volume_id) if kind else None

    def check_place(self, request: Message) -> None:
        wanted = [dict(each.segments) for each in request.accessibility_requirements.requisite]
        if wanted and self.place not in wanted:
            raise Refused("RESOURCE_EXHAUSTED", f"a disk made in {self.node} cannot be where it is wanted")

    def describe(self, disk: Disk, request: Message | None = None) -> Answer:
        told: Answer = {"volume_id": disk.name, "capacity_bytes": disk.size, "accessible_topology": [{"segments": self.place}]}
        if request is not None and request.HasField("volume_content_source"):
            told["content_source"] = as_dict(request.volume_content_source)
        return told


class Node:
    CAN = ("STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "EXPAND_VOLUME")

    def __init__(self, node: str, place: dict[str, str], volumes: Shelf) -> None:
        self.node, self.place, self.volumes = node, place, volumes

    def NodeGetInfo(self, request: Message) -> Answer:
        return {"node_id": self.node, "accessible_topology": {"segments": self.place}}

    def NodeGetCapabilities(self, request: Message) -> Answer:
        return {"capabilities": [{"rpc": {"type": each}} for each in self.CAN]}

    @needs("volume_id", "staging_target_path", "volume_capability")
    def NodeStageVolume(self, request: Message) -> Answer:
        """Once for each volume: its file system is mounted in a place that all Pods on this node share."""
        check(request.volume_capability)
        disk, path = self.volume(request.volume_id), Path(request.staging_target_path)
        if not disks.mounted(disk, path):
            path.mkdir(parents=True, exist_ok=True)
            disks.mount(disk, path)
        return {}

    @needs("volume_id", "staging_target_path")
    def NodeUnstageVolume(self, request: Message) -> Answer:
        disks.unmount(Path(request.staging_target_path))
        return {}

    @needs("volume_id", "target_path", "staging_target_path", "volume_capability")
    def NodePublishVolume(self, request: Message) -> Answer:
        """Once for each Pod: the staged file system appears in the Pod's own folder."""
        check(request.volume_capability)
        disk, staged, path = self.volume(request.volume_id), Path(request.staging_target_path), Path(request.target_path)
        if not disks.mounted(disk, staged):
            raise Refused("FAILED_PRECONDITION", f"{disk.name} is not staged on {staged}")
        if not disks.mounted(disk, path):
            path.mkdir(parents=True, exist_ok=True)
            disks.bind(staged, path, request.readonly)
        return {}

    @needs("volume_id", "target_path")
    def NodeUnpublishVolume(self, request: Message) -> Answer:
        path = Path(request.target_path)
        disks.unmount(path)
        if path.is_dir():
            path.rmdir()  # refuses when there is something in it: that would be somebody's data
        return {}

    @needs("volume_id", "volume_path")
    def NodeGetVolumeStats(self, request: Message) -> Answer:
        path = self.mounted(request)
        found = os.statvfs(path)
        room, files = found.f_blocks * found.f_frsize, found.f_files
        free = found.f_bavail * found.f_frsize
        return {
            "usage": [
                {"unit": "BYTES", "total": room, "available": free, "used": room - found.f_bfree * found.f_frsize},
                {"unit": "INODES", "total": files, "available": found.f_favail, "used": files - found.f_ffree},
            ]
        }

    @needs("volume_id", "volume_path")
    def NodeExpandVolume(self, request: Message) -> Answer:
        path, disk = self.mounted(request), self.volume(request.volume_id)
        size = max(disk.size, choose_size(request.capacity_range, disk.size))
        self.volumes.check_room(size - disk.size)
        disks.grow(disk, path, size)
        return {"capacity_bytes": size}

    def volume(self, name: str) -> Disk:
        if disk := self.volumes.find(name):
            return disk
        raise Refused("NOT_FOUND", f"there is no disk {name} in {self.node}")

    def mounted(self, request: Message) -> Path:
        disk, path = self.volume(request.volume_id), Path(request.volume_path)
        if not disks.mounted(disk, path):
            raise Refused("NOT_FOUND", f"{disk.name} is not mounted on {path}")
        return path


# the rules


def check(*capabilities: Message) -> None:
    """Is this a volume that we can be? A file system, of our kind, and on one node at a time."""
    for each in capabilities:
        if each.WhichOneof("access_type") != "mount":
            raise Refused("INVALID_ARGUMENT", "only file systems, no block devices")
        if each.mount.fs_type not in ("", "xfs"):
            raise Refused("INVALID_ARGUMENT", f"only xfs, no {each.mount.fs_type}")
        if (mode := word(each.access_mode, "mode")).startswith("MULTI_NODE"):
            raise Refused("INVALID_ARGUMENT", f"a disk is in one node, so {mode} cannot be")


def identify(name: str) -> str:
    """A volume's id is its name, if that can be the name of a file."""
    return name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name) else hashlib.sha256(name.encode()).hexdigest()


def choose_size(asked: Message, least: int) -> int:
    """The smallest size that is allowed, in whole MiB."""
    size = -(-max(asked.required_bytes, least) // MIB) * MIB
    if asked.limit_bytes and size > asked.limit_bytes:
        raise Refused("OUT_OF_RANGE", f"at least {size} bytes are needed, and {asked.limit_bytes} are the limit")
    return int(size)


def fits(size: int, asked: Message) -> bool:
    return bool(asked.required_bytes <= size and (not asked.limit_bytes or size <= asked.limit_bytes))


def source_of(request: Message) -> str:
    source = request.volume_content_source
    kind = source.WhichOneof("type")
    return f"{kind} {getattr(getattr(source, kind), f'{kind}_id')}" if kind else ""


def describe_snapshot(disk: Disk) -> Answer:
    told = {"snapshot_id": disk.name, "source_volume_id": disk.about["source"], "size_bytes": disk.size}
    return {**told, "creation_time": disk.about["made"].replace("+00:00", "Z"), "ready_to_use": True}


def page(found: list[Disk], request: Message) -> tuple[list[Disk], str]:
    """A part of a list, and the token for the next: the name of the disk that it begins with."""
    if token := request.starting_token:
        found = [disk for disk in found if disk.name >= token]
        if not found or found[0].name != token:
            raise Refused("ABORTED", f"{token} is not a token of ours, or no longer")
    some = found[: request.max_entries or None]
    return some, found[len(some)].name if len(some) < len(found) else ""


def main() -> None:
    name, node = os.environ["DRIVER"], os.environ["NODE"]
    folder, sockets = Path(os.environ["DISKS"]), Path(os.environ["SOCKETS"])
    place = {f"{name}/node": node}
    volumes, snapshots = Shelf(folder / "volumes"), Shelf(folder / "snapshots")
    for disk in volumes.all():
        disks.thaw(disk)
    services = (Identity(name), Controller(node, place, volumes, snapshots), Node(node, place, volumes))
    # One socket would do for all callers. With a door for each, the log can say who came.
    servers = [serve(sockets / f"{door}.sock", *services, door=door) for door in os.environ.get("DOORS", "csi").split()]
    print(f"{name} on {node} answers at {len(servers)} sockets", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
