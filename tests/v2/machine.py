"""Runs the guest in QEMU, by emulation (TCG): any machine can, and it is slow. What it says on its second serial line is the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab_utils.run import follow
from tests.v2.guest import Guest

MEMORY = "5G"
MINUTES = 120

# The first processor that QEMU offers is twenty years old; `max` is all that it can emulate. With "erms" it says that `rep movsb` is the
# fast way to copy, which is one emulated step for each byte: without it the kernel writes twice as fast, and boots by a third faster.
SLOW_WHEN_EMULATED = "erms"

# net.ifnames: the one card is eth0.
KERNEL = "root=/dev/vda rw console=ttyS0,115200 net.ifnames=0 biosdevname=0 mitigations=off quiet"

# The kernel does not trust the emulated processors' time stamp counters ("TSCs unsynchronized") and reads the clock from the HPET: a
# system call and a device access each time, and Go asks for the time all the time. All of them count the host's ticks, so they agree.
# no5lvl: each look into the page tables is emulated as well, and four levels of them are enough for 5 GB.
EMULATED = "tsc=reliable clocksource=tsc no5lvl"


def boot(guest: Guest, console: Path, on_line: Callable[[str], object], *, accelerator: str = "tcg", bare: bool = False) -> int:
    """Run the machine until it switches itself off. Ctrl-C ends it. Returns QEMU's code, 124 when it took too long."""
    emulated = accelerator == "tcg"
    processor = f"max,-{SLOW_WHEN_EMULATED}" if emulated else "max"
    machine = ["qemu-system-x86_64", "-machine", f"q35,accel={accelerator}", "-cpu", processor, "-smp", "2", "-m", MEMORY]
    disk = ["-drive", f"file={guest.disk},if=virtio,format=raw,cache=unsafe"]
    words = [KERNEL, *([EMULATED] if emulated else []), *(["lab.bare"] if bare else [])]
    kernel = ["-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-append", " ".join(words)]
    # A card with an address and a default route, so that there is a way out to be opened; `restrict` lets nothing through it.
    card = ["-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-pci,netdev=n0,romfile="]
    lines = ["-serial", f"file:{console}", "-serial", "stdio"]
    quiet = ["-display", "none", "-monitor", "none", "-no-reboot", "-nodefaults", "-device", "virtio-rng-pci"]
    return follow(["timeout", f"{MINUTES}m", *machine, *disk, *kernel, *card, *lines, *quiet], on_line)
