"""An entry of the cache is whole, or it is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab_utils.artifacts import store
from lab_utils.artifacts.store import Provenance
from lab_utils.paths import root_cache_dir
from lab_utils.run import end_all
from tests.artifacts.conftest import Told

ONE = Provenance("thing", "1", "build")


def make(place: Path, text: str = "good") -> Provenance:
    with store.making(place) as part:
        (part / "thing").write_text(text)
        return store.finish(place, ONE)


def test_what_was_finished_is_found_with_its_checksum(own_cache: Path, told: Told) -> None:
    made = make(own_cache / "a")
    assert store.find(own_cache / "a", told) == made
    assert made.sha256 == store.sha256(own_cache / "a" / "thing")


def test_what_failed_half_way_is_gone(own_cache: Path, told: Told) -> None:
    with pytest.raises(KeyboardInterrupt), store.making(own_cache / "a") as part:
        (part / "thing").write_text("half")
        raise KeyboardInterrupt
    assert list(own_cache.iterdir()) == []


def test_a_damaged_file_is_found_and_removed(own_cache: Path, told: Told) -> None:
    make(own_cache / "a")
    (own_cache / "a" / "thing").write_text("bad!")
    assert store.find(own_cache / "a", told) is None
    assert "thing in the cache is damaged" in told
    assert list(own_cache.iterdir()) == []


def test_what_is_damaged_and_roots_is_left_to_root(own_cache: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    make(own_cache / "a")
    (own_cache / "a" / "thing").write_text("bad!")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert store.find(own_cache / "a", told) is None
    assert (own_cache / "a" / "thing").exists(), "who may not remove it does not try"


def test_a_shortened_and_a_missing_file_count_as_damage(own_cache: Path, told: Told) -> None:
    for damage in (lambda path: path.write_text(""), Path.unlink):
        make(own_cache / "a")
        damage(own_cache / "a" / "thing")
        assert store.find(own_cache / "a", told) is None


def test_a_file_that_was_only_touched_is_sound(own_cache: Path, told: Told) -> None:
    make(own_cache / "a")
    os.utime(own_cache / "a" / "thing", (1, 1))
    assert store.find(own_cache / "a", told) is not None
    assert not told.lines


def test_a_changed_tree_counts_as_damage(own_cache: Path, told: Told) -> None:
    with store.making(own_cache / "t") as part:
        (part / "etc").mkdir()
        (part / "etc" / "passwd").write_text("root")
        store.finish(own_cache / "t", ONE, tree=True)
    assert store.find(own_cache / "t", told)
    (own_cache / "t" / "etc" / "shadow").write_text("new")
    assert store.find(own_cache / "t", told) is None


def test_a_torn_record_counts_as_absent(own_cache: Path, told: Told) -> None:
    make(own_cache / "a")
    (own_cache / "a.json").write_text('{"component": "th')
    assert store.find(own_cache / "a", told) is None


def test_a_recipe_is_the_same_everywhere_and_differs_by_any_part(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("x")
    assert store.recipe("a", {"y": 1, "x": 2}, file) == store.recipe("a", {"x": 2, "y": 1}, file)
    before = store.recipe(file)
    file.write_text("y")
    assert store.recipe(file) != before
    assert store.recipe("stable", [1, 2]) == "9f2780a84712"  # changes only when every cache on earth may be thrown away


def test_two_commands_at_once_wait_and_say_so(own_cache: Path, told: Told) -> None:
    entered = threading.Event()
    release = threading.Event()

    def other() -> None:
        with store.locked(own_cache / "programs" / "all", Told()):
            entered.set()
            release.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    threading.Timer(0.3, release.set).start()
    started = time.monotonic()
    with store.locked(own_cache / "programs" / "all", told):
        assert time.monotonic() - started > 0.2
    thread.join()
    assert "another `lab` command is making programs/all" in told


def test_ctrl_c_ends_the_waiting_for_another_command(own_cache: Path, told: Told) -> None:
    with store.locked(own_cache / "programs" / "all", Told()), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.locked(own_cache / "programs" / "all", told).__enter__)
        while "waiting for it" not in told:
            time.sleep(0.01)
        end_all()
        with pytest.raises(KeyboardInterrupt):
            waiting.result(10)


def test_ctrl_c_during_a_program_leaves_neither_it_nor_half_an_entry(own_cache: Path) -> None:
    """A real process, a real SIGINT: the followed program is ended with its children, the half-made entry is gone."""
    script = (
        "from pathlib import Path; from lab_utils.artifacts import store; from lab_utils.run import follow\n"
        f"with store.making(Path({str(own_cache / 'a')!r})) as part:\n"
        "    follow(['sh', '-c', 'sleep 60 & echo $! > \"$0\"/pid; echo started; wait', str(part)], lambda line: print(line, flush=True))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        child = int((own_cache / "a.part" / "pid").read_text())
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert list(own_cache.iterdir()) == []
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "zombie" not in Path(f"/proc/{child}/status").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_in_a_users_folder_belongs_to_the_user(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 4242, 4242)
    store.make_dir(home / "cache")
    make(home / "cache" / "a")
    assert {path.lstat().st_uid for path in home.rglob("*")} == {4242}
    make(home / "cache" / "build" / "a")  # the folder that it lies in was not there
    assert {path.lstat().st_uid for path in home.rglob("*")} == {4242}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_only_root_can_make_stays_as_it_was_made_in_a_users_folder_too(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    """LAB_CACHE moves the Debian roots as well. In them files have owners of their own, and chown takes setuid bits away."""
    own_cache.mkdir()
    os.chown(own_cache, 4242, 4242)
    place = root_cache_dir() / "debian" / "bookworm"
    with store.locked(place, told), store.making(place) as part:
        for name, owner in (("su", 0), ("mail", 8)):
            (part / name).touch()
            os.chown(part / name, owner, owner)
        (part / "su").chmod(0o4755)
        store.finish(place, ONE, tree=True)
    assert [(place / name).stat().st_uid for name in ("su", "mail")] == [0, 8]
    assert (place / "su").stat().st_mode & 0o7777 == 0o4755
    assert {path.lstat().st_uid for path in (root_cache_dir(), *root_cache_dir().rglob("*"))} == {0, 8}
