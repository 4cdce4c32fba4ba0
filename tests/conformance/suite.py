"""The suite as a program: `e2e.test` of the very Kubernetes version that the course pins, built from its published module.

gomod/ names it with the versions of lab_utils/artifacts/gomod/main and is built with the same flags, so that the go command
finds the Kubernetes libraries in its cache when the cluster's own programs were built here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lab_utils.artifacts import store, toolchain
from lab_utils.artifacts.gobuild import FLAGS
from lab_utils.artifacts.programs import arch
from lab_utils.artifacts.store import Provenance
from lab_utils.artifacts.versions import pinned
from lab_utils.errors import ArtifactFailed
from lab_utils.paths import cache_dir
from lab_utils.progress import Progress
from lab_utils.run import follow, run

GOMOD = Path(__file__).with_name("gomod")

# e2e.test runs one test after another; the ginkgo command runs several of it side by side and puts their reports together.
PROGRAMS = {
    "ginkgo": ["build", "github.com/onsi/ginkgo/v2/ginkgo"],
    "nnp": ["build", "k8s.io/kubernetes/test/images/nonewprivs"],
    "e2e.test": ["test", "-c", "-vet=off", "k8s.io/kubernetes/test/e2e"],
}


@dataclass(frozen=True)
class Suite:
    folder: Path

    @property
    def ginkgo(self) -> Path:
        return self.folder / "ginkgo"

    @property
    def tests(self) -> Path:
        return self.folder / "e2e.test"

    @property
    def nnp(self) -> Path:
        """The program of the official image `nonewprivs`."""
        return self.folder / "nnp"

    @property
    def agnhost_files(self) -> Path:
        """What the official agnhost image holds beside its program: a certificate that only its own tests trust."""
        return self.folder / "agnhost"


def build(progress: Progress) -> Suite:
    """From the cache, or built: some four minutes on two processors when the cluster's programs were built here before."""
    version = pinned().program("kubelet").version
    flags = [*FLAGS, f"-ldflags=-s -w {_stamps(version)}"]
    place = cache_dir() / "e2e" / f"{version}-{store.recipe(2, version, flags, PROGRAMS, GOMOD / 'go.mod', GOMOD / 'go.sum', arch())}"
    if store.find(place, progress):
        return Suite(place)
    with store.locked(place, progress), store.making(place) as part:
        watch, tool = store.stopwatch(), toolchain.go(progress)
        env = {**tool.env(), "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        for name, (verb, *words) in PROGRAMS.items():
            with progress.step(f"build {name} of Kubernetes {version}"):
                said: list[str] = []
                argv = tool.argv(verb, *words[:-1], *flags, "-o", str(part / name), words[-1])
                # On a desktop that is in use, and in CI beside other work, this much compiling should give way.
                if follow(["nice", *argv], said.append, env=env, cwd=GOMOD) != 0:
                    raise ArtifactFailed(f"building {name} failed:\n" + "\n".join(said[-12:]), "Run it again: what is compiled is kept")
        where = run(tool.argv("list", "-mod=readonly", "-m", "-f={{.Dir}}", "k8s.io/kubernetes"), env=env, cwd=GOMOD).stdout
        (part / "agnhost").mkdir()
        for name in ("localhost.crt", "localhost.key"):
            shutil.copyfile(Path(where.strip()) / "test/images/agnhost/porter" / name, part / "agnhost" / name)
        store.finish(place, Provenance("e2e", version, "build", detail="k8s.io/kubernetes/test/e2e", seconds=watch.seconds))
    return Suite(place)


def _stamps(version: str) -> str:
    major, minor, _ = version.removeprefix("v").split(".")
    names = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in names.items())
