"""Where requests lead: the hosts and paths of Ingresses, and the Pods behind them, as the API says it now.

routes = look(cluster, "book-10")        one for each path of each Ingress of a namespace; look(cluster, "book-10", "cafe") for one Ingress
draw.ingress(routes)                     lab_utils.draw
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab_utils.cluster import Cluster

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Server:
    """A Pod that is ready, by where it listens."""

    pod: str
    address: str
    node: str


@dataclass(frozen=True)
class Route:
    ingress: str
    ingress_class: str
    secret: str  # of the certificate for this host
    host: str
    path: str
    kind: str  # Exact, Prefix or ImplementationSpecific
    service: str  # as the Ingress names it: "tea:80", "tea:http"
    address: str  # the Service's own; requests do not go there. Empty where there is no such Service, or no such port
    servers: tuple[Server, ...]


def look(cluster: Cluster, namespace: str, *names: str) -> list[Route]:
    """Routes of one namespace, or of the Ingresses of these names there."""
    ingresses, services, slices = (cluster.get("-n", namespace, kind)["items"] for kind in ("ingresses", "services", "endpointslices"))
    return routes([each for each in ingresses if not names or each["metadata"]["name"] in names], services, slices)


def routes(ingresses: Iterable[Object], services: Iterable[Object], slices: Iterable[Object]) -> list[Route]:
    """All of one namespace, in the order in which they are written."""
    by_name = {each["metadata"]["name"]: each for each in services}
    behind: dict[str, list[Object]] = {}
    for each in slices:
        behind.setdefault((each["metadata"].get("labels") or {}).get("kubernetes.io/service-name", ""), []).append(each)
    found = []
    for ingress in ingresses:
        spec = ingress["spec"]
        secrets = {host: tls.get("secretName", "") for tls in spec.get("tls") or [] for host in tls.get("hosts") or []}
        for rule in spec.get("rules") or []:
            host = rule.get("host", "")
            for path in (rule.get("http") or {}).get("paths") or []:
                if backend := path["backend"].get("service"):
                    name, wanted = backend["name"], backend["port"]
                    service = by_name.get(name)
                    port = port_of(service, wanted) if service else None
                    found.append(
                        Route(
                            ingress["metadata"]["name"],
                            spec.get("ingressClassName", ""),
                            secrets.get(host, ""),
                            host,
                            path.get("path") or "/",
                            path["pathType"],
                            f"{name}:{wanted.get('name') or wanted.get('number')}",
                            service["spec"].get("clusterIP", "") if service and port else "",
                            servers(behind.get(name, []), port.get("name", "")) if port else (),
                        )
                    )
    return found


def port_of(service: Object, wanted: Object) -> Object | None:
    """The Service's port that a backend means, by its number or by its name."""
    for port in service["spec"].get("ports") or []:
        if port["port"] == wanted.get("number") or ("name" in wanted and port.get("name") == wanted["name"]):
            return dict(port)
    return None


def servers(slices: Iterable[Object], port_name: str) -> tuple[Server, ...]:
    """Who is ready behind a Service's port of this name. A slice names its ports as the Service does."""
    found = {
        Server((endpoint.get("targetRef") or {}).get("name", ""), f"{address}:{port['port']}", endpoint.get("nodeName", ""))
        for each in slices
        for port in each.get("ports") or []
        if (port.get("name") or "") == port_name
        for endpoint in each.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready", True)
        for address in endpoint["addresses"]
    }
    return tuple(sorted(found, key=lambda server: (server.pod, server.address)))
