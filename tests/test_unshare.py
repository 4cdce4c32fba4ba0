"""Hosts that confine `unshare`. That such a host runs nodes is seen on a real one: tests/v2."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_utils import unshare


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    unshare.program.cache_clear()
    yield
    unshare.program.cache_clear()


@pytest.mark.parametrize(
    ("profiles", "confined"),
    [
        ("unshare (enforce)\nunshare//unpriv (enforce)\n", True),
        ("docker-default (enforce)\n/usr/bin/unshare (enforce)\n", True),
        ("unshare (complain)\n", False),
        ("unshare (unconfined)\n", False),
        ("unpriv_unshare (enforce)\nunshare-like (enforce)\n", False),
        ("", False),
    ],
)
def test_the_profile_is_known_by_its_name_and_mode(profiles: str, confined: bool) -> None:
    assert unshare.names_it(profiles) is confined


def test_where_nothing_confines_it_it_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unshare, "PROFILES", tmp_path / "there is no AppArmor")
    assert unshare.program() == "unshare"


def test_else_a_copy_of_it_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles").write_text("unshare (enforce)\n")
    monkeypatch.setattr(unshare, "PROFILES", tmp_path / "profiles")
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    program = unshare.program()
    assert Path(program).is_relative_to(tmp_path / "cache")
    assert "util-linux" in subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert [path.name for path in Path(program).parent.iterdir()] == ["unshare"], "nothing of the copying is left"
