"""A cache of the test's own, a release server on loopback, and a progress that remembers what it was told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab_utils.artifacts import download, programs
from lab_utils.run import begin_again


class Told:
    """Progress that keeps every line, for tests that ask what a user was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        self.lines.append(what)
        yield

    def note(self, what: str) -> None:
        self.lines.append(what)

    now = note

    def __contains__(self, part: str) -> bool:
        return any(part in line for line in self.lines)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No test touches the cache that clusters on this machine use."""
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAB_SOURCES", raising=False)
    programs.ways.cache_clear()
    download._answers.cache_clear()
    yield tmp_path / "cache"
    begin_again()
    programs.ways.cache_clear()
    download._answers.cache_clear()


class Mirror:
    """A release server: files by /HOST/PATH, and for each how often it was asked for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.cut: set[str] = set()  # announced in full, and sent by half
        self.once: dict[str, bytes] = {}  # sent instead of the file, the first time
        self.endless: set[str] = set()  # sent on and on, for as long as somebody reads
        self.begun = threading.Event()  # … and somebody does
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, url: str, data: bytes, **headers: str) -> None:
        path = "/" + url.split("://", 1)[1]
        self.files[path] = data
        self.headers[path] = {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            here.asked.append(path)
            if path in here.endless:
                self.send_response(200)
                self.end_headers()
                self.flow()
                return
            if path not in here.files:
                self.send_error(404)
                return
            data = here.once.pop(path, here.files[path])
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            for name, value in here.headers.get(path, {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if path in here.cut else data)

        def flow(self) -> None:
            try:
                while True:
                    self.wfile.write(bytes(download.CHUNK))
                    here.begun.set()
                    time.sleep(0.01)
            except OSError:
                pass

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Mirror(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("LAB_RELEASES", here.url)
    yield here
    server.shutdown()
    server.server_close()
    thread.join()
