"""cyclonus, a public fuzzer for NetworkPolicies (github.com/mattfenwick/cyclonus): built from its published module, run on a cluster.

Its own idea of what policies mean, written in Go by others, can be asked without a cluster too (`cyclonus analyze`). On a cluster its cases
are run by gomod/batched, which asks many questions in one exec.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import yaml

from lab_utils.artifacts import images, store, toolchain
from lab_utils.artifacts.programs import arch
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import pinned
from lab_utils.cluster import Cluster
from lab_utils.errors import ArtifactFailed
from lab_utils.paths import cache_dir
from lab_utils.policies import Request, World, full_name, labels
from lab_utils.progress import Progress
from lab_utils.providers import provider
from lab_utils.run import follow, run

VERSION = "v0.5.6"
GOMOD = Path(__file__).with_name("gomod")
PODS = "docker.io/mfenwick100/cyclonus-worker:latest"  # the name that it asks for, pkg/connectivity/probe/pod.go; here it is our agnhost
PACKAGES = ("github.com/mattfenwick/cyclonus/cmd/cyclonus", "./batched")


def build(progress: Progress) -> Path:
    """`cyclonus`, with `batched` beside it: from the cache, or built, about a minute on two processors."""
    recipe = store.recipe(2, VERSION, GOMOD / "go.mod", GOMOD / "go.sum", GOMOD / "batched" / "main.go", arch())
    place = cache_dir() / "cyclonus" / f"{VERSION}-{recipe}"
    program = place / "cyclonus"
    if store.find(place, progress):
        return program
    with store.locked(place, progress), store.making(place) as part, progress.step(f"build cyclonus {VERSION}"):
        watch, said = store.stopwatch(), list[str]()
        tool = toolchain.go(progress)
        argv = ["nice", *tool.argv("build"), "-mod=readonly", "-trimpath", "-o", f"{part}/", *PACKAGES]
        env = {**tool.env(), "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        if follow(argv, said.append, env=env, cwd=GOMOD) != 0:
            raise ArtifactFailed("building cyclonus failed:\n" + "\n".join(said[-12:]), "Run it again: what is compiled is kept")
        store.finish(place, Provenance("cyclonus", VERSION, "build", detail="github.com/mattfenwick/cyclonus", seconds=watch.seconds))
    return program


def has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Count:
    passed: int
    failed: int
    skipped: int
    failures: tuple[str, ...]
    not_begun: int = 0

    @classmethod
    def of(cls, xml: str, not_begun: int = 0) -> Count:
        cases = list(ElementTree.fromstring(xml).iter("testcase"))
        bad = [case.get("name", "") for case in cases if case.find("failure") is not None]
        skipped = sum(case.find("skipped") is not None for case in cases)
        return cls(len(cases) - len(bad) - skipped, len(bad), skipped, tuple(bad), not_begun)


def judge(cluster: Cluster, program: Path, progress: Progress, *, only: str = "", minutes: float = 0) -> Count:
    """All its cases, or those with a tag, or as many as fit into some minutes."""
    agnhost = replace(pinned().image("agnhost"), key="netpol-agnhost", name=PODS, own=True)
    provider(cluster.provider).load(cluster.record, images.ensure([agnhost], progress)["netpol-agnhost"], progress)
    protocols = "TCP,UDP,SCTP" if has_sctp() else "TCP,UDP"  # without SCTP sockets no server can listen for it
    if protocols == "TCP,UDP":
        progress.note("this kernel has no SCTP sockets: cyclonus tries TCP and UDP")
    out = cache_dir() / "netpol"
    out.mkdir(parents=True, exist_ok=True)
    junit, log = out / "cyclonus.xml", out / "cyclonus.log"
    junit.unlink(missing_ok=True)
    argv = [str(program.with_name("batched")), f"--protocols={protocols}", f"--junit={junit}"]
    argv += [f"--include={only}"] * bool(only) + [f"--minutes={minutes}"] * bool(minutes)
    with progress.step(f"cyclonus (all that it says: {log})"), log.open("w") as file:
        code = follow(argv, lambda line: print(line, file=file, flush=True), env={"KUBECONFIG": cluster.record.kubeconfig})
    begun = re.search(r"^begun (\d+) of (\d+) cases", log.read_text(), re.M)
    if code or begun is None or not junit.exists():
        raise ArtifactFailed("cyclonus did not come to its end", f"Its last words are in {log}")
    return Count.of(junit.read_text(), int(begun[2]) - int(begun[1]))


def says(program: Path, world: World, requests: Sequence[Request], folder: Path) -> list[bool]:
    """What cyclonus thinks of requests under policies, without a cluster."""
    spaces = {space["metadata"]["name"]: labels(space) for space in world.namespaces}

    def end(address: str) -> dict[str, object]:
        pod = world.pod_at(address)
        if pod is None:
            return {"IP": address}
        namespace = pod["metadata"]["namespace"]
        inside = {"PodLabels": labels(pod), "NamespaceLabels": spaces[namespace], "Namespace": namespace}
        return {"IP": address, "Internal": inside}

    def name_of(request: Request) -> str:
        receiver = world.pod_at(request.dst)
        listed = [port for each in receiver["spec"]["containers"] for port in each.get("ports", ())] if receiver else []
        fitting = [p["name"] for p in listed if p["containerPort"] == request.port and p.get("protocol", "TCP") == request.protocol]
        return str(fitting[0]) if fitting else ""

    traffic = [
        {"Source": end(r.src), "Destination": end(r.dst), "Protocol": r.protocol, "ResolvedPort": r.port, "ResolvedPortName": name_of(r)}
        for r in requests
    ]
    (folder / "traffic.json").write_text(json.dumps(traffic))
    meta = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    (folder / "policies").mkdir(exist_ok=True)
    for old in (folder / "policies").iterdir():
        old.unlink()
    for number, policy in enumerate(world.policies):  # a file holds one
        (folder / "policies" / f"{number}.yaml").write_text(yaml.safe_dump({**meta, **policy}))
    words = ["analyze", "--mode=query-traffic", f"--policy-path={folder / 'policies'}", f"--traffic-path={folder / 'traffic.json'}"]
    said = run([program, *words], timeout=120).stdout
    found = [word == "TRUE" for word in re.findall(r"IS ALLOWED\?\s*\|\s*(TRUE|FALSE)", said)]
    assert len(found) == len(requests), said[-2000:]
    return found


__all__ = ["Count", "build", "full_name", "has_sctp", "judge", "says"]
