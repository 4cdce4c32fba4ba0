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
from hypothesis import given
from hypothesis import strategies as st

from lab_utils.errors import BadInput
from lab_utils.kubeconfig.config import choose, find, read, settled, why_no_answer
from lab_utils.kubeconfig.config import refused as said_no
from lab_utils.providers.common import host_kubectl
from lab_utils.run import run


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


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        ("exec", "user: {exec: foo}"),
        ("user", "user: [token]"),
        ("command", "user: {exec: {command: [a, b]}}"),
        ("installHint", "user: {exec: {command: a, installHint: {a: b}}}"),
        ("name", "name: 3"),
        ("users", "- u"),
    ],
)
def test_a_wrong_shape_is_named(tmp_path: Path, key: str, lines: str) -> None:
    text = written(tmp_path / "k").read_text().replace("  user: {}", f"  {lines}" if lines[0] != "-" else lines)
    with pytest.raises(BadInput, match=rf"^k: '{key}' is not what kubectl writes there"):
        read(text, "k")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_that_powershell_wrote_is_read_as_kubectl_reads_it(tmp_path: Path, encoding: str) -> None:
    path = written(tmp_path / "k", token="t")
    path.write_bytes(path.read_text().encode(encoding))
    assert read(path.read_bytes(), "k").context == "here"
    refused(up(tmp_path, "--kubeconfig", str(path)), tmp_path, "nothing listens there")


def test_null_is_nothing_and_a_date_is_a_text_as_for_kubectl() -> None:
    text = """{clusters: [{name: c, cluster: {server: "https://a"}}], users: null, current-context: 2024-01-01,
        contexts: [{name: null}, {name: 2024-01-01, context: {cluster: c, user: null}}]}"""
    assert read(text, "k").context == "2024-01-01"
    with pytest.raises(BadInput, match=r"It has: 2024-01-01$"):
        read(text, "k", "other")


PART = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.binary(max_size=4) | st.text(max_size=6)
WORDS = ["clusters", "contexts", "users", "name", "cluster", "context", "user", "server", "exec", "command", "current-context", "a", "./b"]
VALUE = st.recursive(
    PART | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | PART, inner, max_size=5),
    max_leaves=20,
)
LIST = st.lists(st.fixed_dictionaries({"name": st.just("a") | PART}, optional=dict.fromkeys(("cluster", "context", "user"), VALUE)))
KUBECONFIG = st.fixed_dictionaries(
    {"current-context": st.just("a") | VALUE}, optional=dict.fromkeys(("clusters", "contexts", "users"), LIST | VALUE)
)


@given(KUBECONFIG.map(yaml.safe_dump) | VALUE.map(yaml.safe_dump) | st.text() | st.binary(), st.sampled_from(["", "a"]))
def test_anything_is_a_kubeconfig_or_refused_in_one_line(text: str | bytes, context: str) -> None:
    for texts in ({"/k": text}, {"/k": text, "/l": "contexts: [{name: a, context: {cluster: a}}]"}):
        try:
            assert choose(texts, context).server
        except BadInput as error:
            assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["!!bool x", "!!int x", "!!timestamp x", "0b", "[" * 5000, b"\xff\xfea", b"\x00\x01\x02", "<<: 3", "2024-99-99"]
)
def test_what_yaml_itself_stumbles_over_is_refused(text: str | bytes) -> None:
    with pytest.raises(BadInput, match=r"^k "):
        read(text, "k")


class TestSeveralFiles:
    def test_the_first_that_defines_a_thing_counts_as_for_kubectl(self, tmp_path: Path) -> None:
        files = {}
        for folder, server, extra in (("a", "https://a:1", "one"), ("b", "https://b:1", "two")):
            (tmp_path / folder).mkdir()
            path = written(tmp_path / folder / "k", server, exec={"apiVersion": "v1", "command": f"./{folder}", "interactiveMode": "Never"})
            data = yaml.safe_load(path.read_text())
            data["clusters"].append({"name": extra, "cluster": {"server": f"https://{extra}:1"}})
            data["contexts"].append({"name": extra, "context": {"cluster": extra, "user": "nobody" if extra == "one" else "u"}})
            data["current-context"] = "" if folder == "a" else "two"
            path.write_text(yaml.safe_dump(data))
            files[str(path)] = path.read_text()
        assert [choose(files, name).server for name in ("", "here", "one")] == ["https://two:1", "https://a:1", "https://one:1"]
        assert choose(files).plugin == str(tmp_path / "a/a"), "beside the file that defines the user"
        with pytest.raises(BadInput, match="It has: here, lost, one, two"):
            choose(files, "three")
        kubectl = [host_kubectl(), "config", "view", "--raw", "--minify", "-o", "json"]
        said = json.loads(run(kubectl, env={"KUBECONFIG": os.pathsep.join(files)}).stdout)
        assert (said["current-context"], said["clusters"][0]["cluster"]["server"]) == ("two", "https://two:1")
        assert said["users"][0]["user"]["exec"]["command"] == "./a"

    def test_the_same_name_in_one_file_is_left_to_kubectl(self, tmp_path: Path) -> None:
        path = written(tmp_path / "k", token="t")
        path.write_text(path.read_text().replace("users:", "users:\n- name: u"))
        refused(up(tmp_path, "--kubeconfig", str(path)), tmp_path, f"kubectl cannot read {path}", "duplicate name")

    def test_up_reads_them_all(self, tmp_path: Path) -> None:
        first = written(tmp_path / "k", token="t")
        data = yaml.safe_load(first.read_text())
        second = tmp_path / "l"
        second.write_text(yaml.safe_dump({key: data.pop(key) for key in ("clusters", "users")}))
        first.write_text(yaml.safe_dump(data))
        said = up(tmp_path, "--context", "here", KUBECONFIG=f"{first}:/nowhere:{second}")
        refused(said, tmp_path, "the API server https://127.0.0.1:1 cannot be used: nothing listens there")
        said = up(tmp_path, "--context", "there", KUBECONFIG=f"{first}:{second}")
        refused(said, tmp_path, f"{first}:{second} has no context 'there'", "It has: here, lost")

    def test_files_that_are_not_there_are_passed_over_and_home_is_known(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = written(tmp_path / "k")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("KUBECONFIG", f":~/nowhere:~nobody-has-this-name/k:~/k:{path}")
        assert find("") == [path, path]
        with pytest.raises(BadInput, match=r"--kubeconfig names .*, and there is no such file"):
            find(f"{path}:{path}")


class TestRelativePaths:
    def test_a_plugin_and_a_token_are_beside_their_kubeconfig(self) -> None:
        user = {"tokenFile": "secrets/t", "exec": {"command": "../bin/login", "args": ["./as-it-is"]}}
        other = {"tokenFile": "/whole", "exec": {"command": "in-path"}}
        text = json.dumps({"users": [{"name": "u", "user": user}, {"name": "o", "user": other}, {"name": "n", "user": {}}]})
        now = [each["user"] for each in json.loads(settled(text, "/home/me/.kube"))["users"]]
        expected = {"tokenFile": "/home/me/.kube/secrets/t", "exec": {"command": "/home/me/.kube/../bin/login", "args": ["./as-it-is"]}}
        assert now == [expected, other, {}]

    def test_a_plugin_is_looked_for_there_and_not_here(self, tmp_path: Path) -> None:
        (tmp_path / "conf").mkdir()
        plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "bin/login", "interactiveMode": "Never"}
        path = written(tmp_path / "conf/k", exec=plugin)
        program = tmp_path / "conf/bin/login"
        refused(up(tmp_path, "--kubeconfig", str(path)), tmp_path, f"from the program '{program}', which is not on this machine")
        program.parent.mkdir()
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
        refused(up(tmp_path, "--kubeconfig", str(path)), tmp_path, "the kubeconfig's program for tokens failed")


def test_doctor_says_what_is_wrong_with_a_kubeconfig(tmp_path: Path) -> None:
    for number, content in enumerate((b"\x80\x00\xff", b"users: [{name: u, user: {exec: foo}}]", b"- \n", b"\xff\xfea")):
        path = tmp_path / f"k{number}"
        path.write_bytes(content)
        argv = [sys.executable, "-m", "lab_utils", "doctor", "--json"]
        said = subprocess.run(argv, capture_output=True, text=True, timeout=60, env={**os.environ, "KUBECONFIG": str(path)})
        found = {each["name"]: each for each in json.loads(said.stdout)["providers"]}["kubeconfig"]
        assert not found["usable"] and str(path) in found["why"] and "Traceback" not in said.stderr
        refused(up(tmp_path, KUBECONFIG=str(path)), tmp_path, str(path))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("E1129 memcache.go\nThe connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?", True),
        ("Unable to connect to the server: dial tcp: lookup k8s.intern on 10.0.0.1:53: no such host", False),
        ("Unable to connect to the server: dial tcp 10.0.0.1:6443: connect: no route to host", False),
        ("Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout", False),
        ("Unable to connect to the server: dial tcp 10.0.0.1:6443: connect: network is unreachable", False),
        ("Unable to connect to the server: proxyconnect tcp: dial tcp: lookup proxy: no such host", False),
        ("Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority", False),
        ("Unable to connect to the server: getting credentials: exec: connection refused: no such host", False),
        ("error: You must be logged in to the server (Unauthorized)", False),
        ("", False),
    ],
)
def test_only_a_machine_that_says_so_itself_lets_a_cluster_count_as_gone(said: str, expected: bool) -> None:
    """Not what is heard of every cluster behind a VPN by whoever is without it."""
    assert said_no(said) is expected


class TestUp:
    @pytest.mark.parametrize("words", [("--workers", "2"), ("--proxy-mode", "nftables"), ("--proxy-mode", "iptables")], ids=" ".join)
    def test_nodes_and_proxy_are_not_for_us_to_choose(self, tmp_path: Path, words: tuple[str, ...]) -> None:
        said = up(tmp_path, "--kubeconfig", str(written(tmp_path / "k", token="t")), *words)
        refused(said, tmp_path, f"and {words[0]} was given. Leave it out")

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
