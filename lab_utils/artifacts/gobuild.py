"""Builds programs from their published Go modules.

gomod/ holds one Go module for nearly everything, so that the Kubernetes libraries compile once; its go.sum is the checksum of
every source file. The go command has a build cache of its own, so an interrupted build goes on where it stopped.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from lab_utils.artifacts import store, toolchain
from lab_utils.artifacts.toolchain import Go
from lab_utils.artifacts.versions import Program, pinned
from lab_utils.artifacts.words import failed
from lab_utils.errors import HostLacks
from lab_utils.paths import cache_dir
from lab_utils.progress import Progress
from lab_utils.run import follow, run

GOMOD = Path(__file__).with_name("gomod")

# Modules that the checksum database does not know, although the proxy has exactly these versions. go.sum still checks them.
NOT_IN_SUMDB = ",".join(
    [
        *("sigs.k8s.io/cri-tools", "github.com/kubernetes-csi", "sigs.k8s.io/sig-storage-lib-external-provisioner"),
        *("github.com/cloudnativelabs/kube-router", "sigs.k8s.io/kube-network-policies", "github.com/vishvananda/netlink"),
        "github.com/projectcontour",
    ]
)

# No debug information: compiling is a quarter faster, and nobody runs a debugger on a node.
FLAGS = ["-mod=readonly", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false"]

# Where programs keep the version that they print. component → variables
STAMPS = {
    "kubernetes": ["k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion"],
    "containerd": ["github.com/containerd/containerd/v2/version.Version"],
    "runc": ["main.version"],
    "cni-plugins": ["github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion"],
    "flannel-cni-plugin": ["github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion"],
    "flannel": ["github.com/flannel-io/flannel/pkg/version.Version"],
    "cri-tools": ["sigs.k8s.io/cri-tools/pkg/version.Version"],
    "metrics-server": ["k8s.io/client-go/pkg/version.gitVersion"],
    "contour": ["github.com/projectcontour/contour/internal/build.Version"],
}


def how(program: Program) -> list[object]:
    """Everything that decides what a build of this program gives, for its recipe."""
    sources: list[object] = [GOMOD / program.gomod / name for name in ("go.mod", "go.sum") if program.gomod]
    if program.package.startswith("./") and (own := GOMOD / program.gomod / program.package).is_dir():
        sources.append(own)
    return [program.package or program.c_source, program.built, program.cgo, program.tags, FLAGS, *sources]


def build(programs: Iterable[Program], out: Path, progress: Progress) -> None:
    """Build programs into a folder, each under its own name."""
    wanted = list(programs)
    _check_tools(wanted)
    go = toolchain.go(progress)

    def call(program: Program) -> tuple[str, bool, tuple[str, ...]]:
        return program.gomod, program.cgo, program.tags

    for program in (one for one in wanted if one.c_source):
        _compile_c(program, go, out, progress)
    for (gomod, cgo, tags), group in groupby(sorted((one for one in wanted if one.package), key=call), key=call):
        _go_build(list(group), go, gomod, cgo, tags, out, progress)


def _go_build(programs: Sequence[Program], go: Go, gomod: str, cgo: bool, tags: tuple[str, ...], out: Path, progress: Progress) -> None:
    where = _workspace(go, gomod, progress)
    link = ["-s", "-w", *(f"-X {variable}={value}" for variable, value in _stamps(gomod))]
    if cgo:
        link.append("-extldflags -static")  # made here, run on the nodes' C library
    work = out / ".go"
    work.mkdir()
    store.give_back(work)  # go writes into it, and not as root
    argv = go.argv("build", "-v", *FLAGS, f"-tags={','.join(tags)}", f"-ldflags={' '.join(link)}", "-o", f"{work}/")
    names = ", ".join(program.name for program in programs[:3]) + (f" and {len(programs) - 3} more" if len(programs) > 3 else "")
    watch = _Watch(progress, names)
    code = follow([*argv, *(program.package for program in programs)], watch.line, env=_env(go, cgo), cwd=where)
    if code != 0:
        raise failed(f"building {names} failed", "\n".join(watch.lines), watch.mend())
    for program in programs:
        (work / _default_name(program.package)).rename(out / program.name)
    shutil.rmtree(work)


class _Watch:
    """Turns what `go build -v` says (one line a package, and one a download) into a word on how far it is."""

    def __init__(self, progress: Progress, names: str) -> None:
        self.progress, self.names = progress, names
        self.lines: list[str] = []
        self.packages = self.downloads = 0
        self.started = time.monotonic()

    def line(self, line: str) -> None:
        if line.startswith("go: downloading "):
            self.downloads += 1
        elif re.fullmatch(r"[\w.~-]+(/[\w.~-]+)*", line):
            self.packages += 1
        else:
            self.lines.append(line)
        seconds = time.monotonic() - self.started
        done = f"{self.packages} packages compiled" if self.packages else f"{self.downloads} modules downloaded"
        self.progress.now(f"{done} after {seconds:.0f} s: {self.names}")

    def mend(self) -> str:
        said = "\n".join(self.lines)
        if "dial tcp" in said or "no such host" in said:
            return "The Go module proxy cannot be reached: see `go env GOPROXY` and this machine's network"
        if "no space left" in said:
            return f"Make room in {cache_dir()} and in `go env GOCACHE GOMODCACHE`"
        return "Run the command again: what is compiled already is kept"


def _stamps(gomod: str) -> list[tuple[str, str]]:
    versions = {program.component: program for program in pinned().programs.values() if program.gomod == gomod}
    found = [(variable, _plain(program)) for name, program in versions.items() for variable in STAMPS.get(name, [])]
    if gomod == "main":
        major, minor, _ = versions["kubernetes"].version.removeprefix("v").split(".")
        found += [("k8s.io/component-base/version.gitMajor", major), ("k8s.io/component-base/version.gitMinor", minor)]
    return found


def _plain(program: Program) -> str:
    return program.built.removeprefix("v") if program.component == "runc" else program.built


def _workspace(go: Go, gomod: str, progress: Progress) -> Path:
    """A copy of the Go module to build in, with what is derived from a published source."""
    source = GOMOD / gomod
    target = cache_dir() / "build" / f"{gomod}-{store.recipe(source)}"
    if not target.exists():
        part = target.with_name(f"{target.name}.{os.getpid()}")
        store.make_dir(part.parent)
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part)
        if gomod == "main":
            _write_flanneld(go, part, progress)
        store.give_back(part)
        try:
            part.rename(target)
        except OSError:  # another command was faster
            shutil.rmtree(part)
    return target


def _write_flanneld(go: Go, workspace: Path, progress: Progress) -> None:
    """flannel's own main, without the back end for one cloud: its library cannot be had from every module proxy."""
    store.give_back(workspace)
    main = _module_dir(go, workspace, "github.com/flannel-io/flannel", progress) / "main.go"
    lines = [line for line in main.read_text().splitlines(keepends=True) if "/pkg/backend/tencentvpc" not in line]
    (workspace / "flanneld").mkdir()
    (workspace / "flanneld" / "main.go").write_text("".join(lines))


def _module_dir(go: Go, workspace: Path, module: str, progress: Progress) -> Path:
    """Where the go command keeps a module's sources; they are downloaded when they are missing."""
    watch = _Watch(progress, module)
    if follow(go.argv("mod", "download", module), watch.line, env=_env(go, False), cwd=workspace) != 0:
        raise failed(f"downloading {module} failed", "\n".join(watch.lines), watch.mend())
    argv = go.argv("list", "-mod=readonly", "-m", "-f={{.Dir}}", module)
    return Path(run(argv, env=_env(go, False), cwd=workspace).stdout.strip())


def _compile_c(program: Program, go: Go, out: Path, progress: Progress) -> None:
    module, _, path = program.c_source.partition(":")
    source = _module_dir(go, _workspace(go, program.gomod, progress), module, progress) / path
    result = run(["gcc", "-Os", "-Wall", "-static", "-s", f"-DVERSION=v{program.version}", "-o", out / program.name, source], check=False)
    if not result.ok:
        raise failed(f"compiling {program.name} failed", result.stderr, "Install a C compiler: apt install gcc libc6-dev")


def _default_name(package: str) -> str:
    """What `go build` calls the program of a package: the last part of its path that is not a major version. Pure."""
    return [part for part in package.split("/") if not re.fullmatch(r"v\d+", part)][-1]


def _env(go: Go, cgo: bool) -> dict[str, str]:
    known = os.environ.get("GONOSUMDB", "")
    return {
        "CGO_ENABLED": "1" if cgo else "0",
        "GOFLAGS": "",
        "GONOSUMDB": ",".join(filter(None, [known, NOT_IN_SUMDB])),
        "GOWORK": "off",
        **go.env(),
    }


def _check_tools(programs: Iterable[Program]) -> None:
    if any(program.cgo or program.c_source for program in programs) and not shutil.which("gcc"):
        raise HostLacks("a C compiler is missing, which runc and pause need", "sudo apt install gcc libc6-dev libseccomp-dev pkg-config")
    if any("seccomp" in program.tags for program in programs) and not Path("/usr/include/seccomp.h").exists():
        raise HostLacks("runc needs libseccomp's header files", "sudo apt install libseccomp-dev pkg-config")
