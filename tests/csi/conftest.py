"""The driver without a cluster: in the files of its image, in a mount namespace that is gone afterwards with all that was mounted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab_utils import artifacts
from lab_utils.csi.deploy import CODE
from lab_utils.progress import Progress
from lab_utils.run import run

SOCKET = "/run/s/csi.sock"
SETTING = {
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": "/code",
    "PYTHONDONTWRITEBYTECODE": "1",
    "DRIVER": "disks.test.example",
    "NODE": "w1",
    "DISKS": "/disks",
    "SOCKETS": "/run/s",
    "REGISTRY": "/run/registry",
    "ENDPOINT": SOCKET,
    "DOORS": "csi registrar",
}
FURNISH = """
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"; mount -t sysfs sysfs "$1/sys"; mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"; mkdir -p "$1/run/s" "$1/run/registry" "$1/code/csi" "$1/disks"
mount --bind "$2" "$1/code/csi"
echo furnished; exec sleep infinity
"""


# Calls one after the other, in a process that lives on: to start Python and gRPC takes longer than any call.
CALLER = f"""
import json, sys
from pathlib import Path
from csi.protocol import Refused, call
for line in sys.stdin:
    try:
        print(json.dumps({{"answer": call(Path("{SOCKET}"), *json.loads(line))}}), flush=True)
    except Refused as refused:
        print(json.dumps({{"refused": str(refused)}}), flush=True)
"""


class Refused(Exception):
    pass


class Box:
    def __init__(self, root: Path) -> None:
        self.root = root
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", FURNISH, "sh", str(root), str(CODE)]
        self.anchor = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.anchor.stdout and self.anchor.stdout.readline() == "furnished\n"
        self.caller = subprocess.Popen(self.words("python3", "-c", CALLER), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.driver: subprocess.Popen[str] | None = None

    def words(self, *command: str) -> list[str]:
        inside = ["nsenter", f"--mount=/proc/{self.anchor.pid}/ns/mnt", "chroot", str(self.root), "env", "-i"]
        return [*inside, *(f"{key}={value}" for key, value in SETTING.items()), *command]

    def start(self) -> None:
        with (self.root / "driver.log").open("a") as log:
            self.driver = subprocess.Popen(self.words("python3", "-m", "csi.driver"), stdout=log, stderr=subprocess.STDOUT, text=True)
        self.call("Identity/Probe")

    def kill(self) -> None:
        assert self.driver
        self.driver.kill()
        self.driver.wait()

    def log(self) -> str:
        return (self.root / "driver.log").read_text()

    def sh(self, script: str) -> str:
        """A shell in there; what it said, also when it failed."""
        done = run(self.words("sh", "-c", script), check=False, timeout=60)
        return done.stdout + done.stderr

    def call(self, method: str, **request: Any) -> dict[str, Any]:
        assert self.caller.stdin and self.caller.stdout
        self.caller.stdin.write(json.dumps([method, request]) + "\n")
        self.caller.stdin.flush()
        told = json.loads(self.caller.stdout.readline())
        if "refused" in told:
            raise Refused(told["refused"])
        return dict(told["answer"])

    def create(self, name: str, mib: int = 32, **more: Any) -> dict[str, Any]:
        wanted = {"name": name, "volume_capabilities": [MODE], "capacity_range": {"required_bytes": mib << 20}}
        return dict(self.call("Controller/CreateVolume", **wanted, **more)["volume"])

    def stage(self, name: str) -> str:
        path = f"/run/staged/{name}"
        self.call("Node/NodeStageVolume", volume_id=name, staging_target_path=path, volume_capability=MODE)
        return path

    def publish(self, name: str, pod: str = "pod") -> str:
        path = f"/run/pods/{pod}/{name}"
        more = {"staging_target_path": f"/run/staged/{name}", "volume_capability": MODE}
        self.call("Node/NodePublishVolume", volume_id=name, target_path=path, **more)
        return path

    def mounts(self, path: str) -> int:
        return sum(line.split()[4] == path for line in self.sh("cat /proc/self/mountinfo").splitlines())

    def close(self) -> None:
        if self.driver:
            self.kill()
        for process in (self.caller, self.anchor):  # the namespace goes with them, and the loop devices with their last mounts
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream:
                    stream.close()


MODE = {"access_mode": {"mode": "SINGLE_NODE_WRITER"}, "mount": {}}


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory, progress: Progress) -> Path:
    """The files of the image docker.io/kio/csi, as a container of it has them."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if "xfs" not in Path("/proc/filesystems").read_text() and not run(["modprobe", "xfs"], check=False).ok:
        pytest.skip("this kernel has no XFS")
    if not Path("/dev/loop-control").exists():
        pytest.skip("this machine has no loop devices")
    archive, root = artifacts.image("csi", progress), tmp_path_factory.mktemp("csi")
    unpacked = tmp_path_factory.mktemp("archive")
    run(["tar", "-xf", archive, "-C", unpacked])
    for layer in json.loads((unpacked / "manifest.json").read_text())[0]["Layers"]:
        run(["tar", "-xf", unpacked / layer, "-C", root], timeout=120)
    for name in ("proc", "sys", "dev", "run", "code", "disks"):
        (root / name).mkdir(exist_ok=True)
    shutil.rmtree(unpacked)
    return root


@pytest.fixture(scope="session")
def one_box(image_files: Path) -> Iterator[Box]:
    made = Box(image_files)
    try:
        yield made
    finally:
        made.close()
        deadline = time.monotonic() + 10
        while (left := run(["losetup", "--all"]).stdout.count(str(image_files))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, "a loop device outlived its namespace"


@pytest.fixture
def box(one_box: Box) -> Iterator[Box]:
    """Each test begins with an empty shelf; the driver has no other memory than that and the mounts."""
    if not one_box.driver or one_box.driver.poll() is not None:
        one_box.start()
    yield one_box
    for line in reversed(one_box.sh("cat /proc/self/mountinfo").splitlines()):
        if (path := line.split()[4]).startswith("/run/"):
            one_box.sh(f"fsfreeze --unfreeze {path}; umount {path}")
    one_box.sh("rm -rf /disks/*/* /disks/*/.[a-z]* /run/staged /run/pods /run/die-at; : > /driver.log")
