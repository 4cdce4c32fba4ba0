"""Lists and watches as the API server gives them, over HTTP, for a handful of objects: enough for a program that only reads.

It stands in for the API server where none can run. What it can do that a real one does only on a bad day: cut every watch, forget the past
(410 Gone), be away.
"""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.kernel.lines import inside

Object = dict[str, Any]
PLACES = {
    "Node": "/api/v1/nodes",
    "Pod": "/api/v1/pods",
    "Namespace": "/api/v1/namespaces",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/networkpolicies",
}


class SmallApi(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, namespace: str, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), Answers, bind_and_activate=False)
        self.socket.close()
        self.socket = inside(namespace, lambda: socket.create_server((address, 0)))
        self.port = self.socket.getsockname()[1]
        self.news = threading.Condition()
        self.version = 1
        self.objects: dict[tuple[str, str], Object] = {}
        self.events: list[tuple[int, str, str, Object]] = []  # version, path, type, object
        self.oldest = 0  # watches that begin before are told that this is gone
        self.era = 0  # a watch ends when the era does
        self.away = False
        self.away_for = ""  # one path only
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def put(self, kind: str, thing: Object) -> None:
        with self.news:
            self.version += 1
            key = (PLACES[kind], uid(thing))
            made = "MODIFIED" if key in self.objects else "ADDED"
            thing = {**thing, "metadata": {**thing["metadata"], "uid": uid(thing), "resourceVersion": str(self.version)}}
            self.objects[key] = thing
            self.events.append((self.version, PLACES[kind], made, thing))
            self.news.notify_all()

    def delete(self, kind: str, thing: Object) -> None:
        with self.news:
            self.version += 1
            gone = self.objects.pop((PLACES[kind], uid(thing)))
            gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
            self.events.append((self.version, PLACES[kind], "DELETED", gone))
            self.news.notify_all()

    def cut(self, forget: bool = False) -> None:
        """End every watch in the middle; with `forget`, so that none can go on where it was."""
        with self.news:
            self.era += 1
            if forget:
                self.oldest = self.version + 1
                self.version += 1
            self.news.notify_all()

    def close(self) -> None:
        self.cut()
        self.shutdown()
        self.server_close()


def uid(thing: Object) -> str:
    return f"{thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"


def chosen(thing: Object, query: dict[str, str]) -> bool:
    """By name, which is all that is asked for here."""
    wanted = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return wanted in ("", thing["metadata"]["name"])


class Answers(BaseHTTPRequestHandler):
    server: SmallApi

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        api, split = self.server, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        if api.away or api.away_for == split.path:
            self.send_error(503)
            return
        if "watch" not in query:
            with api.news:
                items = [thing for (path, _), thing in api.objects.items() if path == split.path and chosen(thing, query)]
                said = json.dumps({"metadata": {"resourceVersion": str(api.version)}, "items": items}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)
            return
        self.send_response(200)
        self.end_headers()
        try:
            self._watch(split.path, query)
        except OSError:  # the client is gone
            pass

    def _watch(self, path: str, query: dict[str, str]) -> None:
        api, version = self.server, int(query["resourceVersion"])
        with api.news:
            era = api.era
            if version < api.oldest:
                self._say("ERROR", {"code": 410, "message": "too old resource version"})
                return
        while True:
            with api.news:
                while not (waiting := [event for event in api.events if event[0] > version and event[1] == path]):
                    if api.era != era:
                        return
                    api.news.wait(60)
            for number, _, kind, thing in waiting:
                version = number
                if chosen(thing, query):
                    self._say(kind, thing)

    def _say(self, kind: str, thing: Object) -> None:
        self.wfile.write(json.dumps({"type": kind, "object": thing}).encode() + b"\n")
        self.wfile.flush()
