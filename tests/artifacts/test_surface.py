"""What `lab_utils.artifacts` offers to the rest of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab_utils import artifacts
from lab_utils.artifacts import gobuild, programs, space, store
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import pinned
from lab_utils.errors import HostLacks
from lab_utils.paths import root_cache_dir
from lab_utils.progress import Silent
from lab_utils.run import follow
from tests.artifacts.conftest import Mirror, Told


def entry(kind: str, name: str) -> Path:
    place = root_cache_dir() / kind / name
    with store.making(place) as part:
        (part / "root").mkdir()
        (part / "root" / "file").write_text(name)
        store.finish(place, Provenance(kind, name, "build"), tree=True)
    return place


def test_pruning_keeps_what_is_current_and_what_a_cluster_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    current, used, old = (entry("noderoot", name) for name in ("current", "used", "old"))
    images = entry("imagestore", "current")
    monkeypatch.setattr(artifacts, "node_root", lambda progress: current / "root")
    monkeypatch.setattr(artifacts, "image_store", lambda progress: images / "root")
    assert artifacts.prune([used / "root"], Silent()) == 1
    assert [place.exists() for place in (current, used, old, images)] == [True, True, False, True]
    assert [one.version for one in artifacts.provenance()] == ["current", "current", "used"]


def test_a_disk_with_too_little_room_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "BUILD_GB", 1e9)
    with pytest.raises(HostLacks, match=r"has .* GB free, and what a first cluster needs takes .* GB.*Make room"):
        artifacts.prepare(Silent())


def test_ctrl_c_ends_what_another_thread_downloads_and_nothing_begins_after_it(
    mirror: Mirror, own_cache: Path, monkeypatch: pytest.MonkeyPatch, told: Told
) -> None:
    """Ctrl-C reaches the main thread alone. Here the other of the two threads stands for it, once a download is on its way."""
    wanted = ("kubelet", "kubeadm")
    paths = [f"/dl.k8s.io/release/{pinned().program(name).version}/bin/linux/{programs.arch()}/{name}" for name in wanted]
    mirror.endless.update(paths)
    monkeypatch.setattr(space, "check", lambda: None)
    monkeypatch.setattr(programs, "NODE_PROGRAMS", wanted)
    monkeypatch.setattr(programs, "cni_plugins", tuple)
    monkeypatch.setattr(artifacts.images, "to_build", lambda images, progress: [])
    built: list[object] = []
    monkeypatch.setattr(gobuild, "build", lambda wanted, out, progress: built.append(wanted))

    def ctrl_c(build: object, progress: object) -> None:
        mirror.begun.wait(30)
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "_debian", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        artifacts.prepare(told)
    assert mirror.asked == paths[:1], "the second program is not begun"
    assert built == []
    assert list(own_cache.rglob("*.part")) == []
    assert follow(["true"], told.note) == 0, "the next call finds nothing ended"


def test_the_core_images_are_those_that_kubeadm_asks_for_and_more() -> None:
    wanted = ["kube-apiserver:v1.36.3", "kube-controller-manager:v1.36.3", "kube-scheduler:v1.36.3", "kube-proxy:v1.36.3"]
    wanted += ["coredns/coredns:v1.14.2", "pause:3.10.2", "etcd:3.6.8-0"]
    assert {f"registry.k8s.io/{name}" for name in wanted} < set(artifacts.CORE_IMAGES)
