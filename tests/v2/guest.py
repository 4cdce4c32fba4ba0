"""The machine to test on: a Debian with systemd and nothing of ours running, as an ext4 image that QEMU boots without a bootloader.

It holds what a learner's machine holds after `make setup` and a first `lab up`: the checkout with its virtual environment
(once for root in /opt, once for a user in a home), and the caches, so that nothing is downloaded or built inside.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lab_utils import artifacts, paths
from lab_utils.artifacts import debian, images, programs
from lab_utils.artifacts.chroot import in_root
from lab_utils.errors import ArtifactFailed, HostLacks
from lab_utils.progress import Progress
from lab_utils.run import follow, run

DISK = "24G"  # of which only what is written takes room: the file is sparse
USER = "student"
CHECKOUTS = {"root": "/opt/course", USER: f"/home/{USER}/course"}
TIMES = "opt/times.json"

# What `make setup` would install, and what makes a Debian a machine that somebody logs in to.
PACKAGES = [
    *("linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "systemd-resolved", "libpam-systemd", "udev", "dbus", "kmod", "sudo"),
    *("procps", "psmisc", "iproute2", "nftables", "iptables", "ipset", "util-linux", "openssh-client", "bubblewrap", "tcpdump"),
    "apparmor",
    *("mmdebstrap", "debian-archive-keyring", "ca-certificates", "curl", "python3", "python3-venv", "git", "less"),
]

# All that `lab doctor`, `up`, `reset`, `status`, `ssh`, `kubectl` and `down` import; notebooks are not looked at here.
WHEELS = ["click", "rich", "platformdirs", "pooch", "paramiko", "cryptography", "kubernetes", "PyYAML", "jsonschema", "hatchling"]

UNIT = """[Unit]
Description=What is to be proven on this machine
After=multi-user.target network-online.target
Wants=network-online.target

[Service]
Type=oneshot
WorkingDirectory=/opt/course
Environment=PYTHONUNBUFFERED=1
ExecStart=/opt/course/.venv/bin/python -m tests.v2.inside
ExecStopPost=/bin/systemctl poweroff --no-block
StandardOutput=file:/dev/ttyS1
StandardError=inherit
TimeoutStartSec=infinity
"""

NETWORK = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n"


@dataclass(frozen=True)
class Guest:
    disk: Path
    kernel: Path
    initrd: Path


def check_host() -> None:
    if os.geteuid() != 0:
        raise HostLacks("a Debian for the guest can only be made by root", f"sudo {sys.executable} -m tests.v2")
    if platform.machine() != "x86_64":
        raise HostLacks(f"this test's guest is an amd64 machine, and this one is {platform.machine()}", "`make test` runs on both")
    packages = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "qemu-system-x86_64": "qemu-system-x86", "git": "git"}
    missing = sorted({package for program, package in packages.items() if not shutil.which(program)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise HostLacks(f"these packages are missing (named as Debian names them): {', '.join(missing)}", "Install them")
    print(f"lab: installing {' '.join(missing)}: a virtual machine and its disk, for this test only", flush=True)
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], env={"DEBIAN_FRONTEND": "noninteractive"})


def make(folder: Path, progress: Progress) -> Guest:
    """Everything in `folder`, which the caller removes."""
    entries = _entries(progress)
    root = folder / "root"
    with progress.step("A Debian machine for the guest"):
        _debian(root, folder)
    with progress.step("The checkout with its virtual environment, for root and for a user"):
        _checkouts(root, folder)
    with progress.step("The caches"):
        _caches(root, entries)
    with progress.step("Its disk"):
        return _disk(root, folder)


def _entries(progress: Progress) -> list[Path]:
    """What of the cache a first `lab up` looks for."""
    artifacts.prepare(progress)
    core = images.core()
    # Those of images that were pulled from their registry are not on this machine, and not needed.
    names = [*programs.NODE_PROGRAMS, *programs.cni_plugins(), *(name for image in core for name in image.programs if programs.known(name))]
    found = [path.parent for path in programs.ensure(names, progress).values()]
    found += [path.parent for path in images.ensure(core, progress).values()]
    found += [artifacts.binaries(progress), debian.base(progress)]
    return [*found, artifacts.node_root(progress).parent, artifacts.image_store(progress).parent]


def _debian(root: Path, folder: Path) -> None:
    said: list[str] = []
    # The kernel package makes the initrd when it is configured, so what goes into it is said beforehand.
    initramfs = "MODULES=list\\nCOMPRESS=gzip\\n"
    modules = "virtio_pci\\nvirtio_blk\\next4\\n"
    hook = f'mkdir -p "$1/etc/initramfs-tools/conf.d"; printf "{initramfs}" > "$1/etc/initramfs-tools/conf.d/guest"'
    hook += f'; printf "{modules}" > "$1/etc/initramfs-tools/modules"'
    argv = ["mmdebstrap", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}", "--dpkgopt=force-unsafe-io"]
    argv += [
        '--aptopt=APT::Install-Recommends "false"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
    ]
    if follow([*argv, f"--extract-hook={hook}", "bookworm", root], said.append, env={"TMPDIR": str(folder)}) != 0:
        raise ArtifactFailed("the guest's Debian could not be made:\n" + "\n".join(said[-8:]), "Is your Debian mirror reachable?")
    run(["chroot", root, "useradd", "--create-home", "--shell=/bin/bash", USER])
    files = {
        "etc/hostname": "machine\n",
        "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 machine\n",
        "etc/fstab": "/dev/vda / ext4 defaults,noatime 0 1\n",
        "etc/systemd/network/10-eth0.network": NETWORK,
        "etc/systemd/system/proof.service": UNIT,
        f"etc/sudoers.d/{USER}": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
        "etc/machine-id": "",
    }
    for path, text in files.items():
        (root / path).write_text(text)
    (root / "etc/sudoers.d" / USER).chmod(0o440)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub-resolv.conf")
    # The default target is graphical.target, which comes after multi-user.target: the test begins when the machine is up.
    (root / "etc/systemd/system/graphical.target.wants").mkdir()
    (root / "etc/systemd/system/graphical.target.wants/proof.service").symlink_to("../proof.service")
    run(["chroot", root, "systemctl", "enable", "systemd-networkd", "systemd-resolved"])
    run(["chroot", root, "systemctl", "mask", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"])


def _checkouts(root: Path, folder: Path) -> None:
    wheels = folder / "wheels"
    # For the guest's Python, whatever ours is.
    target = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=abi3", "--abi=none"]
    target += [f"--platform={name}_x86_64" for name in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")]
    pins = folder / "constraints.txt"
    pins.write_text(_pins(paths.repo_dir() / "requirements.lock"))
    run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", *target, "-c", pins, "-d", wheels, *WHEELS])
    archive = folder / "checkout.tar"
    # As the files lie here, so that a change can be tried before it is committed.
    files = run(["git", "-C", paths.repo_dir(), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]).stdout
    run(["tar", "-C", paths.repo_dir(), "--null", "--files-from=-", "--ignore-failed-read", "-cf", archive], input=files)
    installed: Path | None = None
    for owner, place in CHECKOUTS.items():
        (root / place.lstrip("/")).mkdir()
        run(["tar", "-xf", archive, "-C", root / place.lstrip("/")])
        pip = [f"{place}/.venv/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index"]
        in_root(root, ["python3", "-m", "venv", "--without-pip", f"{place}/.venv"], writable=True)
        packages = next((root / place.lstrip("/") / ".venv/lib").glob("python3*/site-packages"))
        if installed is None:
            in_root(root, ["python3", "-m", "venv", f"{place}/.venv"], writable=True)
            in_root(root, [*pip, "--find-links=/mnt/wheels", *WHEELS], binds={wheels: "/mnt/wheels"}, writable=True)
            installed = packages
        else:
            run(["cp", "-a", f"{installed}/.", packages])
        in_root(root, [*pip, "--no-deps", "--no-build-isolation", "-e", place], writable=True)
        run(["chroot", root, "chown", "-R", f"{owner}:", place])


def _pins(lock: Path) -> str:
    """The lock's versions without its checksums: pip takes constraints only so for a part of what is locked."""
    text = lock.read_text() if lock.exists() else ""
    return "\n".join(re.findall(r"^[\w.-]+==[^\s;\\]+", text, re.MULTILINE)) + "\n"


def _caches(root: Path, entries: list[Path]) -> None:
    """Copies of the cache's entries where the guest's root and user look for them, and a list of their times.

    The cache recognises its trees by times to the nanosecond, and mke2fs keeps only seconds: the guest puts them right.
    """
    times: dict[str, int] = {}
    own, shared = paths.cache_dir(), paths.root_cache_dir()
    homes = {"root": Path("/root/.cache") / paths.APP, USER: Path(f"/home/{USER}/.cache") / paths.APP}
    for entry in entries:
        for source in (entry, entry.with_name(entry.name + ".json")):
            if source.is_relative_to(shared):
                targets = [Path("/var/cache") / paths.APP / source.relative_to(shared)]
            else:
                targets = [home / source.relative_to(own) for home in homes.values()]
            for target in targets:
                place = root / str(target).lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                run(["cp", "-a", "--reflink=auto", source, place])
                for path in [source, *(source.rglob("*") if source.is_dir() else ())]:
                    times[str(target / path.relative_to(source))] = path.lstat().st_mtime_ns
    run(["chroot", root, "chown", "-R", f"{USER}:", f"/home/{USER}"])
    (root / TIMES).write_text(json.dumps(times))


def _disk(root: Path, folder: Path) -> Guest:
    disk = folder / "disk.raw"
    run(["truncate", "-s", DISK, disk])
    run(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", root, disk])
    boot = root / "boot"
    guest = Guest(disk, folder / "vmlinuz", folder / "initrd")
    shutil.copyfile(next(boot.glob("vmlinuz-*")), guest.kernel)
    shutil.copyfile(next(boot.glob("initrd.img-*")), guest.initrd)
    shutil.rmtree(root)
    return guest
