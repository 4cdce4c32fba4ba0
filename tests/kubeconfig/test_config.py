"""Reading a kubeconfig, and one clear line for each way in which it, or its server, cannot be used."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_utils.errors import BadInput
from lab_utils.kubeconfig.config import read, why_no_answer


def written(path: Path, server: str = "https://127.0.0.1:1", **user: Any) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}, {"name": "lost", "context": {"cluster": "gone"}}],
                "current-context": "here",
            }
        )
    )
    return path


def up(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LAB_STATE": str(tmp_path / "state"), "KUBECONFIG": "", "HOME": str(tmp_path), **environment}
    env.setdefault("LAB_CACHE", "")
    if not env["LAB_CACHE"]:  # another HOME must not mean another cache, which would have to be built
        from lab_utils.paths import cache_dir

        env |= {"XDG_CACHE_HOME": str(cache_dir().parent)}
        del env["LAB_CACHE"]
    argv = [sys.executable, "-m", "lab_utils", "up", "--provider", "kubeconfig", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, env=env)


def refused(said: subprocess.CompletedProcess[str], tmp_path: Path, *expected: str) -> None:
    assert said.returncode == 2, said.stderr
    last = said.stderr.strip().splitlines()[-1]
    assert last.startswith("lab: ") and all(part in last for part in expected), said.stderr
    assert "Traceback" not in said.stderr
    assert not list(tmp_path.rglob("cluster.json")), "something was recorded"


def test_the_current_context_is_taken_unless_another_is_named(tmp_path: Path) -> None:
    text = written(tmp_path / "k", "https://a:1").read_text()
    assert (read(text, "k").context, read(text, "k").server) == ("here", "https://a:1")
    with pytest.raises(BadInput, match=r"k has no context 'there'. It has: here, lost"):
        read(text, "k", "there")
    with pytest.raises(BadInput, match="'lost' names a cluster that the file does not describe"):
        read(text, "k", "lost")


@pytest.mark.parametrize(
    "text", ["", "just words", "[1, 2]", "{", "contexts: 3", "contexts: [1]", "contexts: [{}]", "current-context: x", "contexts: {a: b}"]
)
def test_what_is_no_kubeconfig_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"^some/file"):
        read(text, "some/file")


class TestUp:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        refused(up(tmp_path), tmp_path, "there is no kubeconfig", ".kube/config", "--kubeconfig FILE")
        refused(up(tmp_path, KUBECONFIG="/nowhere"), tmp_path, "KUBECONFIG names /nowhere, and there is no such file")
        refused(up(tmp_path, "--kubeconfig", "/nowhere/else"), tmp_path, "--kubeconfig names /nowhere/else")

    def test_a_server_on_which_nothing_listens(self, tmp_path: Path) -> None:
        said = up(tmp_path, "--kubeconfig", str(written(tmp_path / "k", token="t")))
        refused(said, tmp_path, "the API server https://127.0.0.1:1 cannot be used: nothing listens there", "Is the cluster running?")

    def test_a_server_whose_name_nobody_knows(self, tmp_path: Path) -> None:
        said = up(tmp_path, "--kubeconfig", str(written(tmp_path / "k", "https://nowhere.invalid:6443", token="t")))
        refused(said, tmp_path, "https://nowhere.invalid:6443 cannot be used")

    def test_a_program_for_tokens_that_is_not_there(self, tmp_path: Path) -> None:
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "cloud-login",
            "interactiveMode": "Never",
            "installHint": "Get it\nfrom the cloud",
        }
        said = up(tmp_path, "--kubeconfig", str(written(tmp_path / "k", exec=plugin)))
        refused(said, tmp_path, "gets its token from the program 'cloud-login', which is not on this machine", "Get it from the cloud")

    def test_a_program_for_tokens_that_fails(self, tmp_path: Path) -> None:
        plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}
        said = up(tmp_path, "--kubeconfig", str(written(tmp_path / "k", exec=plugin)))
        refused(said, tmp_path, "the kubeconfig's program for tokens failed", "Log in with it (or install it), then try again")

    @pytest.mark.parametrize(
        ("code", "expected"), [(401, "it does not accept this user"), (403, "it does not let this user in"), (500, "cannot be used")]
    )
    def test_a_server_that_says_no(self, tmp_path: Path, code: int, expected: str) -> None:
        def answer(path: str) -> tuple[int, Any]:
            reason = {401: "Unauthorized", 403: "Forbidden", 500: "InternalError"}[code]
            message = {401: "Unauthorized", 403: 'forbidden: User "u" cannot get path "/readyz"', 500: "broken"}[code]
            return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}

        with server(answer) as url:
            refused(up(tmp_path, "--kubeconfig", str(written(tmp_path / "k", url, token="t"))), tmp_path, expected)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("error: tls: failed to verify certificate: x509: certificate signed by unknown authority", "its certificate is not the one"),
        ("Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout", "it does not answer"),
        ("Unable to connect to the server: getting credentials: exec: executable aws not found", "program for tokens failed"),
        ("The connection to the server h:1 was refused - did you specify the right host or port?", "nothing listens there"),
        ("", "it said nothing"),
    ],
)
def test_what_kubectl_says_is_told_as_what_it_means(said: str, expected: str) -> None:
    assert expected in str(why_no_answer(said, "https://h:1"))


@contextmanager
def server(answer: Any) -> Iterator[str]:
    """An HTTP server on the loopback that answers as an API server would."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, value = answer(self.path)
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
