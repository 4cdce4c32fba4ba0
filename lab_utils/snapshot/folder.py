"""Snapshots on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab_utils.errors import BadInput
from lab_utils.links.namespace import COMMANDS
from lab_utils.snapshot.model import NodeSnapshot, Sandbox, Snapshot

FORMAT = 1
TEXTS = {"iptables": "iptables-save.txt", "ip6tables": "ip6tables-save.txt", "nft": "nft.json", "ipset": "ipset-save.txt"}
OBJECTS = {"pods": "pods", "services": "services", "endpointslices": "endpointslices", "api_nodes": "nodes"}


def refuse_unless_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not an empty folder", "Name a new one: a snapshot never overwrites anything")


def write_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Write all files. `snapshot.json` comes last, so that a folder that has it is whole."""
    refuse_unless_empty(folder)
    (folder / "api").mkdir(parents=True, exist_ok=True)
    for attribute, name in OBJECTS.items():
        _write_json(folder / "api" / f"{name}.json", getattr(snapshot, attribute))
    for node in snapshot.nodes:
        _write_node(node, folder / "nodes" / _safe(node.name))
    about = {
        "format": FORMAT,
        "cluster": snapshot.cluster,
        "provider": snapshot.provider,
        "taken": snapshot.taken,
        "versions": dict(snapshot.versions),
        "nodes": [{"name": node.name, "ip": node.ip, "role": node.role} for node in snapshot.nodes],
    }
    (folder / "snapshot.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _write_node(node: NodeSnapshot, place: Path) -> None:
    (place / "netns").mkdir(parents=True)
    for attribute, name in TEXTS.items():
        if text := getattr(node, attribute):
            (place / name).write_text(text, encoding="utf-8")
    _write_json(place / "crictl-pods.json", node.crictl_pods)
    _write_json(place / "crictl-ps.json", node.crictl_ps)
    _write_json(place / "netns" / "host.json", {"kernel": node.kernel, "inode": node.inode, "names": dict(node.names), **node.outputs})
    for box in node.sandboxes:
        about = {"id": box.id, "namespace": box.namespace, "name": box.name, "pid": box.pid, "inode": box.inode}
        _write_json(place / "netns" / f"{_safe(box.namespace)}_{_safe(box.name)}.json", {**about, **(box.outputs or {})})


def _write_json(path: Path, value: Any) -> None:
    """JSON with one table line a line: small, and still good to read and to compare."""
    if isinstance(value, Mapping):
        rows = [f"{json.dumps(key)}: {_lines(item)}" for key, item in value.items()]
        text = "{\n" + ",\n".join(rows) + "\n}" if rows else "{}"
    else:
        text = _lines(value)
    path.write_text(text + "\n", encoding="utf-8")


def _lines(value: Any) -> str:
    if isinstance(value, list | tuple) and value:
        return "[\n" + ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


def _safe(name: str) -> str:
    """A Kubernetes name is a safe file name already; what is not one does not get to choose a path."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name).lstrip(".") or "-"


def read_snapshot(folder: Path) -> Snapshot:
    about = _read_json(folder / "snapshot.json", "not a snapshot folder", dict)
    if about.get("format") != FORMAT:
        raise BadInput(f"{folder} is a snapshot of format {about.get('format')!r}; this version reads format {FORMAT}")
    try:
        nodes = tuple(_read_node(folder / "nodes" / _safe(str(node["name"])), node) for node in about["nodes"])
        return Snapshot(
            cluster=str(about["cluster"]),
            provider=str(about["provider"]),
            taken=str(about["taken"]),
            versions={str(key): str(value) for key, value in about["versions"].items()},
            nodes=nodes,
            **{attribute: tuple(_objects(folder / "api" / f"{name}.json")) for attribute, name in OBJECTS.items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{folder / 'snapshot.json'} lacks what a snapshot has ({error})") from None


def _objects(path: Path) -> Iterable[Mapping[str, Any]]:
    yield from _read_json(path, "part of the snapshot is missing", list)


def _read_node(place: Path, about: Mapping[str, Any]) -> NodeSnapshot:
    host = _read_json(place / "netns" / "host.json", "part of the snapshot is missing", dict)
    boxes = [
        _read_json(path, "part of the snapshot is missing", dict)
        for path in sorted((place / "netns").glob("*.json"))
        if path.name != "host.json"
    ]
    return NodeSnapshot(
        name=str(about["name"]),
        ip=str(about["ip"]),
        role=str(about["role"]),
        kernel=str(host.get("kernel") or ""),
        inode=host.get("inode"),
        names=host.get("names") or {},
        outputs={key: host[key] for key in COMMANDS if key in host},
        sandboxes=tuple(sorted((_sandbox(box) for box in boxes), key=lambda box: (box.namespace, box.name))),
        crictl_pods=_read_json(place / "crictl-pods.json", "part of the snapshot is missing", dict),
        crictl_ps=_read_json(place / "crictl-ps.json", "part of the snapshot is missing", dict),
        **{key: (place / name).read_text(encoding="utf-8") if (place / name).exists() else "" for key, name in TEXTS.items()},
    )


def _sandbox(box: Mapping[str, Any]) -> Sandbox:
    return Sandbox(
        id=str(box["id"]),
        namespace=str(box["namespace"]),
        name=str(box["name"]),
        pid=int(box["pid"]),
        inode=int(box["inode"]),
        outputs={key: box[key] for key in COMMANDS if key in box} if "link" in box else None,
    )


def _read_json(path: Path, trouble: str, kind: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{trouble}: {path} cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise BadInput(f"{path} is not JSON ({error})") from None
    if not isinstance(value, kind):
        raise BadInput(f"{path} does not hold what it should (a JSON {'object' if kind is dict else 'list'})")
    return value
