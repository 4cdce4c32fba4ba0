"""Node roots of older versions go when they are told to, but never from under a cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_utils import artifacts
from lab_utils.artifacts import store
from lab_utils.artifacts.store import Provenance
from lab_utils.cluster import Cluster
from lab_utils.embedded import state
from lab_utils.embedded.host import mounted_over
from lab_utils.paths import root_cache_dir
from tests.conftest import EMBEDDED, Said

pytestmark = [pytest.mark.cluster, EMBEDDED, pytest.mark.skipif(os.geteuid() != 0, reason="node roots belong to root")]


@pytest.fixture
def old() -> Iterator[list[Path]]:
    """Two entries of the cache as an older version would have left them."""
    places = [root_cache_dir() / kind / f"older-{os.getpid()}" for kind in ("noderoot", "imagestore")]
    for place in places:
        with store.making(place) as part:
            (part / "file").write_text("old")
            store.finish(place, Provenance("old", "0", "build"))
    yield places
    for place in places:
        store.remove(place)


def test_what_no_cluster_stands_on_is_removed_and_the_rest_is_kept(cluster: Cluster, old: list[Path]) -> None:
    known = state.load(cluster.name)
    assert known
    needed = [Path(known.lower), Path(known.store), *mounted_over(root_cache_dir() / "noderoot")]
    others = [one for kind in ("noderoot", "imagestore") for one in (root_cache_dir() / kind).glob("*.json")]
    others = [path.with_suffix("") for path in others if path.with_suffix("") not in old]
    assert artifacts.prune([*needed, *(place / "root" for place in [old[0], *others])], Said()) == 1
    assert old[0].exists() and not old[1].exists()
    assert all(path.exists() for path in needed)


def test_the_kernel_tells_which_node_roots_are_in_use(cluster: Cluster) -> None:
    known = state.load(cluster.name)
    assert known
    assert Path(known.lower) in mounted_over(root_cache_dir() / "noderoot")
