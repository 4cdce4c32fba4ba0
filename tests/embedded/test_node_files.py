"""The files in which one node differs from another."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from lab_utils.embedded.cgroups import own_groups
from lab_utils.embedded.node import containerd_config, link_tree, place, remove_tree
from lab_utils.run import run

CONFIG = "  restrict_oom_score_adj = false\n        SystemdCgroup = true\n"


@pytest.mark.parametrize("v2", [True, False])
def test_containerd_uses_systemds_cgroups_on_v2_only(v2: bool) -> None:
    assert f"SystemdCgroup = {str(v2).lower()}" in containerd_config(CONFIG, v2=v2, may_lower_oom=True)


def test_containerd_is_restricted_where_the_capability_is_missing() -> None:
    assert "restrict_oom_score_adj = true" in containerd_config(CONFIG, v2=True, may_lower_oom=False)


def test_a_placed_file_keeps_the_mode_of_the_folders_below(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    (lower / "root").mkdir(parents=True)
    (lower / "root").chmod(0o700)
    upper.mkdir()
    place(upper, lower, "root/.ssh/authorized_keys", "ssh-ed25519 AAAA\n", 0o600)
    assert stat.S_IMODE((upper / "root").stat().st_mode) == 0o700
    assert stat.S_IMODE((upper / "root/.ssh").stat().st_mode) == 0o700
    assert stat.S_IMODE((upper / "root/.ssh/authorized_keys").stat().st_mode) == 0o600


def test_a_placed_file_replaces_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    place(tmp_path / "upper", tmp_path, "etc/machine-id", "one\n", 0o444)
    place(tmp_path / "upper", tmp_path, "etc/machine-id", "two\n", 0o444)
    assert (tmp_path / "upper/etc/machine-id").read_text() == "two\n"


def test_our_own_groups_are_read_for_every_layout() -> None:
    v2 = own_groups("0::/user.slice/user-1000.slice/session-2.scope\n")
    assert v2 == {"": "/user.slice/user-1000.slice/session-2.scope"}
    hybrid = own_groups("9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/\n")
    assert hybrid == {"systemd": "/", "memory": "/a/b", "cpu": "/", "cpuacct": "/", "": "/"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An image store: a file that is shared, and a database that is written to."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "blob").write_text("an image")
    (folder / "meta.db").write_text("a database")
    return folder


def test_a_node_shares_the_image_stores_files_but_for_the_databases(store: Path, tmp_path: Path) -> None:
    link_tree(store, tmp_path / "node")
    assert (tmp_path / "node/blob").samefile(store / "blob")
    assert not (tmp_path / "node/meta.db").samefile(store / "meta.db")
    assert (tmp_path / "node/meta.db").read_text() == "a database"


def test_a_node_on_another_file_system_gets_a_copy(store: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        target = Path(elsewhere, "node")
        if target.parent.stat().st_dev == store.stat().st_dev:
            pytest.skip("temporary files are on the same file system as /dev/shm")
        link_tree(store, target)
        assert {path.name: path.read_text() for path in target.iterdir()} == {"blob": "an image", "meta.db": "a database"}


def test_a_tree_that_is_deeper_than_python_goes_is_removed(tmp_path: Path) -> None:
    run(["sh", "-c", "for i in $(seq 1900); do mkdir d && cd d || exit 1; done"], cwd=tmp_path)
    remove_tree(tmp_path / "d", tmp_path / "never-there")
    assert not list(tmp_path.iterdir())
