"""Attaches volumes to a node, in the role of the official external-attacher.

When a Pod with a volume of ours gets a node, the attach-detach controller (a loop in kube-controller-manager) makes a
VolumeAttachment: this volume, to that node. It does no more than that, and waits for `status.attached`. The attacher is who reads
the object, calls the driver, and writes the answer down. The official one is a Deployment for all nodes; ours runs beside each
driver, for its node.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch

from .protocol import Refused, call

DRIVER, NODE = os.environ["DRIVER"], os.environ["NODE"]
SOCKET = Path(os.environ["SOCKETS"]) / "attacher.sock"
PAUSE = 4  # seconds, after the driver has said no
FINALIZER = f"attacher.{DRIVER}/attached"


def handle(attachment: Any, storage: Any, core: Any) -> None:
    """Bring one attachment to where it should be. Called again and again, so it looks first at what is done already."""
    if not needs_work(attachment):
        return
    attachment = storage.read_volume_attachment(attachment.metadata.name)  # the event may tell of what is done by now
    if not needs_work(attachment):
        return
    name, leaving = attachment.metadata.name, attachment.metadata.deletion_timestamp is not None
    volume = core.read_persistent_volume(attachment.spec.source.persistent_volume_name).spec.csi
    request = {"volume_id": volume.volume_handle, "node_id": node_id(storage)}
    try:
        if leaving:
            call(SOCKET, "Controller/ControllerUnpublishVolume", request)
            storage.patch_volume_attachment(name, {"metadata": {"finalizers": None}})
        else:
            # Before the driver is called: the object must not vanish while its volume is attached.
            storage.patch_volume_attachment(name, {"metadata": {"finalizers": [FINALIZER]}})
            how = {"access_mode": {"mode": "SINGLE_NODE_WRITER"}, "mount": {"fs_type": volume.fs_type or ""}}
            more = {"volume_capability": how, "volume_context": volume.volume_attributes or {}}
            answer = call(SOCKET, "Controller/ControllerPublishVolume", {**request, **more})
            status = {"attached": True, "attachError": None, "attachmentMetadata": answer.get("publish_context")}
            storage.patch_volume_attachment_status(name, {"status": status})
        print(f"{volume.volume_handle} is {'detached' if leaving else 'attached'}", flush=True)
    except Refused as refused:
        error = {"time": datetime.now(UTC).isoformat(), "message": str(refused)}
        storage.patch_volume_attachment_status(name, {"status": {"detachError" if leaving else "attachError": error}})
        print(f"{volume.volume_handle}: {refused}", flush=True)


def needs_work(attachment: Any) -> bool:
    if attachment.spec.attacher != DRIVER or attachment.spec.node_name != NODE or failed_just_now(attachment.status):
        return False
    if attachment.metadata.deletion_timestamp:
        return FINALIZER in (attachment.metadata.finalizers or [])
    return not (attachment.status and attachment.status.attached)


def failed_just_now(status: Any) -> bool:
    """What we write down changes the object, and so comes back to us: without a pause we would never stop."""
    errors = [error for error in (status and status.attach_error, status and status.detach_error) if error]
    return any((datetime.now(UTC) - error.time).total_seconds() < PAUSE for error in errors)


def node_id(storage: Any) -> str:
    """How the driver calls this node, as the kubelet was told."""
    known = storage.read_csi_node(NODE).spec.drivers or []
    return next((each.node_id for each in known if each.name == DRIVER), NODE)


def main() -> None:
    config.load_incluster_config()
    storage, core = client.StorageV1Api(), client.CoreV1Api()
    while True:
        # A watch begins with all that is there, so what failed is tried again when the next one begins.
        for event in watch.Watch().stream(storage.list_volume_attachment, timeout_seconds=5):
            try:
                handle(event["object"], storage, core)
            except client.ApiException as error:  # gone or changed in between, most often
                print(f"the API server says {error.status} {error.reason}", flush=True)


if __name__ == "__main__":
    main()
