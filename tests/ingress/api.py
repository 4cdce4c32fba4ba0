"""The small API with what an ingress controller asks of it, and with the two things that it writes: a status, and events."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from tests.kernel.small_api import PLACES, Answers, Object, SmallApi

NETWORKING = "/apis/networking.k8s.io/v1"
PLACES |= {
    "Ingress": f"{NETWORKING}/ingresses",
    "IngressClass": f"{NETWORKING}/ingressclasses",
    "Service": "/api/v1/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/endpointslices",
    "Secret": "/api/v1/secrets",
}


class WritableApi(SmallApi):
    def __init__(self, namespace: str) -> None:
        super().__init__(namespace)
        self.RequestHandlerClass = WritableAnswers
        self.told: dict[str, Object] = {}  # events, by name
        self.writes: list[str] = []

    def ingress(self, name: str) -> Object:
        with self.news:
            return self.objects[PLACES["Ingress"], name]


class WritableAnswers(Answers):
    server: WritableApi

    def do_GET(self) -> None:
        self.path = self.path.replace("fieldSelector=type%3Dkubernetes.io%2Ftls", "")  # all Secrets here are such
        super().do_GET()

    def do_PATCH(self) -> None:
        body, words = self.body(), urlsplit(self.path).path.split("/")
        api = self.server
        api.writes.append(self.path)
        key = f"{words[5]}/{words[7]}"
        thing = api.ingress(key)
        api.put("Ingress", {**thing, "status": {**thing.get("status", {}), **body["status"]}})
        self.reply(200)

    def do_POST(self) -> None:
        body = self.body()
        known = body["metadata"]["name"] in self.server.told
        self.server.told.setdefault(body["metadata"]["name"], body)
        self.reply(409 if known else 201)

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def reply(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
