"""A node image for kind, made here: the course's own node root and image store, and over them the files of kind's base image.

What kind's images/base/Dockerfile does to a Debian is done here to ours: its files are laid in unchanged, its units are enabled and
nobody else's. Two values of its containerd configuration are ours to say: the pause image, and (only where a capability is missing)
that processes' oom_score_adj stays as it is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from lab_utils import artifacts
from lab_utils.artifacts.versions import pinned
from lab_utils.embedded import kubeadm
from lab_utils.progress import Progress
from lab_utils.run import run
from tests.bench.bench_kind import NAME as RACER
from tests.kind import runtime

NAME = "lab.local/kind-node:" + pinned().program("kubelet").version
ENABLED = ("kubelet", "containerd", "undo-mount-hacks")


def make(kind_source: Path, folder: Path, progress: Progress) -> str:
    """Bring the image into the running daemon; its name."""
    root, store = artifacts.node_root(progress), artifacts.image_store(progress)
    with progress.step("A node image for kind, of the node root and kind's base files"):
        # Members of the root are "./…", those of the store "containerd/…": only the latter are renamed.
        words = ["tar", "--create", "--numeric-owner", "--transform=s,^containerd,var/lib/containerd,S"]
        words += ["--exclude=./var/lib/containerd", "--exclude=./etc/systemd/system/*.wants/*", f"--directory={root}", "."]
        words += [f"--directory={store.parent}", "containerd"]
        settings = ["--change", "ENV container=docker", "--change", 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]']
        with subprocess.Popen(words, stdout=subprocess.PIPE) as tar:
            subprocess.run(["docker", "import", *settings, "-", f"{NAME}-base"], stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True)
        assert tar.returncode == 0
        context = folder / "context"
        _files(kind_source / "images/base/files", context / "over")
        # systemd ends on this signal; `docker import` cannot say so.
        (context / "Dockerfile").write_text(f"FROM {NAME}-base\nCOPY over/ /\nSTOPSIGNAL SIGRTMIN+3\n")
        run(["docker", "build", "--quiet", "--tag", NAME, context])
        shutil.rmtree(context)
    return NAME


def _files(base: Path, over: Path) -> None:
    shutil.copytree(base, over, copy_function=shutil.copyfile)
    for path in (over, *over.rglob("*")):  # the module cache is read-only
        script = path.is_dir() or path.parent.name == "bin"
        path.chmod(0o755 if script else 0o644)
    (over / "kind/version").write_text(pinned().program("kubelet").version)
    wants = over / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    for unit in ENABLED:
        (wants / f"{unit}.service").symlink_to(f"/etc/systemd/system/{unit}.service")
    # What stock kind applies as its Pod network: flannel, for kindnet is not among the course's images. Its Pod subnet is kind's default.
    network = kubeadm.flannel(api=f"{RACER}-control-plane", images=pinned().image_names(*kubeadm.FLANNEL_IMAGES))
    manifests = over / "kind/manifests"
    manifests.mkdir()
    (manifests / "default-cni.yaml").write_text(network)
    # The journal in memory, and CRI's socket for crictl, as in the node root: kind's files of those names are empty or not there.
    (over / "etc/crictl.yaml").unlink()
    config = over / "etc/containerd/config.toml"
    text = config.read_text().replace("registry.k8s.io/pause:3.10", pinned().image("pause").name)
    if not runtime.may():
        text = text.replace("restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    config.write_text(text)
    (over / "etc/containerd/cri-base.json").write_text(json.dumps(_base_spec()))


def _base_spec() -> dict[str, object]:
    """As kind's Dockerfile makes it: containerd's default, without limits, and with kind's hook."""
    from lab_utils.progress import Silent

    ctr = artifacts.binaries(Silent()) / "ctr"
    spec: dict[str, object] = json.loads(run([ctr, "oci", "spec"]).stdout)
    spec["process"].pop("rlimits", None)  # type: ignore[attr-defined]
    spec["hooks"] = {"createContainer": [{"path": "/kind/bin/mount-product-files.sh"}]}
    return spec
