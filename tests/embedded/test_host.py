"""What can be told of a kernel without being root."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_utils.embedded.host import seems_to_lack

BUILTIN = "kernel/net/bridge/bridge.ko\nkernel/net/netfilter/nf_tables.ko\n"
LOADABLE = """kernel/drivers/net/veth.ko.zst:
kernel/fs/overlayfs/overlay.ko.zst:
kernel/drivers/net/vxlan/vxlan.ko.zst: kernel/net/ipv6/ip6_udp_tunnel.ko.zst
kernel/net/bridge/br_netfilter.ko.zst:
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    folder = tmp_path / "6.1.0"
    folder.mkdir()
    (folder / "modules.builtin").write_text(BUILTIN)
    (folder / "modules.dep").write_text(LOADABLE)
    return folder


def test_what_is_built_in_or_can_be_loaded_is_not_missing(modules: Path, tmp_path: Path) -> None:
    assert seems_to_lack(modules, tmp_path) == []


def test_what_is_neither_is_named_unless_it_is_loaded_all_the_same(modules: Path, tmp_path: Path) -> None:
    (modules / "modules.dep").write_text(LOADABLE.replace("/vxlan.ko", "/other.ko").replace("/br_netfilter.ko", "/br_other.ko"))
    assert seems_to_lack(modules, tmp_path) == ["VXLAN devices", "netfilter for bridges (br_netfilter)"]
    (tmp_path / "vxlan").mkdir()
    assert seems_to_lack(modules, tmp_path) == ["netfilter for bridges (br_netfilter)"]


def test_where_a_kernel_has_no_folder_of_modules_nothing_is_claimed(tmp_path: Path) -> None:
    assert seems_to_lack(tmp_path / "missing", tmp_path) == []
