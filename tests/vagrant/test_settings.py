"""One settings file for Vagrant and for `lab`."""

from __future__ import annotations

import ipaddress

import pytest

from lab_utils.errors import BadInput
from lab_utils.paths import repo_dir
from lab_utils.vagrant.settings import ARCHITECTURES, PROVIDERS, addresses, debian_architecture, free_network, read

COURSE = ("settings.yaml", (repo_dir() / "vagrant" / "settings.yaml").read_text())


def test_the_course_names_a_box_for_every_provider_and_architecture() -> None:
    course = read(COURSE)
    assert all(course.box_for(architecture, provider) for architecture in ARCHITECTURES for provider in PROVIDERS)


def test_a_users_file_changes_only_what_it_says() -> None:
    course, own = read(COURSE), read(COURSE, ("mine.yaml", "worker: {memory: 3000}\nprovider: libvirt\n"))
    assert own.worker == {"cpus": course.worker["cpus"], "memory": 3000}
    assert own.provider == "libvirt"
    assert (own.control_plane, own.boxes, own.workers) == (course.control_plane, course.boxes, course.workers)


def test_one_box_stands_for_all() -> None:
    own = read(COURSE, ("mine.yaml", "box: course.box\n"))
    assert {own.box_for(architecture, provider) for architecture in ARCHITECTURES for provider in PROVIDERS} == {"course.box"}


def test_an_empty_file_changes_nothing() -> None:
    assert read(COURSE, ("mine.yaml", "# nothing yet\n")) == read(COURSE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("boxen: {}", "mine.yaml has a setting 'boxen' that does not exist. Did you mean boxes?"),
        ("provider: hyperv", "there is no VM provider 'hyperv'"),
        ("worker: {memory: 512}", "worker has 512 MB of memory"),
        ("worker: {memory: lots}", "Write it as {cpus: 2, memory: 2048}"),
        ("control_plane: 2", "control_plane is 2"),
        ("workers: 6", "from 0 to 5"),
        ("workers: yes", "from 0 to 5"),
        ("packaged: maybe", "true or false"),
        ("patience: 0.5", "patience is 0.5"),
        ("boot_timeout: soon", "boot_timeout is 'soon'"),
        ("network: 10.0.0.0/24", "not a /24 within 192.168.56.0/21"),
        ("network: 192.168.56.0/22", "not a /24 within 192.168.56.0/21"),
        ("network: here", "'here' is no network"),
        ("boxes: {x86: {}}", "boxes is not a table"),
        ("- 1", "holds list and no settings"),
        ("a: [", "mine.yaml, line 2 is not YAML"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(text: str, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(COURSE, ("mine.yaml", text + "\n"))
    assert said in str(refused.value)


def test_the_first_network_that_overlaps_with_nothing_is_free() -> None:
    assert free_network([]) == ipaddress.ip_network("192.168.56.0/24")
    assert free_network(["192.168.56.1/24", "10.0.0.1/8", "fe80::1/64"]) == ipaddress.ip_network("192.168.57.0/24")
    assert free_network(["192.168.56.0/22"]) == ipaddress.ip_network("192.168.60.0/24")
    with pytest.raises(BadInput, match="no /24 within"):
        free_network(["192.168.0.0/16"])


def test_nodes_have_addresses_as_the_vagrantfile_counts_them() -> None:
    network = ipaddress.IPv4Network("192.168.57.0/24")
    assert addresses(network, 2) == {"cp": "192.168.57.10", "w1": "192.168.57.11", "w2": "192.168.57.12"}
    assert addresses(network, 0) == {"cp": "192.168.57.10"}


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("AMD64", "amd64"), ("arm64", "arm64"), ("aarch64", "arm64")])
def test_systems_call_processors_differently(machine: str, name: str) -> None:
    assert debian_architecture(machine) == name


def test_another_processor_is_refused() -> None:
    with pytest.raises(BadInput, match="riscv64"):
        debian_architecture("riscv64")
