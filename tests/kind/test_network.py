"""flannel, which kind's node image has not: kept by Docker, so that a cluster can be made anew without a registry. Docker is a stand-in;
test_docker.py has the real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from lab_utils.artifacts import images
from lab_utils.artifacts.machine import arch
from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import ClusterRecord, Node
from lab_utils.embedded import kubeadm
from lab_utils.errors import CommandFailed, HostLacks
from lab_utils.kind import bootstrap
from lab_utils.progress import Silent
from lab_utils.run import Result

FLANNEL, PLUGIN = (pinned().image(key).name for key in kubeadm.FLANNEL_IMAGES)


class Machine:
    def images(self) -> set[str]:
        raise NotImplementedError


NODES = [cast(Node, Machine())]


class Docker:
    """A daemon with a store of images, and a way to their registry or none."""

    def __init__(self, *has: str) -> None:
        self.has, self.online, self.saves, self.pulled = set(has), True, True, list[str]()

    def has_image(self, name: str) -> bool:
        return name in self.has

    def docker(self, *words: str, check: bool = True, timeout: float = 60) -> Result:
        if words[0] == "pull":
            if not self.online:
                return Result("", "Error response from daemon: no route to host\n", 1)
            self.pulled.append(words[-1])
            self.has.add(words[-1])
        elif not self.saves:
            raise CommandFailed(["docker", *words], 1, "", "no space left on device")
        else:
            assert words[:2] == ("save", "--output") and self.has >= set(words[3:])
            Path(words[2]).write_text(" ".join(words[3:]))
        return Result("", "", 0)


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker()
    monkeypatch.setattr("lab_utils.kind.docker.has_image", made.has_image)
    monkeypatch.setattr("lab_utils.kind.docker.docker", made.docker)
    return made


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Keys of what lies in this machine's cache."""
    there: set[str] = set()
    monkeypatch.setattr(images, "find", lambda image, progress: Path("/cache") if image.key in there else None)
    return there


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ClusterRecord:
    monkeypatch.setenv("LAB_STATE", str(tmp_path))
    made = ClusterRecord("lab", "kind", "up", "", [])
    made.save()
    return made


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What nodes have, and what was loaded on them."""
    seen: dict[str, Any] = {"there": set(), "loaded": []}

    def load(nodes: Sequence[Node], archive: Path) -> None:
        seen["loaded"].append(archive.read_text())

    monkeypatch.setattr(Machine, "images", lambda node: seen["there"])
    monkeypatch.setattr(bootstrap, "load", load)
    return seen


def test_what_lies_in_the_cache_needs_no_docker(docker: Docker, cached: set[str], record: ClusterRecord) -> None:
    cached |= set(kubeadm.FLANNEL_IMAGES)
    docker.online = False
    assert bootstrap.keep_network(record, Silent()) is None


def test_a_cache_of_another_architecture_does(docker: Docker, cached: set[str], record: ClusterRecord) -> None:
    cached |= set(kubeadm.FLANNEL_IMAGES)
    other = "arm64" if arch() == "amd64" else "amd64"
    bootstrap.keep_network(record.but(options={"architecture": other}), Silent())
    assert docker.pulled == [FLANNEL, PLUGIN]


def test_what_docker_has_needs_no_registry(docker: Docker, cached: set[str], record: ClusterRecord) -> None:
    docker.has, docker.online = {FLANNEL, PLUGIN}, False
    archive = bootstrap.keep_network(record, Silent())
    assert archive and archive.parent == record.folder and archive.read_text() == f"{FLANNEL} {PLUGIN}"


def test_what_neither_has_is_said(docker: Docker, cached: set[str], record: ClusterRecord) -> None:
    docker.has, docker.online = {FLANNEL}, False
    with pytest.raises(HostLacks, match=rf"^the image {PLUGIN}, .* cannot be had: Error .*: no route to host\. Let Docker"):
        bootstrap.keep_network(record, Silent())


def test_nodes_that_lack_it_get_it_and_the_archive_goes(
    docker: Docker, cached: set[str], record: ClusterRecord, loaded: dict[str, Any]
) -> None:
    cached.add("flannel")
    loaded["there"] = {FLANNEL}
    bootstrap.load_network(record, NODES, Silent())
    assert loaded["loaded"] == [PLUGIN] and docker.pulled == [PLUGIN] and not (record.folder / bootstrap.NETWORK).exists()


def test_what_a_reset_put_by_is_used(docker: Docker, cached: set[str], record: ClusterRecord, loaded: dict[str, Any]) -> None:
    bootstrap.keep_network(record, Silent())
    docker.has, docker.online = set(), False
    bootstrap.load_network(record, NODES, Silent())
    assert loaded["loaded"] == [f"{FLANNEL} {PLUGIN}"]


def test_nodes_that_have_it_are_left_alone(docker: Docker, cached: set[str], record: ClusterRecord, loaded: dict[str, Any]) -> None:
    loaded["there"] = {FLANNEL, PLUGIN, "docker.io/other:1"}
    bootstrap.load_network(record, NODES, Silent())
    assert not loaded["loaded"] and not docker.pulled


@pytest.mark.parametrize("failing", ["online", "saves"])
def test_a_first_up_leaves_the_rest_to_the_nodes(
    failing: str, docker: Docker, cached: set[str], record: ClusterRecord, loaded: dict[str, Any]
) -> None:
    """They may have a way to a registry that Docker has not."""
    setattr(docker, failing, False)
    told: list[str] = []

    class Told(Silent):
        def note(self, what: str) -> None:
            told.append(what)

    bootstrap.load_network(record, NODES, Told())
    assert not loaded["loaded"] and told[0].endswith("; the nodes have to pull it")
