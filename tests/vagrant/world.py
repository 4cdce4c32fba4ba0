"""A corner of this machine in which libvirt runs as on a learner's: own links and firewall, own processes, own libvirt files.

Here PID 1 is not systemd, so the daemons that libvirt needs are started by hand. They live in namespaces of their own: their
bridges, dnsmasq and NAT rules cannot touch the machine's network, and whatever is killed, nothing of them remains.
There is no way out of this corner, which also shows that everything works offline.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab_utils.artifacts.chroot import alone
from lab_utils.errors import HostLacks
from lab_utils.run import run

# Everything as root and nothing confined: neither users nor control groups are libvirt's to manage here.
QEMU_CONF = """user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
"""

# $1 folder for what is large; what is small lies in memory. Then the program.
SCRIPT = """
set -eu
folder=$1; shift
mount --make-rprivate /
mkdir -p "$folder/cgroup" "$folder/libvirt/images" "$folder/libvirt/qemu" "$folder/libvirt/dnsmasq" "$folder/libvirt-cache" "$folder/etc"
cp -a /etc/libvirt/. "$folder/etc/"
rm -rf "$folder/etc/qemu/autostart" "$folder/etc/qemu/networks" "$folder"/etc/qemu/*.xml "$folder/etc/storage"
mount --rbind /sys/fs/cgroup "$folder/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$folder/cgroup" /sys/fs/cgroup
for place in /run/libvirt /run/dbus /var/log/libvirt; do mkdir -p "$place"; mount -t tmpfs -o mode=755 tmpfs "$place"; done
mkdir -p /var/cache/libvirt /var/lib/libvirt
mount --bind "$folder/libvirt" /var/lib/libvirt
mount --bind "$folder/libvirt-cache" /var/cache/libvirt
cat > "$folder/etc/qemu.conf"
mount --bind "$folder/etc" /etc/libvirt
ip link set lo up
# Not exec: whoever is process 1 must collect the children that others leave, or libvirtd waits for its dead QEMUs.
"$@" & wait $!
"""


def inside(folder: Path, *argv: str | Path) -> list[str]:
    """The command line that runs a program in the corner. Its standard input is qemu.conf."""
    return [*alone(), "--mount-proc", "--net", "sh", "-c", SCRIPT, "world", str(folder), *map(str, argv)]


@contextmanager
def daemons(log: Path) -> Iterator[None]:
    """Called inside: what systemd would have started."""
    with log.open("ab") as out:
        started = [
            subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            for words in (["dbus-daemon", "--system", "--nofork", "--nopidfile"], ["virtlogd"], ["libvirtd", "--timeout", "0"])
        ]
        try:
            _wait(log)
            yield
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def _wait(log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if Path("/run/libvirt/libvirt-sock").exists() and run(["virsh", "-c", "qemu:///system", "version"], check=False).ok:
            return
        time.sleep(0.3)
    raise HostLacks(f"libvirtd did not start:\n{log.read_text(errors='replace')[-1500:]}")


def environment(folder: Path) -> dict[str, str]:
    """Vagrant's and our own files in the folder, so that neither this user's boxes nor clusters are looked at."""
    return {**os.environ, "VAGRANT_HOME": str(folder / "vagrant-home"), "LAB_STATE": str(folder / "state")}
