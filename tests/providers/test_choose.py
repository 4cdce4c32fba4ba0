"""Which provider is taken when nobody chose: never one that may turn out not to run, where another surely does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils import providers
from lab_utils.artifacts import debian
from lab_utils.errors import HostLacks
from lab_utils.providers import Usability, choose, embedded, in_order

SURE = {"usable": True, "doubtful": False}
DOUBTFUL = {"usable": True, "doubtful": True}
NO = {"usable": False, "doubtful": False}


class One:
    def __init__(self, name: str, usable: bool, doubtful: bool) -> None:
        self.found = Usability(name, usable, "why it is so", doubtful=doubtful)

    def usability(self) -> Usability:
        return self.found


@pytest.mark.parametrize(
    ("embedded", "kind", "kubeconfig", "chosen", "advised"),
    [
        (SURE, SURE, NO, "embedded", "embedded"),
        (DOUBTFUL, SURE, NO, "kind", "kind"),
        (DOUBTFUL, NO, NO, "embedded", "embedded"),
        (DOUBTFUL, NO, SURE, "embedded", "embedded"),
        (NO, SURE, SURE, "kind", "kind"),
        (NO, NO, SURE, "", "kubeconfig"),
    ],
)
def test_the_best_of_those_that_can_run(
    embedded: dict[str, bool],
    kind: dict[str, bool],
    kubeconfig: dict[str, bool],
    chosen: str,
    advised: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = {"embedded": embedded, "kind": kind, "vagrant": NO, "kubeconfig": kubeconfig}
    monkeypatch.setattr(providers, "provider", lambda name: One(name, **states[name]))
    if chosen:
        assert choose() == chosen
    else:
        with pytest.raises(HostLacks, match="no provider can run here; embedded: why it is so; kind: why it is so"):
            choose()
    assert in_order(One(name, **state).found for name, state in states.items())[0].name == advised


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody who is not root, on a machine that has all that is needed. The folder of its programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in embedded.NEEDED:
        (folder / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(embedded, "seems_to_lack", list)
    monkeypatch.setattr(debian, "lacking", dict)
    monkeypatch.setattr(embedded, "groups", lambda: {"users"})
    return folder


def sudo(folder: Path, code: int) -> None:
    (folder / "sudo").write_text(f'#!/bin/sh\n[ "$*" = "-n true" ] && exit {code}\nexit 99\n')
    (folder / "sudo").chmod(0o755)


def test_whoever_may_use_sudo_without_a_password_may_use_it(user: Path) -> None:
    sudo(user, 0)
    assert embedded.PROVIDER.usability() == Usability("embedded", True, "Linux namespaces, a kubeadm cluster in well under a minute")


@pytest.mark.parametrize("group", ["sudo", "wheel", "admin"])
def test_so_may_a_member_of_the_group_for_it(group: str, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sudo(user, 1)
    monkeypatch.setattr(embedded, "groups", lambda: {"users", group})
    assert not embedded.PROVIDER.usability().doubtful


def test_of_anybody_else_it_is_said_that_it_may_not_work(user: Path) -> None:
    sudo(user, 1)
    said = embedded.PROVIDER.usability()
    assert (said.usable, said.doubtful) == (True, True)
    assert "sudo may not let this user" in said.why and "sudo true" in said.mend


def test_without_sudo_it_cannot_run(user: Path) -> None:
    assert embedded.PROVIDER.usability().why == "it needs root, and there is no sudo"


def test_this_users_groups_have_names() -> None:
    """As id(1) tells them, in a process that has them for sure."""
    script = "from lab_utils.providers.embedded import groups; print(*groups())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    ids = subprocess.run(["id", "-Gn"], capture_output=True, text=True)  # its code is 1 where a group has no name
    assert set(said.stdout.split()) == {group for group in ids.stdout.split() if not group.isdigit()} != set()
