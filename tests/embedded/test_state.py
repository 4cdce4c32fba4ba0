"""Root's record of a cluster, and the locks around it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lab_utils.embedded import state
from lab_utils.embedded.state import State
from lab_utils.progress import Silent


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))


def record(name: str = "lab") -> State:
    return State(name, 1, "172.31.64.0/24", ["cp"], "", "", "token")


def test_a_record_with_a_key_and_a_token_is_for_root_alone() -> None:
    known = record()
    known.folder.mkdir(parents=True)
    (known.folder / "state.json.new").write_text("of a command that was killed, and open to all")
    known.save()
    assert stat.S_IMODE((known.folder / "state.json").stat().st_mode) == 0o600
    assert state.load("lab") == known


def test_a_forgotten_cluster_counts_no_more_while_its_folder_is_still_there() -> None:
    known = record()
    known.save()
    known.forget()
    assert state.all_states() == [] and state.load("lab") is None
    assert known.folder.is_dir()


def test_a_record_of_another_boot_is_told_from_one_of_this() -> None:
    known = record()
    assert known.of_this_boot, "written before boots were noted"
    known.boot = state.boot_id()
    assert known.of_this_boot
    known.boot = "another"
    assert not known.of_this_boot


def test_no_clusters_name_makes_its_lock_the_hosts() -> None:
    with state.locked("host", Silent()), state.locked("lock", Silent()), state.host_lock():
        pass
