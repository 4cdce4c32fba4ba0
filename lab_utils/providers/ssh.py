"""Nodes that are reached by ssh: embedded nodes and virtual machines alike.

One connection per node is opened at the first command and kept; each command is a channel of its own,
so many threads may ask the same node at once. Keys and the expected host key come from the cluster's
record: nothing of the user's own ~/.ssh is read or written.
"""

from __future__ import annotations

import base64
import logging
import shlex
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab_utils.cluster import NodeRecord
from lab_utils.errors import CommandFailed, Unhealthy
from lab_utils.providers.files import FilesByCommands
from lab_utils.run import Result

if TYPE_CHECKING:
    import paramiko

PIECE = 1 << 15  # what one packet carries

# A connection that breaks (the node was reset) is an error of ours or opened again; not a line of paramiko's in the middle of a report.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class SshNode(FilesByCommands):
    """`access` of the record holds: user, port, key (path), host_key ("ssh-ed25519 AAAA…").

    `patience` there says how many times longer than elsewhere to wait for anything on this node: its processor may be emulated.
    """

    def __init__(self, record: NodeRecord) -> None:
        super().__init__(record)
        self.access = record.access
        self._client: paramiko.SSHClient | None = None
        self._lock = threading.Lock()

    def run(self, cmd: str | Sequence[str], *, timeout: float = 60, input: str | bytes | None = None, check: bool = False) -> Result:
        line = cmd if isinstance(cmd, str) else shlex.join(cmd)
        if self.access.get("user", "root") != "root":
            line = f"sudo -n sh -c {shlex.quote(line)}"
        channel = self._channel()
        try:
            channel.exec_command(line)
            result = _drain(channel, input.encode() if isinstance(input, str) else input, timeout * self.patience)
        finally:
            channel.close()
        if check and not result.ok:
            raise CommandFailed(["lab", "ssh", self.name, "--", line], result.code, result.stdout, result.stderr)
        return result

    def close(self) -> None:
        with self._lock:
            if self._client:
                self._client.close()
                self._client = None

    def _channel(self) -> paramiko.Channel:
        """A new channel; a connection that has died (the node was reset) is opened once more."""
        import paramiko

        for attempt in (1, 2):
            try:
                transport = self._connected()
                return transport.open_session(timeout=20 * self.patience)
            except (paramiko.SSHException, EOFError, OSError) as error:
                self.close()
                if attempt == 2:
                    raise Unhealthy(f"node {self.name} ({self.ip}) does not answer by ssh: {error}", "Look at `lab status`") from None
        raise AssertionError("unreachable")

    def _connected(self) -> paramiko.Transport:
        import paramiko

        with self._lock:
            transport = self._client.get_transport() if self._client else None
            if transport and transport.is_active():
                return transport
            client = paramiko.SSHClient()
            port = int(self.access.get("port", 22))
            address = self.access.get("address", self.ip)
            if host_key := self.access.get("host_key"):
                kind, blob = host_key.split()[:2]
                name = address if port == 22 else f"[{address}]:{port}"
                client.get_host_keys().add(name, kind, paramiko.Ed25519Key(data=base64.b64decode(blob)))
                client.set_missing_host_key_policy(paramiko.RejectPolicy())
            else:  # a VM whose first boot made its own key
                client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
            client.connect(
                address,
                port=port,
                username=self.access.get("user", "root"),
                key_filename=self.access["key"],
                timeout=10 * self.patience,
                banner_timeout=20 * self.patience,
                auth_timeout=20 * self.patience,
                allow_agent=False,
                look_for_keys=False,
            )
            self._client = client
            opened = client.get_transport()
            assert opened is not None
            opened.set_keepalive(30)
            return opened


def _drain(channel: paramiko.Channel, data: bytes | None, timeout: float) -> Result:
    """Send `data`, collect both streams to their end, and the exit code; 124 when the time is over."""
    deadline = time.monotonic() + timeout
    writer = threading.Thread(target=_send, args=(channel, data, deadline), daemon=True)
    writer.start()
    errors: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(channel.recv_stderr, errors, deadline, channel), daemon=True)
    reader.start()
    output: list[bytes] = []
    in_time = _read_all(channel.recv, output, deadline, channel)
    if in_time:
        reader.join(max(0.1, deadline - time.monotonic()))
        in_time = channel.status_event.wait(max(0.1, deadline - time.monotonic()))
    code = channel.recv_exit_status() if in_time else 124
    tail = "" if in_time else f"\nended after {timeout:g} s"
    return Result(b"".join(output).decode(errors="replace"), b"".join(errors).decode(errors="replace") + tail, code)


def _send(channel: paramiko.Channel, data: bytes | None, deadline: float) -> None:
    rest = memoryview(data or b"")
    try:
        while rest:
            try:
                # Not sendall: it copies all that is left after each packet, which for an image archive takes minutes.
                rest = rest[channel.send(bytes(rest[:PIECE])) :]
            except TimeoutError:  # the readers' time limit, which is the channel's: a slow node takes no more just now
                if time.monotonic() > deadline:
                    return
        channel.shutdown_write()
    except (OSError, EOFError):
        pass  # the command ended without reading all of it, or its connection did; the exit code tells


def _read_all(receive: object, into: list[bytes], deadline: float, channel: paramiko.Channel) -> bool:
    channel.settimeout(0.5)
    while True:
        try:
            piece = receive(1 << 16)  # type: ignore[operator]
        except TimeoutError:
            if time.monotonic() > deadline:
                return False
            continue
        if not piece:
            return True
        into.append(piece)
        if time.monotonic() > deadline:
            return False
