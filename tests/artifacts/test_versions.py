"""The one file of versions: complete, and the only place where an image's version is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab_utils.artifacts.versions import ARCHITECTURES, FILE, parse, pinned
from lab_utils.errors import BadInput
from lab_utils.paths import repo_dir

GOMOD = FILE.parent / "gomod"


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_release_has_an_address_and_a_way_to_check_it(arch: str) -> None:
    released = [download for program in pinned().programs.values() if (download := program.download(arch))]
    assert len(released) > 20
    for download in released:
        assert download.url.startswith(("https://", "pypi:")) and "{" not in download.url
        assert arch in download.url
        assert re.fullmatch("[0-9a-f]{64}", download.sha256 or "") or (download.sums or "").startswith("https://")


def test_the_address_of_kubelet_is_the_official_one() -> None:
    download = pinned().program("kubelet").download("arm64")
    assert download is not None
    assert download.url == "https://dl.k8s.io/release/v1.36.3/bin/linux/arm64/kubelet"
    assert download.sha256 != pinned().program("kubelet").download("amd64").sha256  # type: ignore[union-attr]


def test_a_program_in_an_archive_has_a_place_there() -> None:
    assert pinned().program("etcdctl").member_in("amd64") == "etcd-v3.6.8-linux-amd64/etcdctl"
    assert pinned().program("kubelet").member_in("amd64") is None


def test_what_is_pinned_here_is_what_the_go_modules_pin() -> None:
    """A version lives in versions.toml and in a go.mod; they must say the same."""
    modules = {
        "kubernetes": "k8s.io/kubernetes",
        "containerd": "github.com/containerd/containerd/v2",
        "coredns": "github.com/coredns/coredns",
    }
    modules |= {"flannel": "github.com/flannel-io/flannel", "cri-tools": "sigs.k8s.io/cri-tools", "runc": "github.com/opencontainers/runc"}
    modules |= {"metrics-server": "sigs.k8s.io/metrics-server", "cni-plugins": "github.com/containernetworking/plugins"}
    modules |= {"local-path-provisioner": "github.com/rancher/local-path-provisioner"}
    modules |= {"csi-provisioner": "github.com/kubernetes-csi/external-provisioner/v5"}
    modules |= {"csi-resizer": "github.com/kubernetes-csi/external-resizer", "csi-sanity": "github.com/kubernetes-csi/csi-test/v5"}
    modules |= {"csi-snapshotter": "github.com/kubernetes-csi/external-snapshotter/v8", "contour": "github.com/projectcontour/contour"}
    for component, module in modules.items():
        program = pinned().of(component)[0]
        text = (GOMOD / program.gomod / "go.mod").read_text()
        assert re.search(rf"^\s*(require )?{re.escape(module)} {re.escape(program.built)}$", text, re.M), component
    main = (GOMOD / "main" / "go.mod").read_text()
    assert f"go.etcd.io/etcd/server/v3 => go.etcd.io/etcd/server/v3 {pinned().program('etcd').version}" in main


def test_images_carry_the_versions_of_what_is_in_them() -> None:
    versions = pinned()
    for image in versions.images.values():
        main = next(iter(image.programs), None)
        if main and not image.own:
            assert versions.program(main).version.removeprefix("v") in image.name, image.name


def test_every_image_in_a_manifest_of_ours_is_pinned() -> None:
    names = {image.name for image in pinned().images.values()}
    found = 0
    for path in sorted((repo_dir() / "lab_utils").rglob("manifests/*.yaml")):
        for image in re.findall(r"^\s*(?:- )?image: *[\"']?([^\s\"'{}]+)[\"']?\s*$", path.read_text(), re.M):
            found += 1
            full = image if "." in image.split("/")[0] else f"docker.io/{image if '/' in image else 'library/' + image}"
            assert full in names, f"{path.name}: {image}"
    assert found or not list((repo_dir() / "lab_utils").rglob("manifests/*.yaml")) or _filled_in()


def _filled_in() -> bool:
    """Manifests may also take their images' names from the pinned ones when they are applied: then there is `image: {NAME}`."""
    return any("image: {" in path.read_text() for path in (repo_dir() / "lab_utils").rglob("manifests/*.yaml"))


@pytest.mark.parametrize("name", ["nginx", "nginx:1.22", "library/nginx:1.22", "docker.io/library/nginx:1.22"])
def test_an_image_is_found_by_its_short_and_by_its_full_name(name: str) -> None:
    assert pinned().image(name).key == "nginx"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"no image 'ngnix' is pinned.*nginx"):
        pinned().image("ngnix")
    with pytest.raises(BadInput, match=r"no program 'kubelt' is pinned.*kubelet"):
        pinned().program("kubelt")


def test_an_image_of_an_unknown_program_is_refused() -> None:
    with pytest.raises(BadInput, match="wants the program 'missing'"):
        parse('debian = "x"\n[components]\n[images.one]\nname = "a/b:1"\nprograms = { missing = "/m" }\n')


def test_provisioning_scripts_are_found_by_their_numbers() -> None:
    scripts = sorted(path.name for path in (repo_dir() / "vagrant" / "provision").glob("[0-9]*.sh"))
    assert scripts[0].startswith("10-") and all(
        Path(repo_dir() / "vagrant" / "provision" / name).stat().st_mode & 0o100 for name in scripts
    )
