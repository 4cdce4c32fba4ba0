"""One settings file for Vagrant and for `lab`."""

from __future__ import annotations

import ipaddress
from dataclasses import asdict
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab_utils.errors import BadInput
from lab_utils.paths import repo_dir
from lab_utils.vagrant.settings import ARCHITECTURES, PROVIDERS, Settings, addresses, free_network, read

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
        ("boxes: {amd64: {virtualbox: 5}}", "boxes is not a table"),
        ("boxes: {amd64: {hyperv: course}}", "boxes is not a table"),
        ("patience: .nan", "patience is nan. It takes a number from 1 to 100"),
        ("patience: 1000", "patience is 1000"),
        ("boot_timeout: .inf", "boot_timeout is inf. It takes a number from 10 to 86400"),
        ("boot_timeout: true", "boot_timeout is True"),
        ("worker: {cpus: 2, memory: 99999999999}", "worker has 99999999999 for memory"),
        ("box: [course]", "box is ['course']"),
        (r'box: "two\nlines"', r"box is 'two\nlines'"),
        ("network: !!bytes x", "mine.yaml, line 1 is not YAML"),
        ("box_version: 2026-02-30", "mine.yaml holds a value that cannot be read"),
        ("workers: !!int ''", "mine.yaml holds a value that cannot be read"),
        ("workers: 0x" + "f" * 20000, "workers is a very long number"),
        ("worker: " + "[" * 5000, "mine.yaml"),
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


def test_a_version_may_look_like_a_number_or_a_day() -> None:
    assert read(COURSE, ("mine.yaml", "box_version: 12.5\n")).box_version == "12.5"
    assert read(COURSE, ("mine.yaml", "box_version: 2026-11-29\n")).box_version == "2026-11-29"


def test_nothing_may_be_said_of_boxes_and_of_words() -> None:
    course = read(COURSE, ("mine.yaml", "boxes:\nprovider:\nbox:\n"))
    assert (course.provider, course.box) == ("", "")
    with pytest.raises(BadInput, match="the settings name no amd64 box for libvirt"):
        course.box_for("amd64", "libvirt")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
words = st.sampled_from([*Settings.__dataclass_fields__, *ARCHITECTURES, *PROVIDERS, "cpus", "memory", "192.168.57.0/24", "cluster"])
values = st.recursive(
    scalars | words | st.integers(0, 2000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | scalars, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(words, values, max_size=4).map(yaml.safe_dump)
    | st.text(max_size=40)
    | st.text(alphabet="!&*{}[]:,-<'\"\n intabol0x.", max_size=30)
)
def test_whatever_a_file_holds_it_is_settings_or_refused_in_one_line(text: str) -> None:
    try:
        found = read(COURSE, ("mine.yaml", text))
    except BadInput as refused:
        assert "\n" not in str(refused) and len(str(refused)) < 1000
        return
    assert found.memory(5) >= 6 * 1024 and found.boot_timeout >= 10 and 1 <= found.patience <= 100
    written: dict[str, Any] = yaml.safe_load(yaml.safe_dump(asdict(found)))
    assert read(("again.yaml", yaml.safe_dump(written))) == found
    for architecture in ARCHITECTURES:
        for provider in PROVIDERS:
            try:
                assert found.box_for(architecture, provider)
            except BadInput:
                continue
