"""Building in a cache that belongs to a user, as under sudo. The go command is a script that writes where the real one does."""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_utils.artifacts import programs
from lab_utils.artifacts.versions import pinned
from tests.artifacts.conftest import Told

# Its last words are -o FOLDER PACKAGE….
GO = """#!/bin/sh
[ "$1" = version ] && echo go version go1.26.8 linux/amd64 && exit
until [ "$1" = -o ]; do shift; done
echo "built by $(id -u)" > "$2/${3##*/}"
"""


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> Iterator[pwd.struct_passwd]:
    """Somebody who is not root, and LAB_CACHE in that user's home; pytest's own folders are closed to others."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "go").write_text(GO)
        (home / "go").chmod(0o755)
        (home / "cache").mkdir()
        os.chown(home / "cache", nobody.pw_uid, nobody.pw_gid)
        monkeypatch.setenv("PATH", str(home), prepend=os.pathsep)
        monkeypatch.setenv("LAB_CACHE", str(home / "cache"))
        monkeypatch.setenv("LAB_SOURCES", "cache,build")
        programs.ways.cache_clear()
        yield nobody


@pytest.mark.skipif(os.geteuid() != 0, reason="only root builds for somebody else")
def test_a_build_behind_sudo_is_the_users_and_so_is_all_that_it_leaves(user: pwd.struct_passwd, told: Told) -> None:
    path = programs.ensure(["metrics-server"], told)["metrics-server"]
    assert path.read_text() == f"built by {user.pw_uid}\n"
    assert programs.provenance_of("metrics-server").version == pinned().program("metrics-server").version
    cache = Path(os.environ["LAB_CACHE"])
    assert {one.lstat().st_uid for one in (cache, *cache.rglob("*"))} == {user.pw_uid}
