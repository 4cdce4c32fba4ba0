"""Which machines and disks are a cluster's, by their names alone."""

from __future__ import annotations

from lab_utils.vagrant.leftovers import addresses_of, backing_of, box_volume_prefix, has_machines, is_machine, virtualbox_machines
from lab_utils.vagrant.settings import free_network


def test_a_machine_belongs_to_the_cluster_of_its_whole_name() -> None:
    assert is_machine("lab", "kio-lab-cp") and is_machine("lab", "kio-lab-w2")
    assert not is_machine("lab", "kio-lab-2-cp"), "that one is of the cluster lab-2"
    assert not is_machine("lab", "kio-lab") and not is_machine("lab", "lab-cp")


def test_the_boxs_disk_has_the_name_that_vagrant_libvirt_gives_it() -> None:
    # Recorded: the volume of box kio/test, version 0, made by vagrant-libvirt 0.11.2.
    assert "kio-VAGRANTSLASH-test_vagrant_box_image_0_1795262349_box.img".startswith(box_volume_prefix("kio/test"))


def test_a_disk_that_others_lie_over_is_in_use() -> None:
    xml = """<volume type='file'><name>kio-lab-cp.img</name><target><path>/var/lib/libvirt/images/kio-lab-cp.img</path></target>
    <backingStore><path>/var/lib/libvirt/images/course_vagrant_box_image_0_box.img</path><format type='qcow2'/></backingStore></volume>"""
    assert backing_of(xml) == {"course_vagrant_box_image_0_box.img"}
    assert backing_of("<volume><name>course</name></volume>") == set()


def test_a_network_says_how_many_machines_are_on_it() -> None:
    assert has_machines("<network connections='2'><name>vagrant-libvirt</name></network>")
    assert not has_machines("<network><name>vagrant-libvirt</name></network>")
    assert not has_machines(""), "it went away meanwhile"


def test_a_network_says_which_addresses_it_has_also_before_it_is_started() -> None:
    xml = """<network><name>other</name><bridge name='virbr1'/><ip address='192.168.56.1' netmask='255.255.255.0'><dhcp/></ip>
    <ip family='ipv6' address='fd00::1' prefix='64'/><ip address='192.168.57.1' prefix='25'/></network>"""
    assert addresses_of(xml) == ["192.168.56.1/255.255.255.0", "192.168.57.1/25"]
    assert str(free_network(addresses_of(xml))) == "192.168.58.0/24"
    assert addresses_of("") == [], "it went away meanwhile"


def test_virtualbox_lists_machines_by_name_and_id() -> None:
    said = '"kio-lab-cp" {6bf1c52c-7a2f-4a7c-9f2c-0a1b2c3d4e5f}\n"My own machine" {00000000-0000-0000-0000-000000000000}\n'
    assert virtualbox_machines(said) == ["kio-lab-cp", "My own machine"]
