"""`make test-vagrant`: the vagrant provider with real virtual machines, by emulation where the processor offers nothing better.

python -m tests.vagrant          build the box, make a cluster of it, tell what it found, remove everything
python -m tests.vagrant --keep   leave the folder, and say where: logs, reports and the box are in it
python -m tests.vagrant --box F  take a box that an earlier run with --keep has built
python -m tests.vagrant -k load  between `lab up` and `lab down` only what has this word in its name
python -m tests.vagrant --bare   only machines on which nothing of Kubernetes runs (`lab up --bare`) and lab 01, in half the time
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from lab_utils import artifacts
from lab_utils.cli.console import Console
from lab_utils.errors import HostLacks, LabError
from lab_utils.run import run
from tests.proof import Verdict
from tests.vagrant import box, world

SPACE = 20  # GB, in the folder for temporary files
MEMORY = 7  # GB: three machines of 2.5, 1.5 and 1.5

# Program that shows that it is there → Debian package.
PACKAGES = {
    "vagrant": "vagrant",
    "/usr/share/vagrant-plugins/plugins.d/vagrant-libvirt.json": "vagrant-libvirt",
    "libvirtd": "libvirt-daemon-system",
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so": "libvirt-daemon-driver-qemu",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "dnsmasq": "dnsmasq-base",
    "/usr/share/seabios/bios-256k.bin": "seabios",
    "/usr/lib/ipxe/qemu/efi-virtio.rom": "ipxe-qemu",
    "nc": "netcat-openbsd",
    "dbus-daemon": "dbus",
    "mke2fs": "e2fsprogs",
}


@click.command()
@click.option("--keep", is_flag=True, help="Leave the folder.")
@click.option("--box", "ready", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A box that is built already.")
@click.option("--bare", is_flag=True, help="Only machines on which nothing of Kubernetes runs.")
@click.option("-k", "only", default="", metavar="WORD", help="Of what is proven on the cluster, only what has WORD in its name.")
def main(keep: bool, ready: Path | None, bare: bool, only: str) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="lab-vagrant-", dir="/var/tmp"))
    try:
        sys.exit(prove(folder, ready, bare, only))
    except LabError as error:
        click.echo(f"lab: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        click.echo("lab: stopped; the machines are gone", err=True)
        sys.exit(130)
    finally:
        if keep:
            click.echo(f"its folder stays: {folder}")
        else:
            shutil.rmtree(folder)
        click.echo(f"{(time.monotonic() - start) / 60:.0f} minutes in all")


def prove(folder: Path, ready: Path | None, bare: bool, only: str) -> int:
    check_host(folder)
    click.echo(
        "A box is built from Debian packages by vagrant/provision/*.sh, and virtual machines are made of it.\n"
        f"Without KVM they are emulated: it takes 75 to 105 minutes, twice that on a busy machine;\n"
        f"two processors, {MEMORY} GB of memory and up to {SPACE} GB below "
        f"{folder.parent}; all of it is given back at the end."
    )
    before = host()
    if ready:
        (folder / "node.box").hardlink_to(ready)
    else:
        box.make(folder, Console())
    artifacts.image("busybox", Console())  # is loaded later, from where nothing can be fetched
    verdict = Verdict()
    code = follow(folder, verdict, bare, only)
    if not verdict.finished:
        click.echo(f"FAIL  the test ended early (code {code})")
        return 1
    after = host()
    changed = [f"{name}: {sorted(before[name] ^ after[name])[:6]}" for name in before if before[name] != after[name]]
    if changed:
        verdict.line(f"FAIL the machine is not as it was found: {'; '.join(changed)}")
    else:
        verdict.line("ok   the machine's links, firewall, sysctls and libvirt files are as found")
    click.echo(f"{verdict.passed} passed, {verdict.failed} failed")
    return 1 if verdict.failed else 0


def follow(folder: Path, verdict: Verdict, bare: bool, only: str) -> int:
    """Run inside.py in its corner; its report is handed on line by line. Ctrl-C ends all of it."""
    words = world.inside(folder, sys.executable, "-m", "tests.vagrant.inside", folder, "bare" if bare else "whole", only)
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    try:
        process.stdin.write(world.QEMU_CONF)
        process.stdin.close()
        for line in process.stdout:
            verdict.line(line)
        return process.wait(timeout=60)
    except BaseException:
        process.kill()
        process.wait()
        raise


def check_host(folder: Path) -> None:
    if os.geteuid() != 0:
        raise HostLacks("this test makes a Debian root and runs libvirt, which needs root", f"sudo {sys.executable} -m tests.vagrant")
    if os.uname().machine != "x86_64":
        raise HostLacks(f"this test's box is an amd64 machine, and this one is {os.uname().machine}", "`make test` runs on both")
    missing = sorted({package for sign, package in PACKAGES.items() if not (shutil.which(sign) or Path(sign).exists())})
    if missing and not shutil.which("apt-get"):
        raise HostLacks(f"these packages are missing (named as Debian names them): {', '.join(missing)}", "Install them")
    if missing:
        click.echo(f"lab: installing {' '.join(missing)}: Vagrant, libvirt and QEMU, for this test only")
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing], env={"DEBIAN_FRONTEND": "noninteractive"})
    free = shutil.disk_usage(folder).free // 10**9
    if free < SPACE:
        raise HostLacks(f"{SPACE} GB of disk are needed below {folder.parent}, and {free} GB are free", "Make room")
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(memory["MemAvailable"].split()[0]) // 2**20
    if available < MEMORY:
        raise HostLacks(f"{MEMORY} GB of memory are needed, and {available} GB are free", "Close something")


def host() -> dict[str, set[str]]:
    """What of the machine itself libvirt on it would change."""
    watched = ("net.ipv4.ip_forward", "net.ipv4.conf.all.", "net.ipv6.conf.all.", "net.bridge.", "kernel.panic", "vm.overcommit")
    links = run(["ip", "-br", "link"]).stdout.splitlines()
    rules = run(["iptables-save"], check=False).stdout.splitlines()
    sysctls = run(["sysctl", "-a"], check=False).stdout.splitlines()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "files": {str(path) for place in ("/etc/libvirt", "/var/lib/libvirt", "/run/libvirt") for path in Path(place).rglob("*")},
        "links": {line.split()[0] for line in links if line.startswith(("virbr", "vnet"))},
        "rules": {line for line in rules if "LIBVIRT" in line or "virbr" in line},
        "sysctls": {line for line in sysctls if line.startswith(watched)},
        "mounts": {line.split()[4] for line in mounts if "libvirt" in line},
    }


if __name__ == "__main__":
    main()
