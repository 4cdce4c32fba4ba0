"""What `lab` sends makes a node of a plain Debian machine: tried on the very Debian that stands below the embedded nodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab_utils import artifacts
from lab_utils.artifacts import debian, images
from lab_utils.artifacts.chroot import in_root
from lab_utils.artifacts.versions import pinned
from lab_utils.paths import repo_dir
from lab_utils.progress import Progress
from lab_utils.run import run
from lab_utils.vagrant.payload import payload

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can work in a Debian root")


def test_a_plain_debian_with_the_payload_becomes_a_node(tmp_path: Path, progress: Progress) -> None:
    artifacts.prepare(progress)
    sent = payload(tmp_path, progress)
    root = tmp_path / "root"
    run(["cp", "-a", "--reflink=auto", debian.base(progress) / "root", root])
    words = ["sh", "-c", f"cp /mnt/sent/{sent.name} /tmp/ && KIO_PAUSE={pinned().image('pause').name} bash /mnt/vagrant/install.sh"]
    in_root(root, words, binds={sent.parent: "/mnt/sent", repo_dir() / "vagrant": "/mnt/vagrant"}, writable=True)

    said = in_root(root, ["sh", "-c", "kubeadm version -o short; systemctl is-enabled containerd kubelet ssh; ls /var/tmp /tmp"])
    assert said[:4] == [pinned().program("kubeadm").version, "enabled", "enabled", "enabled"]
    assert not any("kio" in line for line in said[4:]), "what was sent is not left behind"
    assert pinned().image("pause").name in (root / "etc/containerd/config.toml").read_text()
    listed = (root / "usr/local/share/kubernetes-inside-out/images").read_text().split()
    assert listed == [image.name for image in images.core() if not image.own]
    run(["rm", "-rf", "--one-file-system", root])
