"""Which clusters grade, and how many at once: those that are named, the one that runs, or `grade-1`, `grade-2`, … made for the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from lab_utils.cluster import Cluster, connect, known_clusters, load_record
from lab_utils.errors import BadInput, LabError, NoSuchCluster
from lab_utils.grading.arena import NO_CLUSTER
from lab_utils.grading.batch import Slot
from lab_utils.grading.lock import grading
from lab_utils.labs.catalog import LabFiles
from lab_utils.labs.lifecycle import missing_needs
from lab_utils.labs.spec import Needs
from lab_utils.progress import Progress


@contextmanager
def slots(
    files: LabFiles, names: Sequence[str], jobs: int, needed: int, progress: Progress, *, may_reset: bool, keep: bool
) -> Iterator[tuple[list[Slot], dict[str, Any]]]:
    """The slots, and what results.json says of their clusters. Clusters that were made here are removed at the end."""
    if NO_CLUSTER in names:
        yield [Slot(NO_CLUSTER)] * jobs, {"names": [], "provider": NO_CLUSTER, "kubernetes": "", "nodes": []}
        return
    with ExitStack() as stack:
        clusters = [stack.enter_context(_grading(name)) for name in _names(files, names, jobs, needed, progress, stack, keep)]
        for cluster in clusters:
            if lacking := missing_needs(files.spec, cluster):
                raise BadInput(f"cluster {cluster.name!r} lacks what lab {files.name} needs: {'; '.join(lacking)}")
        from lab_utils.grading import bare, pristine

        if files.spec.needs.bare and not may_reset:
            raise BadInput(f"lab {files.name} makes its nodes anew for each submission, and --no-reset forbids that", "Leave it out")
        for cluster in clusters:
            stack.callback(_end, cluster)
            _fence(cluster, progress)
        with progress.step("Looking at the clusters before anyone touches them"):
            looks = [bare.begin(cluster) if files.spec.needs.bare else pristine.begin(files, cluster) for cluster in clusters]
            found = [Slot(cluster.name, look, may_reset) for cluster, look in zip(clusters, looks, strict=True)]
        first = clusters[0]
        yield (
            found,
            {
                "names": [cluster.name for cluster in clusters],
                "provider": first.provider,
                "kubernetes": first.record.kubernetes,
                "nodes": [node.name for node in first.nodes],
            },
        )


def _fence(cluster: Cluster, progress: Progress) -> None:
    """The sandbox has no network but the cluster; the Pods that a notebook makes there should have none either."""
    from lab_utils.grading import access

    if not access.fence(cluster, True):
        progress.note(f"Pods of cluster {cluster.name} reach what this machine reaches: provider {cluster.provider} cannot fence them in")


def _end(cluster: Cluster) -> None:
    """Take back what is ours; a cluster that no longer answers has nothing to give back."""
    from lab_utils.grading import access, bare

    with suppress(LabError):
        if cluster.record.options.get("bare"):
            bare.end(cluster)
        else:
            access.end(cluster)
    with suppress(LabError):
        access.fence(cluster, False)


def _names(
    files: LabFiles, names: Sequence[str], jobs: int, needed: int, progress: Progress, stack: ExitStack, keep: bool
) -> Sequence[str]:
    if names:
        if jobs > len(names):
            raise BadInput(f"--jobs {jobs} needs {jobs} clusters, and {len(names)} are named", "Name more with --cluster, or none")
        return names[: max(jobs, len(names))]
    needs = files.spec.needs
    if jobs == 1 and not needs.bare and (running := _running(needs)):
        return [running]
    from lab_utils.providers import ClusterSpec, choose, provider

    if _guarded(needs):
        progress.note("in this lab a student's code is root on nodes: it gets nodes of its own, with user namespaces around them")
    wanted = [f"grade-{number}" for number in range(1, min(jobs, needed) + 1)]
    for name in wanted:
        if name in known_clusters():
            continue
        makes = provider(choose())
        if not keep:
            stack.callback(makes.down, name, progress)
        spec = ClusterSpec(name, workers=needs.workers, metrics_server=needs.metrics, storage=needs.storage, images=needs.images)
        spec = replace(spec, ingress=needs.ingress, bare=needs.bare, guarded=_guarded(needs), proxy_mode=needs.proxy or spec.proxy_mode)
        makes.up(spec, progress).close()
    return wanted


def _running(needs: Needs) -> str:
    """The cluster that runs; "" when a student's code would be root of this machine there, and a guarded one can be made instead."""
    from lab_utils.providers import provider

    if not _guarded(needs):
        return connect().name
    with suppress(NoSuchCluster):
        found = connect().record
        if not without_walls([found.name]) or not provider("embedded").usability().usable:
            return found.name
    return ""


def _guarded(needs: Needs) -> bool:
    """Whether the lab's own nodes get user namespaces: a stranger will be root on them, and the lab does not have to have more."""
    return needs.access == "change" and not needs.devices


def without_walls(names: Sequence[str]) -> list[str]:
    """Clusters whose nodes' root is root of this machine: their nodes share its kernel, and no user namespace is around them."""
    records = [load_record(name) for name in names]
    return [each.name for each in records if each.provider in ("embedded", "kind") and not each.options.get("guarded")]


@contextmanager
def _grading(name: str) -> Iterator[Cluster]:
    """A cluster that no other grader uses at the same time."""
    cluster = connect(name)
    with grading(cluster.name):
        try:
            yield cluster
        finally:
            cluster.close()
