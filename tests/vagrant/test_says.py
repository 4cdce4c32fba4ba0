"""What Vagrant says to programs. Recorded: Vagrant 2.3.4 with vagrant-libvirt 0.11.2, one machine made, saved and restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_utils.vagrant import says
from lab_utils.vagrant.says import Box, Line

DATA = Path(__file__).with_name("data")


def recorded(name: str) -> list[Line]:
    return says.lines((DATA / f"{name}.txt").read_text())


def test_a_line_has_a_machine_a_kind_and_data() -> None:
    found = says.line("1795262466,cp,ui,info,==> cp: Linked%!(VAGRANT_COMMA) at last\\n==> cp: done")
    assert found == Line("cp", "ui", ("info", "==> cp: Linked, at last\n==> cp: done"))
    assert found.text.splitlines() == ["==> cp: Linked, at last", "==> cp: done"]


@pytest.mark.parametrize("text", ["", "cp: hello, world, again", "/usr/lib/ruby/vendor_ruby: warning: a, b, c", "1795262466,cp"])
def test_what_is_no_such_line_is_left_out(text: str) -> None:
    assert says.line(text) is None


def test_the_state_of_every_machine() -> None:
    assert says.states(recorded("status-before")) == {"cp": "not_created", "w1": "not_created"}
    assert says.states(recorded("status-after")) == {"cp": "running", "w1": "not_created"}


def test_the_installed_version() -> None:
    assert says.versions(recorded("version")) == "2.3.4"


def test_the_boxes_that_are_here() -> None:
    assert says.boxes(recorded("box-list")) == [Box("kio/test", "libvirt", "0")]


def test_newer_vagrants_tell_a_boxs_architecture() -> None:
    said = "1,,box-name,course\n1,,box-provider,virtualbox\n1,,box-version,1.0\n1,,box-architecture,arm64\n1,,box-name,other\n"
    assert says.boxes(says.lines(said)) == [Box("course", "virtualbox", "1.0", "arm64"), Box("other", "", "")]


def test_a_machine_says_by_which_key_it_is_recognised() -> None:
    said = says.lines("1,cp,ui,detail,    cp: kio-host-key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBzx+/9=\n1,cp,action,up,end")
    assert says.host_key(said) == "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBzx+/9="
    assert says.host_key(recorded("up")) == ""


def test_a_machine_on_which_another_vagrant_works_is_known() -> None:
    assert says.is_locked([Line("", "error-exit", ("Vagrant::Errors::MachineLocked", "An action 'destroy' was attempted"))])
    assert not says.is_locked(recorded("up"))


def test_progress_is_what_vagrant_is_at_without_its_details() -> None:
    shown = [note for one in recorded("up") if (note := says.worth_showing(one))]
    assert shown[-4:] == [
        "Machine booted and ready!",
        "Setting hostname...",
        "Configuring and enabling network interfaces...",
        "Running provisioner: machine (shell)...",
    ]
    assert not any("Memory" in note or "==>" in note or "SSH auth" in note for note in shown)
    assert [says.worth_showing(one) for one in recorded("snapshot-restore")].count("Restoring the snapshot 'pristine'...") == 1


def test_a_run_without_an_error_has_no_trouble_in_it() -> None:
    for name in ("up", "status-after", "snapshot-save", "snapshot-restore", "box-list"):
        assert says.trouble(recorded(name)) is None


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("VBoxManage: error: VirtualBox can't operate in VMX root mode. (VERR_VMX_IN_VMX_ROOT_MODE)", "KVM and VirtualBox cannot both"),
        ("VirtualBox can't enable the AMD-V extension. (VERR_SVM_IN_USE)", "KVM and VirtualBox cannot both"),
        ("VBoxManage: error: AMD-V is disabled in the BIOS (VERR_SVM_DISABLED)", "virtualisation is switched off"),
        ("Cannot run the machine because its platform architecture x86 is not supported on ARM", "another kind of processor"),
        ("Could not access KVM kernel module: No such file or directory", "libvirt cannot use KVM"),
        ("qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory", "too little memory"),
        ("The IP address configured for the host-only network is not within the\nallowed ranges.", "does not allow this network"),
        ("internal error: Network is already in use by interface virbr1", "network is in use"),
        ("Call to virConnectOpen failed: Failed to connect socket to '/var/run/libvirt/libvirt-sock'", "libvirt does not answer"),
        ("Timed out while waiting for the machine to boot. This means that", "did not answer by ssh in time"),
        ("write error: No space left on device", "the disk is full"),
        ("The box 'course' could not be found or\ncould not be accessed in the remote catalog.", "cannot be downloaded"),
    ],
)
def test_what_people_meet_often_is_explained_with_a_way_out(said: str, what: str) -> None:
    found = says.trouble([Line("", "error-exit", ("Vagrant::Errors::Some", said))])
    assert found and what in found.what and found.mend
    assert found == says.trouble([], said), "the same, when a program said it beside Vagrant's own lines"


def test_what_the_machine_found_out_itself_goes_before_all_else() -> None:
    text = "kio: the box holds Kubernetes v1.35.0, and the course's is v1.36.3: package a new box"
    for said in (text, f"    cp: {text}", f"==> kio-2: {text}"):
        found = says.trouble([Line("cp", "ui", ("detail", said)), Line("", "ui", ("error", "No space left on device"))])
    assert found is not None
    assert (found.what, found.mend) == ("the box holds Kubernetes v1.35.0, and the course's is v1.36.3", "Package a new box")


def test_an_unknown_error_is_told_in_vagrants_own_words_on_one_line() -> None:
    said = [Line("", "ui", ("error", "first")), Line("", "error-exit", ("Vagrant::Errors::Odd", "It went\nwrong  here"))]
    assert says.trouble(said) is None
    assert says.last_words(said) == "It went wrong here"
    assert says.last_words(said[:1]) == "first"
    assert says.last_words([]) == "it said nothing"


def test_an_error_that_vagrant_did_not_catch_is_told_in_rubys_words() -> None:
    what = "Call to virDomainSnapshotCreateXML failed: internal snapshots of a VM with pflash based firmware are not supported"
    raw = [
        f"/usr/share/rubygems-integration/all/gems/libvirt/domain.rb:12:in `snapshot_create_xml': {what} (Libvirt::Error)",
        "\tfrom /usr/lib/ruby/vendor_ruby/vagrant/action/warden.rb:48:in `call'",
    ]
    assert says.last_words([], raw) == f"{what} (Libvirt::Error)"


def test_the_end_of_what_a_machine_said_can_be_shown() -> None:
    said = [Line("cp", "ui", ("detail", f"line {number}\n\nmore")) for number in range(3)] + [Line("", "ui", ("info", "not the machine"))]
    assert says.tail(said, 3) == ["cp: more", "cp: line 2", "cp: more"]
