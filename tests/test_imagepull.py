"""Where an image comes from that not every cluster has: the cache, the nodes' own pull, or a build as root."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab_utils import imagepull
from lab_utils.artifacts import images, registry
from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster, ClusterRecord, Node, NodeRecord
from lab_utils.errors import CommandFailed, HostLacks, NoNodeAccess
from lab_utils.progress import Silent
from lab_utils.run import Result

METRICS = pinned().image("metrics-server").name
OWN = pinned().image("bird").name


class Listening(Node):
    """A node that writes down what it is told."""

    def __init__(self, name: str, *, has: str = "", reachable: bool = True) -> None:
        super().__init__(NodeRecord(name, "192.0.2.1", "worker"))
        self.heard: list[Sequence[str]] = []
        self.has = has
        self.answers = self.reachable = reachable

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        if not self.answers:
            raise NoNodeAccess("no access")
        if cmd == "crictl images -o json":
            if self.has == "no crictl":
                raise CommandFailed(["crictl"], 127, "", "crictl: command not found")
            return Result(json.dumps({"images": [{"repoTags": None}, {"repoTags": [self.has]}] if self.has else None}), "", 0)
        self.heard.append(cmd)
        return Result("", "", 0)

    def put(self, source: Path | bytes, target: str, mode: int = 0o644) -> None:
        raise AssertionError("nothing is copied")

    def get(self, source: str) -> bytes:
        raise AssertionError("nothing is read")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the machine has and what of it was used; tests change the first."""
    seen: dict[str, Any] = {"cached": None, "registry": set(), "loaded": [], "asked root": [], "nodes": {"w1": "amd64"}}

    def get(cluster: Cluster, *words: str) -> dict[str, Any]:
        assert words == ("nodes",)
        nodes = seen["nodes"].items()
        return {"items": [{"metadata": {"name": name}, "status": {"nodeInfo": {"architecture": its}}} for name, its in nodes]}

    class Loads:
        def load(self, record: ClusterRecord, archive: Path, progress: object) -> None:
            seen["loaded"].append(str(archive))

    def perform(operation: str, request: dict[str, Any], progress: object) -> dict[str, Any]:
        seen["asked root"].append((operation, request["name"]))
        return {"archive": "/cache/built.tar"}

    monkeypatch.setattr(images, "find", lambda image, progress: seen["cached"])
    monkeypatch.setattr(registry, "answering", lambda names: seen["registry"] & set(names))
    monkeypatch.setattr(imagepull, "provider", lambda name: Loads())
    monkeypatch.setattr(imagepull, "perform", perform)
    monkeypatch.setattr(imagepull, "arch", lambda: "amd64")
    monkeypatch.setattr(Cluster, "get", get)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    return seen


def cluster(provider: str, *nodes: Node) -> Cluster:
    return Cluster(ClusterRecord("lab", provider, "up", "", []), nodes)


def test_what_lies_in_the_cache_is_loaded(world: dict[str, Any]) -> None:
    world |= {"cached": Path("/cache/metrics"), "registry": {METRICS}}
    imagepull.pull(cluster("vagrant"), METRICS, Silent())
    assert world["loaded"] == ["/cache/metrics/metrics-server.tar"] and not world["asked root"]


def test_nodes_pull_what_a_registry_has_and_nobody_needs_root_for_it(world: dict[str, Any]) -> None:
    world["registry"] = {METRICS}
    nodes = [Listening("w1"), Listening("w2")]
    imagepull.pull(cluster("kind", *nodes), "metrics-server", Silent())
    assert [node.heard for node in nodes] == [[["crictl", "pull", METRICS]]] * 2
    assert not world["loaded"] and not world["asked root"]


def test_nodes_out_of_reach_pull_by_themselves_later(world: dict[str, Any]) -> None:
    world["registry"] = {METRICS}
    imagepull.pull(cluster("kubeconfig", Listening("w1", reachable=False)), METRICS, Silent())
    world["cached"] = Path("/cache/metrics")  # even where it could be loaded, if there were a way
    imagepull.pull(cluster("kubeconfig", Listening("w1", reachable=False)), METRICS, Silent())
    assert not world["loaded"] and not world["asked root"]


@pytest.mark.parametrize(("provider", "name"), [("embedded", METRICS), ("vagrant", OWN), ("kind", OWN)])
def test_what_is_built_here_is_built_by_root_through_the_one_door(provider: str, name: str, world: dict[str, Any]) -> None:
    world["registry"] = {METRICS}
    imagepull.pull(cluster(provider, Listening("w1")), name, Silent())
    assert world["asked root"] == [("image", name)] and world["loaded"] == ["/cache/built.tar"]


def test_where_it_cannot_be_built_that_is_said_with_the_way_out(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(HostLacks, match=r"is not here, and is built on Linux alone.*bring bird.tar of its cache here \(lab load FILE\)"):
        imagepull.pull(cluster("vagrant", Listening("w1")), OWN, Silent())


@pytest.mark.parametrize("image", [METRICS, OWN])
def test_what_every_node_has_is_not_asked_for_again(image: str, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """So `lab load FILE`, which we advise where an image cannot be built, helps."""
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    nodes = [Listening("cp", has=image), Listening("w1", has=image)]
    imagepull.pull(cluster("kind", *nodes), image, Silent())
    assert not world["loaded"] and not world["asked root"] and [node.heard for node in nodes] == [[], []]
    with pytest.raises(HostLacks, match="is not here"):
        imagepull.pull(cluster("kind", nodes[0], Listening("w1", has="docker.io/other:1")), image, Silent())


def test_a_node_that_cannot_tell_what_it_has_is_given_it(world: dict[str, Any]) -> None:
    world["cached"] = Path("/cache/metrics")
    imagepull.pull(cluster("kubeconfig", Listening("w1", has="no crictl")), METRICS, Silent())
    assert world["loaded"] == ["/cache/metrics/metrics-server.tar"]


class TestAnotherArchitecture:
    """This machine is amd64."""

    def test_nodes_get_their_image_from_its_registry_and_none_of_ours(self, world: dict[str, Any]) -> None:
        world |= {"cached": Path("/cache/metrics"), "nodes": {"w1": "amd64", "w2": "arm64"}}
        nodes = [Listening("w1"), Listening("w2")]
        imagepull.pull(cluster("kubeconfig", *nodes), METRICS, Silent())
        assert [node.heard for node in nodes] == [[["crictl", "pull", METRICS]]] * 2 and not world["loaded"]

    def test_the_courses_own_are_refused_in_one_line(self, world: dict[str, Any]) -> None:
        world |= {"cached": Path("/cache/bird"), "nodes": {"w1": "arm64"}}
        expected = rf"^node w1 is arm64, and the image {OWN}, which no registry has, would be built here for amd64\. Build it on"
        with pytest.raises(HostLacks, match=expected + r" a Linux machine that is arm64 .*lab load FILE"):
            imagepull.pull(cluster("kubeconfig", Listening("w1")), OWN, Silent())
        assert not world["loaded"] and not world["asked root"]

    def test_unless_somebody_brought_them(self, world: dict[str, Any]) -> None:
        world["nodes"] = {"w1": "arm64"}
        imagepull.pull(cluster("kubeconfig", Listening("w1", has=OWN)), OWN, Silent())
        assert not world["loaded"]

    def test_bare_nodes_are_not_asked_by_an_api_that_is_not_there(self, world: dict[str, Any]) -> None:
        world |= {"cached": Path("/cache/bird"), "nodes": None}
        bare = Cluster(ClusterRecord("lab", "vagrant", "up", "", [], options={"bare": True}), [Listening("w1")])
        imagepull.pull(bare, OWN, Silent())
        assert world["loaded"] == ["/cache/bird/bird.tar"]
