"""ssh to a node that has no sshd: the grader answers, for one key, and lets nothing through but commands for that node."""

from __future__ import annotations

import io
import shlex
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import paramiko
import pytest

from lab_utils.cluster import NodeRecord
from lab_utils.errors import Unhealthy
from lab_utils.grading import gateway
from lab_utils.grading.access import new_key
from lab_utils.grading.gateway import Gateway
from lab_utils.providers.files import FilesByCommands
from lab_utils.providers.ssh import SshNode
from lab_utils.run import Result, run


class Here(FilesByCommands):
    """A node whose commands run in this process's own shell, as a container's would run by `docker exec`."""

    broken = False

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        if self.broken:
            raise Unhealthy("the container does not run")
        return run(["bash", "-c", cmd] if isinstance(cmd, str) else cmd, input=input, timeout=timeout, check=False)


@pytest.fixture
def node() -> Here:
    return Here(NodeRecord("w1", "10.0.0.1", "worker"))


@pytest.fixture
def private(tmp_path: Path) -> tuple[Path, str]:
    secret, public = new_key()
    path = tmp_path / "key"
    path.write_text(secret)
    return path, public


@pytest.fixture
def opened(node: Here, private: tuple[Path, str]) -> Iterator[Gateway]:
    made = Gateway(node, private[1])
    yield made
    made.close()


def through(opened: Gateway, key: Path) -> SshNode:
    return SshNode(NodeRecord("w1", "10.0.0.1", "worker", {**opened.access, "key": str(key)}))


def test_a_node_behind_it_is_like_any_that_is_reached_by_ssh(opened: Gateway, private: tuple[Path, str], tmp_path: Path) -> None:
    reached = through(opened, private[0])
    said = reached.run("echo out; echo err >&2; exit 7")
    assert (said.stdout, said.stderr, said.code) == ("out\n", "err\n", 7)
    assert reached.run("cat", input="through\n").stdout == "through\n"
    assert reached.run(["printf", "%s|", "a b", "$HOME", "it's"]).stdout == "a b|$HOME|it's|"
    data, place = bytes(range(256)) * 999, str(tmp_path / "blob")
    reached.put(data, place)
    assert reached.get(place) == data
    reached.close()


def test_another_key_and_another_user_are_refused(opened: Gateway, private: tuple[Path, str], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(new_key()[0])
    with pytest.raises(Unhealthy, match=r"does not answer by ssh: .*[Aa]uthentication"):
        through(opened, other).run("true")
    client = paramiko.Transport(("127.0.0.1", opened.port))
    try:
        client.start_client()
        with pytest.raises(paramiko.AuthenticationException):
            client.auth_publickey("student", paramiko.Ed25519Key(file_obj=io.StringIO(private[0].read_text())))
        with pytest.raises(paramiko.AuthenticationException):
            client.auth_password("root", "")
    finally:
        client.close()


def test_nothing_but_commands_goes_through(opened: Gateway, private: tuple[Path, str]) -> None:
    client = paramiko.Transport(("127.0.0.1", opened.port))
    try:
        client.connect(username="root", pkey=paramiko.Ed25519Key(file_obj=io.StringIO(private[0].read_text())))
        with pytest.raises(paramiko.ChannelException, match="Administratively prohibited"):
            client.open_channel("direct-tcpip", ("127.0.0.1", 22), ("127.0.0.1", 1))
        for ask in (paramiko.Channel.get_pty, paramiko.Channel.invoke_shell, lambda channel: channel.invoke_subsystem("sftp")):
            with pytest.raises(paramiko.SSHException):
                ask(client.open_session())
        with pytest.raises(paramiko.SSHException):
            client.request_port_forward("127.0.0.1", 0)
    finally:
        client.close()


def test_a_forced_command_runs_in_place_of_what_was_asked_and_is_told_of_it(node: Here, private: tuple[Path, str], tmp_path: Path) -> None:
    look = tmp_path / "look"
    look.write_text('#!/bin/sh\necho "asked for: $SSH_ORIGINAL_COMMAND"\n')
    look.chmod(0o755)
    made = Gateway(node, private[1], str(look))
    try:
        asked = f"touch {shlex.quote(str(tmp_path / 'made'))}; echo 'quoted \"words\"' $HOME"
        assert through(made, private[0]).run(asked).stdout == f"asked for: {asked}\n"
        assert not (tmp_path / "made").exists()
    finally:
        made.close()


def test_what_is_too_long_is_cut_off_before_it_fills_the_graders_memory(
    opened: Gateway, private: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "OUTPUT", 1000)
    said = through(opened, private[0]).run("yes; echo never >&2")
    assert (len(said.stdout), said.stderr) == (1000, "never\n")
    assert len(through(opened, private[0]).run("yes >&2 & sleep 0.3; kill $!; echo out").stderr) == 1000


def test_a_node_that_does_not_run_is_said_to_be_so(opened: Gateway, node: Here, private: tuple[Path, str]) -> None:
    node.broken = True
    said = through(opened, private[0]).run("true")
    assert (said.code, said.stderr) == (255, "the container does not run\n")


def test_few_commands_and_connections_at_once_so_that_none_fills_the_graders_memory(opened: Gateway, private: tuple[Path, str]) -> None:
    client = paramiko.Transport(("127.0.0.1", opened.port))
    silent = []
    try:
        client.connect(username="root", pkey=paramiko.Ed25519Key(file_obj=io.StringIO(private[0].read_text())))
        waiting = [client.open_session() for _ in range(gateway.AT_ONCE)]
        for channel in waiting:
            channel.exec_command("cat")
        with pytest.raises(paramiko.SSHException):
            client.open_session().exec_command("echo one too many")
        waiting[0].shutdown_write()
        assert waiting[0].recv_exit_status() == 0
        again = client.open_session()
        again.exec_command("echo there is a place again")
        again.shutdown_write()
        assert again.recv(100) == b"there is a place again\n"
        silent = [socket.create_connection(("127.0.0.1", opened.port)) for _ in range(gateway.CONNECTIONS + 5)]
        assert [one.recv(3) for one in silent].count(b"") >= 5  # those beyond the limit are closed without a greeting
    finally:
        for one in silent:
            one.close()
        client.close()
