"""A cluster that would not fit is refused before anything of it is made, and errors keep their kind on the way through sudo."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from lab_utils import errors
from lab_utils.embedded.privileged import rebuilt
from lab_utils.errors import CommandFailed, HostLacks, LabError, Unhealthy
from lab_utils.providers import embedded

Usage = namedtuple("Usage", "total used free")


def test_too_little_memory_is_said_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MEGABYTES_PER_NODE", 10**9)
    with pytest.raises(HostLacks, match=r"3 nodes need about 3000000000 MB of memory.*--workers 0"):
        embedded.check_room(3)


def test_a_full_disk_is_said_with_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100, 100, 0))
    with pytest.raises(HostLacks, match=r"of disk are needed below /var/lib.*lab down --all"):
        embedded.check_room(1)


@pytest.mark.parametrize("kind", [HostLacks, Unhealthy, errors.Busy, errors.NoSuchCluster, LabError])
def test_an_error_from_behind_sudo_is_the_same_error(kind: type[LabError]) -> None:
    error = rebuilt(kind, {"what": "the what", "mend": "the mend"})
    assert type(error) is kind
    assert (str(error), error.exit_code) == ("the what. the mend", kind.exit_code)


def test_an_error_with_a_shape_of_its_own_keeps_its_words() -> None:
    error = rebuilt(CommandFailed, {"what": "`kubeadm init` ended with code 1", "mend": ""})
    assert (str(error), error.exit_code) == ("`kubeadm init` ended with code 1", 2)


def test_the_smallest_cluster_fits_here(tmp_path: Path) -> None:
    embedded.check_room(1)
