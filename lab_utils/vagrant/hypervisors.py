"""Which of Vagrant's VM providers can run on this host, and which one is meant.

Looks at files and programs only: asking Vagrant itself takes seconds, and `lab doctor` should not.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab_utils.errors import BadInput, HostLacks
from lab_utils.vagrant.settings import PROVIDERS

# What must be on the PATH (or, on macOS, installed as an application), and the plugin that teaches Vagrant to use it.
PROGRAMS = {
    "virtualbox": ("VBoxManage",),
    "libvirt": ("virsh", "libvirtd", "virtqemud"),
    "vmware_desktop": ("vmrun", "/Applications/VMware Fusion.app"),
    "parallels": ("prlctl", "/Applications/Parallels Desktop.app"),
}
PLUGINS = {"libvirt": "vagrant-libvirt", "vmware_desktop": "vagrant-vmware-desktop", "parallels": "vagrant-parallels"}
LIBVIRT_SOCKETS = (Path("/run/libvirt/libvirt-sock"), Path("/run/libvirt/virtqemud-sock"))
SYSTEM_PLUGINS = Path("/usr/share/vagrant-plugins/plugins.d")  # where Debian's packages of plugins say that they are there


@dataclass(frozen=True)
class Hypervisor:
    """One of Vagrant's providers on this host: usable, or what it lacks."""

    name: str
    lacks: str = ""
    mend: str = ""

    @property
    def usable(self) -> bool:
        return not self.lacks


def installed() -> list[Hypervisor]:
    """Those whose program is here, in the order of the settings; with what keeps the others of them from use."""
    return [_look(name) for name in PROVIDERS if any(shutil.which(one) or Path(one).is_dir() for one in PROGRAMS[name])]


def _look(name: str) -> Hypervisor:
    plugin = PLUGINS.get(name)
    if plugin and plugin not in _plugins():
        return Hypervisor(name, f"Vagrant's plugin {plugin} is missing", f"vagrant plugin install {plugin}")
    if name == "libvirt":
        if not any(socket.exists() for socket in LIBVIRT_SOCKETS):
            return Hypervisor(name, "libvirtd does not run", "sudo systemctl start libvirtd")
        if not any(os.access(socket, os.W_OK) for socket in LIBVIRT_SOCKETS):
            return Hypervisor(name, "this user may not use libvirt", "sudo adduser $USER libvirt, and log in again")
    return Hypervisor(name)


def _plugins() -> set[str]:
    home = Path(os.environ.get("VAGRANT_HOME", Path.home() / ".vagrant.d"))
    found = {file.stem for file in SYSTEM_PLUGINS.glob("*.json")}
    try:
        found |= set(json.loads((home / "plugins.json").read_text()).get("installed", {}))
    except (OSError, ValueError):
        pass
    return found


def choose(setting: str, environment: Mapping[str, str], found: list[Hypervisor]) -> str:
    """The provider that is meant: the setting's, else VAGRANT_DEFAULT_PROVIDER's, else the only usable one."""
    said, where = (
        (setting, "in the settings") if setting else (environment.get("VAGRANT_DEFAULT_PROVIDER", ""), "by VAGRANT_DEFAULT_PROVIDER")
    )
    if said:
        if said not in PROVIDERS:
            raise BadInput(f"{said!r} is asked for {where}, and the course's machines know: {', '.join(PROVIDERS)}", "Choose one of these")
        one = next((each for each in found if each.name == said), Hypervisor(said, "it is not installed", "Install it, or choose another"))
        if not one.usable:
            raise HostLacks(f"{said} is asked for {where}, and {one.lacks}", one.mend)
        return said
    usable = [one.name for one in found if one.usable]
    if len(usable) > 1:
        raise BadInput(
            f"several VM providers can run here: {', '.join(usable)}", f"Choose one: export VAGRANT_DEFAULT_PROVIDER={usable[0]}"
        )
    if not usable:
        raise none_usable(found)
    return usable[0]


def none_usable(found: list[Hypervisor]) -> HostLacks:
    if found:
        one = found[0]
        return HostLacks(f"no VM provider can run here; {one.name} is installed, but {one.lacks}", one.mend)
    mac = platform.system() == "Darwin"
    return HostLacks(
        "no VM provider is installed here",
        "Install VMware Fusion or Parallels; or VirtualBox 7.1 and later"
        if mac
        else "sudo apt-get install vagrant-libvirt libvirt-daemon-system, or install VirtualBox",
    )


def kvm_has_the_processor(root: Path = Path("/")) -> bool:
    """Whether KVM holds what VirtualBox needs, so that VirtualBox can be expected to fail.

    Since Linux 6.12 KVM takes the processor's virtualisation when its module is loaded (parameter enable_virt_at_load), not when a
    machine starts. VirtualBox 7.2.10 and later share it with KVM again, so this is a warning and no verdict.
    """
    module = root / "sys/module"
    loaded = (module / "kvm_intel").is_dir() or (module / "kvm_amd").is_dir()
    at_load = module / "kvm/parameters/enable_virt_at_load"
    return loaded and at_load.exists() and at_load.read_text().strip() == "Y"
