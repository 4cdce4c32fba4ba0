"""What several providers do in the same way."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab_utils.cluster import Cluster, ClusterRecord, cluster_dir
from lab_utils.errors import BadInput, HostLacks
from lab_utils.progress import Progress, Silent
from lab_utils.providers import ClusterSpec


@contextmanager
def locked(name: str, progress: Progress) -> Iterator[None]:
    """One command at a time per cluster."""
    from lab_utils.artifacts import store

    with store.locked(cluster_dir(f".{name}"), progress):
        yield


def as_it_is(spec: ClusterSpec, options: dict[str, Any]) -> ClusterSpec:
    """What was asked for, of a cluster that exists: its nodes and its proxy stay what they were made as, whatever is said now."""
    was = {"bare": bool(options.get("bare")), "guarded": bool(options.get("guarded")), "proxy_mode": options.get("proxy_mode", "iptables")}
    chosen = "--proxy-mode" in spec.said or spec.proxy_mode != ClusterSpec.proxy_mode
    engine = str(options.get("network_policy") or "")
    asked = [
        *(["with bare nodes"] if spec.bare and not was["bare"] else []),
        *(["with guarded nodes"] if spec.guarded and not was["guarded"] else []),
        *([f"with kube-proxy in {spec.proxy_mode} mode"] if chosen and spec.proxy_mode != was["proxy_mode"] else []),
        *([f"with the engine {spec.network_policy}, but {engine}"] if engine and spec.network_policy not in ("", engine) else []),
    ]
    if asked:
        mend = f"Remove it first (`lab down --name {spec.name}`), or give yours another --name"
        raise BadInput(f"cluster {spec.name!r} exists, and was not made {asked[0]}", mend)
    return replace(spec, **was)


def with_more(options: dict[str, Any], spec: ClusterSpec) -> dict[str, Any]:
    """A cluster's options, with what is asked for besides. What was added once stays."""
    more = {key: getattr(spec, key) or bool(options.get(key)) for key in ("metrics_server", "storage", "ingress")}
    images = sorted({*spec.images, *options.get("images", ())})
    return {**options, **more, "images": images, "network_policy": spec.network_policy or options.get("network_policy", "")}


def with_addons(cluster: Cluster, progress: Progress, spec: ClusterSpec | None = None) -> Cluster:
    """The same cluster, with all that its record says it was given, and what is asked for besides."""
    options = with_more(cluster.record.options, spec) if spec else cluster.record.options
    if any(options.get(name) for name in ("metrics_server", "storage", "ingress", "images", "network_policy")):
        from lab_utils.addons import give

        wanted = {"metrics": "metrics_server", "storage": "storage", "ingress": "ingress"}
        asked = {word: bool(options.get(name)) for word, name in wanted.items()}
        engine = str(options.get("network_policy", ""))
        give(cluster, progress, **asked, images=options.get("images", ()), network_policy=engine)
    return cluster


def ready_nodes(record: ClusterRecord) -> dict[str, bool]:
    """What Kubernetes says of each node; nothing when it does not answer."""
    cluster = Cluster(record, [])
    done = cluster.kubectl("get", "nodes", "-o", "json", "--request-timeout=5s", check=False, timeout=10)
    if not done.ok:
        return {}
    return {
        item["metadata"]["name"]: any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", []))
        for item in json.loads(done.stdout)["items"]
    }


def cached_images(there: Container[str], progress: Progress, but: Container[str] = ()) -> dict[str, Path]:
    """Images that every cluster should have, that a node lacks, and that lie in this machine's cache: they need no registry then. All
    others are pulled by the nodes when a Pod asks for them. `but`: keys of those that nobody will ask for."""
    from lab_utils.artifacts import images

    wanted = [image for image in images.core() if image.name not in there and image.key not in but]
    found = {image.name: place / f"{image.key}.tar" for image in wanted if (place := images.find(image, progress))}
    if lacking := [image.name for image in wanted if image.own and image.name not in found]:
        progress.note(f"{', '.join(lacking)}: no registry has these, and they can be built on Linux alone (lab prepare)")
    return found


def host_kubectl(*, look_only: bool = False, progress: Progress | None = None) -> str:
    """On Linux our own, in the version of the cluster; elsewhere one that is installed. Docker Desktop brings one along."""
    if platform.system() == "Linux":
        if look_only:
            return ""
        from lab_utils import artifacts

        return str(artifacts.binary("kubectl", progress or Silent()))
    if found := shutil.which("kubectl"):
        return found
    raise HostLacks("there is no `kubectl` command", "Install it: https://kubernetes.io/docs/tasks/tools/")


def cluster_keys(folder: Path) -> dict[str, str]:
    """An ssh key for the learner and one for the nodes, made once per cluster and kept in its folder."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    from lab_utils.artifacts import store

    store.make_dir(folder.parent)
    folder.mkdir(exist_ok=True, mode=0o700)
    for name in ("id_ed25519", "host_ed25519"):
        file = folder / name
        if not file.exists():
            key = Ed25519PrivateKey.generate()
            public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            file.with_suffix(".pub").write_bytes(public + b"\n")
            draft = file.with_suffix(".new")  # last, and by a rename: where it is, the pair is whole
            draft.touch(mode=0o600)
            draft.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
            draft.replace(file)
    store.give_back(folder)
    return {
        "authorized_key": (folder / "id_ed25519.pub").read_text().strip(),
        "host_key": (folder / "host_ed25519").read_text(),
        "host_key_public": (folder / "host_ed25519.pub").read_text().strip(),
    }
