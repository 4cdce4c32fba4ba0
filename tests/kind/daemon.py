"""dockerd for this test alone, started by hand: from Debian's packages, unpacked into a folder and never installed.

It runs in the network, mount and process namespaces that `make test-kind` made for itself (see __main__.py), so that its bridges,
its firewall rules and its mounts end with the test, also when the test is killed. Everything else that it writes is in `folder`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab_utils.artifacts import toolchain
from lab_utils.errors import HostLacks
from lab_utils.progress import Progress
from lab_utils.run import run

PACKAGES = ("docker.io", "containerd", "runc")
KIND = "sigs.k8s.io/kind@v0.33.0"


def packages(folder: Path, progress: Progress) -> None:
    """Unpack Debian's Docker."""
    root = folder / "docker"
    with progress.step(f"Debian's {', '.join(PACKAGES)}"):
        inbox = folder / "debs"
        inbox.mkdir()
        run(["apt-get", "download", "-q", *PACKAGES], cwd=inbox, timeout=600)
        for package in inbox.glob("*.deb"):
            run(["dpkg-deb", "--extract", package, root])
            package.unlink()


def kind(folder: Path, progress: Progress) -> None:
    """The kind command, built from its published module."""
    with progress.step(f"go install {KIND}"):
        tool = toolchain.go(progress)
        env = {**tool.env(), "GOBIN": str(folder / "bin"), "GOFLAGS": "-mod=mod"}
        run(tool.argv("install", KIND), env=env, cwd=folder, timeout=900)


def kind_source(progress: Progress) -> Path:
    """The same module's files, in the module cache."""
    tool = toolchain.go(progress)
    said = run(tool.argv("mod", "download", "-json", KIND), env={**tool.env(), "GOFLAGS": "-mod=mod"}, cwd="/").stdout
    return Path(json.loads(said)["Dir"])


@contextmanager
def running(folder: Path, progress: Progress) -> Iterator[dict[str, str]]:
    """The daemon; yields what the environment must say for `docker` and `kind` to be found, and to find it."""
    root = folder / "docker"
    runtime = folder / "runtime"
    runtime.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {Path(__file__).with_name("runtime.py")} "$@"\n')
    runtime.chmod(0o755)
    path = f"{folder}/bin:{root}/usr/bin:{root}/usr/sbin:{os.environ['PATH']}"
    socket = f"unix://{folder}/docker.sock"
    env = {**os.environ, "PATH": path, "DOCKER_HOST": socket}
    words: list[str | Path] = [
        f"{root}/usr/sbin/dockerd",
        "--host",
        socket,
        "--data-root",
        folder / "data",
        "--exec-root",
        folder / "exec",
        "--pidfile",
        folder / "pid",
    ]
    words += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--add-runtime", f"lab={runtime}", "--default-runtime", "lab"]
    log = folder / "dockerd.log"
    with progress.step("dockerd"), log.open("ab") as out:
        server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        while subprocess.run([f"{root}/usr/bin/docker", "info"], env=env, capture_output=True).returncode != 0:
            if server.poll() is not None:
                raise HostLacks("dockerd does not start here:\n" + "\n".join(log.read_text().splitlines()[-15:]))
            time.sleep(0.2)
    try:
        yield {"PATH": path, "DOCKER_HOST": socket}
    finally:
        server.terminate()  # containers first, then itself
        server.wait(60)
