"""What `vagrant --machine-readable` says, line by line, and what it means to a person. Pure: text in, values out.

A line is `seconds,machine,type,data…` (developer.hashicorp.com/vagrant/docs/cli/machine-readable). Commas within the data are
written %!(VAGRANT_COMMA), ends of lines as a backslash and an n.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    machine: str  # empty when it is about none of them
    kind: str
    data: tuple[str, ...]

    @property
    def text(self) -> str:
        """What a person would have read, of a `ui` line; empty for all others."""
        return self.data[1] if self.kind == "ui" and len(self.data) > 1 else ""

    @property
    def level(self) -> str:
        return self.data[0] if self.kind == "ui" else ""


COMMA = "%!(VAGRANT_COMMA)"


def line(text: str) -> Line | None:
    """None for what is not of this form: Ruby's own warnings get between the lines."""
    fields = text.split(",")
    if len(fields) < 3 or not fields[0].isdigit():
        return None
    data = tuple(field.replace(COMMA, ",").replace("\\n", "\n").replace("\\r", "\r") for field in fields[3:])
    return Line(fields[1], fields[2], data)


def lines(text: str) -> list[Line]:
    return [found for each in text.splitlines() if (found := line(each))]


def states(said: Iterable[Line]) -> dict[str, str]:
    """Machine → state, of `vagrant status`: running, poweroff, shutoff, saved, not_created, …"""
    return {one.machine: one.data[0] for one in said if one.kind == "state" and one.machine and one.data}


def versions(said: Iterable[Line]) -> str:
    """The installed version, of `vagrant version`."""
    return next((one.data[0] for one in said if one.kind == "version-installed" and one.data), "")


@dataclass(frozen=True)
class Box:
    name: str
    provider: str
    version: str
    architecture: str = ""  # Vagrant 2.4 and later say it where a box does


def boxes(said: Iterable[Line]) -> list[Box]:
    """Of `vagrant box list`: each box is a run of lines that begins with its name."""
    found: list[dict[str, str]] = []
    for one in said:
        if one.kind == "box-name":
            found.append({"name": one.data[0]})
        elif one.kind.startswith("box-") and found and one.data:
            found[-1][one.kind.removeprefix("box-")] = one.data[0]
    return [Box(b["name"], b.get("provider", ""), b.get("version", ""), b.get("architecture", "")) for b in found]


def host_key(said: Iterable[Line]) -> str:
    """The key by which a machine is recognised. vagrant/machine.sh says it, and Vagrant's own connection vouches for it."""
    found = re.search(r"kio-host-key: (ssh-\S+ [A-Za-z0-9+/=]+)", "\n".join(one.text for one in said))
    return found.group(1) if found else ""


def is_locked(said: Iterable[Line]) -> bool:
    """Whether another `vagrant` works on the machine: one that we started before, and that has been interrupted, tidies up."""
    return any(one.kind == "error-exit" and one.data[0].endswith("MachineLocked") for one in said)


@dataclass(frozen=True)
class Trouble:
    """What an error of Vagrant or of a hypervisor means, and the way out."""

    what: str
    mend: str


KVM = Trouble(
    "KVM and VirtualBox cannot both use this processor's virtualisation, and KVM has it (since Linux 6.12 as soon as it is loaded)",
    "Use libvirt (VAGRANT_DEFAULT_PROVIDER=libvirt), or put KVM aside: `sudo modprobe -r kvm_intel kvm_amd kvm`",
)

# What is looked for in all that was said, and what it means. The first that is found is told.
KNOWN: Sequence[tuple[str, Trouble]] = (
    (r"VERR_VMX_IN_VMX_ROOT_MODE|VERR_SVM_IN_USE|VERR_SVM_HOST_SVME_NOT_ENABLED", KVM),
    (
        r"VERR_VMX_NO_VMX|VERR_SVM_DISABLED|VERR_VMX_MSR_ALL_VMX_DISABLED|VT-x is disabled|AMD-V is disabled",
        Trouble("this processor's virtualisation is switched off", "Switch on VT-x or AMD-V (SVM) in the firmware's settings"),
    ),
    (
        r"VERR_PLATFORM_ARCH_NOT_SUPPORTED|Cannot run the machine because its platform architecture",
        Trouble("the box is for another kind of processor than this host's", "Name a box for this host in the settings: box: NAME"),
    ),
    (
        r"could not get KVM|Could not access KVM kernel module|does not support virt type 'kvm'|domain type .?kvm",
        Trouble("libvirt cannot use KVM here", "Is /dev/kvm there and yours? `sudo modprobe kvm_intel` (or kvm_amd), group kvm"),
    ),
    (
        r"Cannot allocate memory|cannot set up guest memory|VERR_NO_MEMORY|Not enough physical memory",
        Trouble("there is too little memory for this machine", "Close something, ask for fewer workers, or smaller ones in the settings"),
    ),
    (
        r"not within the\s+allowed ranges|is not allowed for the host-only",
        Trouble("VirtualBox does not allow this network", "Choose one within 192.168.56.0/21 in the settings"),
    ),
    (
        r"network is already in use by interface|Network .* is already in use",
        Trouble("the nodes' network is in use on this host", "Name another in the settings: network: 192.168.57.0/24"),
    ),
    (
        r"Call to virConnectOpen failed|Failed to connect socket to '.*libvirt|Error while connecting to Libvirt",
        Trouble("libvirt does not answer", "Start it (`sudo systemctl start libvirtd`), and be in the group libvirt"),
    ),
    (
        r"Timed out while waiting for the machine to boot",
        Trouble(
            "the machine did not answer by ssh in time",
            "A slow host needs more (boot_timeout in the settings); a box of another architecture never boots",
        ),
    ),
    (
        r"No space left on device|VERR_DISK_FULL|not enough free disk space",
        Trouble("the disk is full", "Make room; a node needs about 6 GB"),
    ),
    (
        r"could not be found or\s+could not be accessed|Couldn't open file|Could not resolve host|box .* could not be found",
        Trouble(
            "the box is not here and cannot be downloaded",
            "Is there a network? One can be added by hand: `vagrant box add --name NAME FILE`",
        ),
    ),
)


def trouble(said: Iterable[Line], raw: str = "") -> Trouble | None:
    """What went wrong, when it is something that people meet often."""
    text = "\n".join([*(one.text or " ".join(one.data) for one in said), raw])
    # vagrant/machine.sh found it out; Vagrant puts the machine's name before what it says.
    own = re.search(r"^\s*(?:==> )?(?:[\w-]+: )?kio: (.+)$", text, re.MULTILINE)
    if own:
        what, _, mend = own.group(1).partition(": ")
        return Trouble(what, mend[:1].upper() + mend[1:])
    return next((meaning for pattern, meaning in KNOWN if re.search(pattern, text, re.IGNORECASE)), None)


# Ruby's words for an error that nobody caught: `file.rb:12:in 'name': what it is (Libvirt::Error)`
UNCAUGHT = re.compile(r"^.*?:\d+:in .+?: (.+ \(\w+(?:::\w+)+\))$")


def last_words(said: Sequence[Line], raw: Sequence[str] = ()) -> str:
    """One line of an error that we do not know: Vagrant's own `error-exit`, without its advice; or what Ruby said of one, in `raw`."""
    for one in reversed(said):
        if one.kind == "error-exit" and len(one.data) > 1:
            return " ".join(one.data[1].split())[:400]
    errors = [one.text for one in said if one.level == "error"]
    if errors:
        return " ".join(errors[-1].split())[:400]
    return next((found[1][:400] for text in raw if (found := UNCAUGHT.match(text))), "it said nothing")


def tail(said: Sequence[Line], count: int = 8) -> list[str]:
    """The end of what a machine said before it failed, for a person to see at once."""
    rows = [(one.machine, row.strip()) for one in said if one.machine and one.text for row in one.text.splitlines() if row.strip()]
    return [f"{machine}: {row}" for machine, row in rows[-count:]]


def worth_showing(one: Line) -> str:
    """A note for a progress display: what Vagrant is at, without its details."""
    headline = one.text.startswith("==> ") or one.level in ("info", "warn")
    if not one.machine or not headline or not one.text.strip():
        return ""
    first = one.text.strip().splitlines()[0].removeprefix("==> ").removeprefix(f"{one.machine}: ").strip()
    return "" if first.startswith("--") else first  # a list of what the machine will be like
