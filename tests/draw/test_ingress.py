"""Where requests lead: what is read from the API's objects, and the picture of it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from lab_utils.draw.ingress import ingress
from lab_utils.ingress import Route, Server, routes


def written(name: str, *paths: dict[str, Any], host: str = "shop.example", **spec: Any) -> dict[str, Any]:
    rules = [{**({"host": host} if host else {}), "http": {"paths": list(paths)}}]
    return {"metadata": {"name": name}, "spec": {"ingressClassName": "ours", "rules": rules, **spec}}


def path(where: str, service: str, port: int | str, kind: str = "Prefix") -> dict[str, Any]:
    return {
        "path": where,
        "pathType": kind,
        "backend": {"service": {"name": service, "port": {"name" if isinstance(port, str) else "number": port}}},
    }


TEA = {
    "metadata": {"name": "tea"},
    "spec": {"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]},
}
BEHIND_TEA = {
    "metadata": {"name": "tea-1", "labels": {"kubernetes.io/service-name": "tea"}},
    "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9000}],
    "endpoints": [
        {"addresses": ["10.244.2.3"], "conditions": {"ready": True}, "nodeName": "w2", "targetRef": {"name": "tea-b"}},
        {"addresses": ["10.244.1.2"], "conditions": {}, "nodeName": "w1", "targetRef": {"name": "tea-a"}},
        {"addresses": ["10.244.1.9"], "conditions": {"ready": False}, "nodeName": "w1", "targetRef": {"name": "tea-c"}},
    ],
}
READY = (Server("tea-a", "10.244.1.2:8080", "w1"), Server("tea-b", "10.244.2.3:8080", "w2"))


def test_a_path_leads_to_the_pods_that_are_ready_at_their_own_port() -> None:
    tls = [{"hosts": ["shop.example"], "secretName": "cert"}]
    (found,) = routes([written("shop", path("/tea", "tea", 80), tls=tls)], [TEA], [BEHIND_TEA])
    assert found == Route("shop", "ours", "cert", "shop.example", "/tea", "Prefix", "tea:80", "10.96.0.5", READY)


def test_a_port_may_be_named() -> None:
    (found,) = routes([written("shop", path("/", "tea", "admin"))], [TEA], [BEHIND_TEA])
    assert [server.address for server in found.servers] == ["10.244.1.2:9000", "10.244.2.3:9000"]


def test_a_service_or_a_port_that_is_missing_has_no_address_and_nobody_behind_it() -> None:
    found = routes([written("shop", path("/a", "gone", 80), path("/b", "tea", 82))], [TEA], [BEHIND_TEA])
    assert [(each.address, each.servers) for each in found] == [("", ()), ("", ())]


def test_the_picture_says_who_answers_and_where_nobody_does() -> None:
    found = routes([written("shop", path("/tea", "tea", 80), path("/gone", "gone", 80, "Exact"), host="")], [TEA], [BEHIND_TEA])
    drawing = ingress(found)
    assert drawing.table.rows[0][-1] == "tea-a (10.244.1.2:8080, w1), tea-b (10.244.2.3:8080, w2)"
    assert drawing.table.rows[1] == ("any", "/gone", "Exact", "gone:80", "is not there", "nobody")
    assert "tea-a at 10.244.1.2:8080 on w1" in drawing.svg and "leads to nobody" in drawing.svg


def test_the_picture_is_well_formed_whatever_a_path_holds() -> None:
    found = routes([written("shop", path('/"><script>\x1b', "tea", 80))], [TEA], [BEHIND_TEA])
    svg = ingress(found).svg
    ElementTree.fromstring(svg)
    assert "<script>" not in svg and svg == ingress(found).svg


def test_without_an_ingress_it_says_so() -> None:
    assert "There is no Ingress." in ingress([]).svg
