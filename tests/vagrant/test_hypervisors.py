"""Which VM provider is meant, and what to do when none or several can run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab_utils.errors import BadInput, HostLacks
from lab_utils.vagrant import hypervisors
from lab_utils.vagrant.hypervisors import Hypervisor, choose, kvm_has_the_processor

LIBVIRT, VIRTUALBOX = Hypervisor("libvirt"), Hypervisor("virtualbox")
BROKEN = Hypervisor("libvirt", "libvirtd does not run", "sudo systemctl start libvirtd")


def test_the_only_usable_one_needs_no_choice() -> None:
    assert choose("", {}, [LIBVIRT]) == "libvirt"
    assert choose("", {}, [BROKEN, VIRTUALBOX]) == "virtualbox"


def test_of_two_one_must_be_chosen() -> None:
    with pytest.raises(BadInput) as refused:
        choose("", {}, [VIRTUALBOX, LIBVIRT])
    assert "several VM providers can run here: virtualbox, libvirt" in str(refused.value)
    assert "export VAGRANT_DEFAULT_PROVIDER=" in refused.value.mend


def test_the_setting_goes_before_the_environment() -> None:
    environment = {"VAGRANT_DEFAULT_PROVIDER": "virtualbox"}
    assert choose("", environment, [VIRTUALBOX, LIBVIRT]) == "virtualbox"
    assert choose("libvirt", environment, [VIRTUALBOX, LIBVIRT]) == "libvirt"


def test_a_provider_that_is_asked_for_and_cannot_run_is_refused_with_the_reason() -> None:
    with pytest.raises(
        HostLacks, match=r"libvirt is asked for by VAGRANT_DEFAULT_PROVIDER, and libvirtd does not run. sudo systemctl start libvirtd"
    ):
        choose("", {"VAGRANT_DEFAULT_PROVIDER": "libvirt"}, [BROKEN, VIRTUALBOX])
    with pytest.raises(HostLacks, match="parallels is asked for in the settings, and it is not installed"):
        choose("parallels", {}, [LIBVIRT])


def test_a_provider_that_the_course_does_not_know_is_refused() -> None:
    with pytest.raises(BadInput, match="'docker' is asked for by VAGRANT_DEFAULT_PROVIDER"):
        choose("", {"VAGRANT_DEFAULT_PROVIDER": "docker"}, [LIBVIRT])


def test_nothing_usable_is_told_with_what_the_best_of_it_lacks() -> None:
    with pytest.raises(HostLacks, match="libvirt is installed, but libvirtd does not run"):
        choose("", {}, [BROKEN])
    with pytest.raises(HostLacks, match="no VM provider is installed here"):
        choose("", {}, [])


def test_what_is_installed_is_found_without_asking_vagrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("VBoxManage", "virsh"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path))
    monkeypatch.setattr(hypervisors, "SYSTEM_PLUGINS", tmp_path / "none")
    found = {one.name: one for one in hypervisors.installed()}
    assert found["virtualbox"].usable
    assert "vagrant-libvirt is missing" in found["libvirt"].lacks
    assert set(found) == {"virtualbox", "libvirt"}

    (tmp_path / "plugins.json").write_text(json.dumps({"version": "1", "installed": {"vagrant-libvirt": {}}}))
    monkeypatch.setattr(hypervisors, "LIBVIRT_SOCKETS", (tmp_path / "socket",))
    assert next(one for one in hypervisors.installed() if one.name == "libvirt").lacks == "libvirtd does not run"
    (tmp_path / "socket").touch()
    assert next(one for one in hypervisors.installed() if one.name == "libvirt").usable


@pytest.mark.parametrize(("modules", "at_load", "holds"), [(["kvm_intel"], "Y", True), (["kvm_amd"], "N", False), ([], "Y", False)])
def test_kvm_holds_the_processor_when_it_is_loaded_and_says_so(tmp_path: Path, modules: list[str], at_load: str, holds: bool) -> None:
    for module in modules:
        (tmp_path / "sys/module" / module).mkdir(parents=True)
    (tmp_path / "sys/module/kvm/parameters").mkdir(parents=True)
    (tmp_path / "sys/module/kvm/parameters/enable_virt_at_load").write_text(f"{at_load}\n")
    assert kvm_has_the_processor(tmp_path) is holds


def test_before_linux_6_12_kvm_left_the_processor_alone(tmp_path: Path) -> None:
    (tmp_path / "sys/module/kvm_intel").mkdir(parents=True)
    assert not kvm_has_the_processor(tmp_path)
