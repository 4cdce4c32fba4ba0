"""One real cluster for the whole suite, made when the first test asks for it and removed at the end.

`LAB_TEST_CLUSTER=NAME` uses a cluster that is there already (and leaves it): quicker while a test is written.
`LAB_TEST_PROVIDER=NAME` (make test PROVIDER=NAME) makes it with another provider than the embedded one. With kubeconfig it is the
cluster that KUBECONFIG names.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings

from lab_utils.cluster import Cluster, connect
from lab_utils.errors import LabError
from lab_utils.progress import Progress
from lab_utils.providers import ClusterSpec, provider

PROVIDER = os.environ.get("LAB_TEST_PROVIDER", "embedded")

OWN = pytest.mark.skipif(PROVIDER == "kubeconfig", reason="the cluster is somebody's own: it is neither made, harmed nor removed")
EMBEDDED = pytest.mark.skipif(PROVIDER != "embedded", reason="it is about nodes that are namespaces of this machine")

# Machines are shared, and a cluster runs beside the tests: how long an example takes says nothing about the code.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


def spec_for(name: str, workers: int = 2, provider_name: str = PROVIDER) -> ClusterSpec:
    """What to ask of the provider under test. Somebody's own cluster has the workers that it has, and lets us onto its nodes."""
    if provider_name == "kubeconfig":
        return ClusterSpec(name, node_access="debug")
    return ClusterSpec(name, workers=workers)


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would every child of it that a test interrupts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` runs two lines side by side (tests/__main__.py): what takes a cluster for students' code, and all the rest."""
    for item in items:
        if {"guarded", "judged"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.beside)


class Said:
    """Progress as lines of pytest's captured output: shown when a test fails."""

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        print(f"• {what}")
        yield

    def note(self, what: str) -> None:
        print(f"  {what}")

    now = note


@pytest.fixture(scope="session")
def progress() -> Progress:
    return Said()


@pytest.fixture(scope="session")
def cluster(progress: Progress) -> Iterator[Cluster]:
    """Three nodes: cp, w1, w2. Tests leave it as they found it, or reset it."""
    yield from lent(progress, f"suite-{os.getpid()}")  # two suites at once on one machine do not share one


@pytest.fixture(scope="session")
def guarded(progress: Progress) -> Iterator[Cluster]:
    """The same, for students' code that is root on nodes: embedded nodes with a user namespace around each."""
    yield from lent(progress, f"guarded-{os.getpid()}", guarded=PROVIDER == "embedded")


def lent(progress: Progress, name: str, *, guarded: bool = False) -> Iterator[Cluster]:
    """A cluster, removed afterwards; the one that is there, if one was named."""
    if existing := os.environ.get("LAB_TEST_CLUSTER"):
        yield connect(existing)
        return
    usable = provider(PROVIDER).usability()
    if not usable.usable:
        pytest.skip(f"no real cluster can run here: {usable.why}; {usable.mend}")
    try:
        made = provider(PROVIDER).up(replace(spec_for(name), guarded=guarded), progress)
    except LabError as error:
        pytest.fail(f"the cluster for the suite did not come up: {error}", pytrace=False)
    yield made
    made.close()
    provider(PROVIDER).down(name, progress)
