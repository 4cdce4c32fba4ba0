"""The box to test with: a Debian machine made by vagrant/provision/*.sh, the scripts that make the embedded provider's node root.

What only an emulated machine without a bootloader needs (QEMU's TCG, kernel and initrd beside the disk) lies in the box's own
Vagrantfile, which Vagrant merges below the course's; so the latter holds nothing of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lab_utils import artifacts
from lab_utils.artifacts import debian, noderoot
from lab_utils.artifacts.chroot import in_root
from lab_utils.errors import ArtifactFailed, CommandFailed
from lab_utils.progress import Progress
from lab_utils.run import run
from tests.v2.machine import EMULATED, KERNEL, SLOW_WHEN_EMULATED

DISK_GB = 12  # of which only what is written takes room

# What makes a machine of a node root: a kernel, and what Vagrant does on a guest needs sudo and a network manager.
PACKAGES = ["linux-image-cloud-amd64", "initramfs-tools", "udev", "sudo", "systemd-resolved", "libpam-systemd"]

# The key that Vagrant brings for boxes; it replaces it in each machine by one made for that machine.
INSECURE_KEY = Path("/usr/share/rubygems-integration/all/gems")

NETWORK = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n[DHCPv4]\nClientIdentifier=mac\n"
MASKED = ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service"]
MASKED += ["fstrim.timer", "systemd-networkd-wait-online.service", "man-db.timer", "systemd-pcrphase.service"]

# `maximum` is all that QEMU can emulate. cache=unsafe: these disks are thrown away, and emulated writes are slow enough.
# The known key is not replaced, as that takes a minute here: nothing but this test reaches these machines.
VAGRANTFILE = f"""Vagrant.configure("2") do |config|
  config.ssh.insert_key = false
  config.vm.provider :libvirt do |machine|
    folder = File.dirname(File.expand_path(__FILE__))
    machine.driver = "qemu"
    machine.cpu_mode = "maximum"
    # libvirt writes its own -cpu before this one, and QEMU takes the last; a cpu_feature wants a cpu_model, and "maximum" is none.
    machine.qemuargs value: "-cpu"
    machine.qemuargs value: "max,-{SLOW_WHEN_EMULATED}"
    machine.disk_driver cache: "unsafe"
    machine.kernel = File.join(folder, "vmlinuz")
    machine.initrd = File.join(folder, "initrd.img")
    machine.cmd_line = "{KERNEL} {EMULATED}"
  end
end
"""


def make(folder: Path, progress: Progress) -> Path:
    """A box file in `folder`, which the caller removes."""
    artifacts.prepare(progress)
    root = folder / "root"
    with progress.step("A Debian machine for the box"):
        run(["cp", "-a", "--reflink=auto", debian.base(progress) / "root", root])
        _packages(root)
    with progress.step("vagrant/provision/*.sh, as for the embedded node root"):
        _provision(root, progress)
        _machine(root)
    with progress.step("The images"):
        store = root / "var/lib/containerd"
        shutil.rmtree(store, ignore_errors=True)
        run(["cp", "-a", "--reflink=auto", artifacts.image_store(progress), store])
    with progress.step("Its disk"):
        return _box(root, folder)


def _packages(root: Path) -> None:
    # The kernel package makes the initrd when it is configured, so what goes into it is said beforehand.
    for name, text in {
        "etc/initramfs-tools/conf.d/box": "MODULES=list\nCOMPRESS=gzip\n",
        "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
        "etc/kernel-img.conf": "do_symlinks = no\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    binds = {Path("/etc/resolv.conf").resolve(): "/etc/resolv.conf"}
    apt = ["apt-get", "-o=Dpkg::Options::=--force-unsafe-io", "-o=Dpkg::Options::=--force-confold", "-q", "-y"]
    try:
        in_root(root, [*apt, "update"], binds=binds, writable=True)
        in_root(root, [*apt, "install", "--no-install-recommends", *PACKAGES], binds=binds, writable=True)
    except CommandFailed as problem:
        raise ArtifactFailed(f"the box's packages could not be installed:\n{problem.stdout}", "Is your Debian mirror reachable?") from None


def _provision(root: Path, progress: Progress) -> None:
    scripts = debian.provision_dir()
    environment = {name: value for name, value in noderoot._environment().items() if name != "KIO_EMBEDDED"}
    binds = {artifacts.binaries(progress): "/mnt/bin", scripts: "/mnt/provision"}
    for script in sorted(scripts.glob("[0-9]*.sh")):
        in_root(root, [f"/mnt/provision/{script.name}"], binds=binds, env=environment, writable=True)


def _machine(root: Path) -> None:
    """What Vagrant expects of every box (developer.hashicorp.com/vagrant/docs/boxes/base): its user, its key, sudo, a network."""
    run(["chroot", root, "useradd", "--create-home", "--shell=/bin/bash", "vagrant"])
    key = next(INSECURE_KEY.glob("vagrant-*/keys/vagrant.pub"))
    files = {
        "etc/hostname": "box\n",
        "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 box\n",
        "etc/fstab": "/dev/vda / ext4 defaults,noatime 0 1\n",
        "etc/machine-id": "",
        "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
        "etc/systemd/network/10-eth0.network": NETWORK,
        "home/vagrant/.ssh/authorized_keys": key.read_text(),
        # vagrant/machine.sh says the same; until it runs, kubelet would start again and again on an emulated processor.
        "etc/systemd/system/kubelet.service.d/30-when-configured.conf": "[Unit]\nConditionPathExists=/var/lib/kubelet/config.yaml\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "etc/sudoers.d/vagrant").chmod(0o440)
    (root / "home/vagrant/.ssh").chmod(0o700)
    (root / "home/vagrant/.ssh/authorized_keys").chmod(0o600)
    run(["chroot", root, "chown", "-R", "vagrant:", "/home/vagrant"])
    run(["chroot", root, "systemctl", "enable", "systemd-networkd", "systemd-resolved", "serial-getty@ttyS0"])
    run(["chroot", root, "systemctl", "mask", *MASKED])
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub-resolv.conf")
    for path in (root / "var/lib/apt/lists").glob("*_*"):
        path.unlink()


def _box(root: Path, folder: Path) -> Path:
    inside = folder / "box"
    inside.mkdir()
    shutil.copyfile(next((root / "boot").glob("vmlinuz-*")), inside / "vmlinuz")
    shutil.copyfile(next((root / "boot").glob("initrd.img-*")), inside / "initrd.img")
    disk = folder / "disk.raw"
    run(["truncate", "-s", f"{DISK_GB}G", disk])
    run(["mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum_seed", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", root, disk])
    shutil.rmtree(root)
    run(["qemu-img", "convert", "-O", "qcow2", disk, inside / "box.img"])
    disk.unlink()
    (inside / "metadata.json").write_text(
        json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GB, "architecture": "amd64"})
    )
    (inside / "Vagrantfile").write_text(VAGRANTFILE)
    box = folder / "node.box"
    run(["tar", "-C", inside, "-cf", box, *sorted(path.name for path in inside.iterdir())])
    shutil.rmtree(inside)
    return box
