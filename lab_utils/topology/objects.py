"""Pods and Services, as far as the network is concerned, from API objects or from what crictl says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pod:
    namespace: str
    name: str
    node: str
    ips: tuple[str, ...]
    host_network: bool
    phase: str
    netns: str  # the name of its network namespace in the topology; "" if it was not read
    owner: str = ""
    sandbox: str = ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def ip(self) -> str:
        return self.ips[0] if self.ips else ""

    @property
    def over(self) -> bool:
        """Its containers have ended for good. The API still shows its IP, which another Pod may have by now."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class ServicePort:
    name: str
    port: int
    target: str
    protocol: str
    node_port: int | None


@dataclass(frozen=True)
class Service:
    namespace: str
    name: str
    kind: str  # ClusterIP, NodePort, LoadBalancer, ExternalName
    ips: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    endpoints: tuple[str, ...]  # addresses that are ready

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def ip(self) -> str:
        return self.ips[0] if self.ips else ""


def read_services(services: Iterable[Mapping[str, Any]], slices: Iterable[Mapping[str, Any]]) -> list[Service]:
    ready: dict[tuple[str, str], list[str]] = {}
    for piece in slices:
        meta = piece["metadata"]
        owner = (str(meta.get("namespace", "")), str((meta.get("labels") or {}).get("kubernetes.io/service-name", "")))
        for endpoint in piece.get("endpoints") or []:
            # "ready" may be absent, which means yes (EndpointConditions in the discovery API).
            if (endpoint.get("conditions") or {}).get("ready", True) is not False:
                ready.setdefault(owner, []).extend(endpoint.get("addresses") or [])
    return [_service(item, ready) for item in services]


def _service(item: Mapping[str, Any], ready: Mapping[tuple[str, str], list[str]]) -> Service:
    meta, spec = item["metadata"], item.get("spec") or {}
    key = (str(meta.get("namespace", "")), str(meta["name"]))
    ips = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]
    ports = [
        ServicePort(
            name=str(port.get("name", "")),
            port=int(port["port"]),
            target=str(port.get("targetPort", port["port"])),
            protocol=str(port.get("protocol", "TCP")).lower(),
            node_port=port.get("nodePort"),
        )
        for port in spec.get("ports") or []
    ]
    return Service(key[0], key[1], str(spec.get("type", "ClusterIP")), tuple(ips), tuple(ports), tuple(ready.get(key, [])))


def read_pod(item: Mapping[str, Any], netns: str, sandbox: str) -> Pod:
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    ips = [str(entry["ip"]) for entry in status.get("podIPs") or [{"ip": status.get("podIP")}] if entry.get("ip")]
    owners = meta.get("ownerReferences") or []
    return Pod(
        namespace=str(meta.get("namespace", "")),
        name=str(meta["name"]),
        node=str(spec.get("nodeName", "")),
        ips=tuple(ips),
        host_network=bool(spec.get("hostNetwork")),
        phase=str(status.get("phase", "")),
        netns=netns,
        owner=f"{owners[0]['kind']}/{owners[0]['name']}" if owners else "",
        sandbox=sandbox,
    )
