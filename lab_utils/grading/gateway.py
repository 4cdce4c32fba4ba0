"""ssh to nodes that have no sshd: containers, and nodes that are reached through a Pod.

What reaches those is the grader's own power over Docker or over the cluster, which no student's code may have. So the grader answers
ssh itself, on the loopback, for one node and one key: each command that comes in is run on the node by the provider's own way, and
only that. From inside the sandbox a node looks the same on every provider.
"""

from __future__ import annotations

import io
import shlex
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from lab_utils.cluster import Node
from lab_utils.errors import LabError

if TYPE_CHECKING:
    import paramiko

SECONDS = 600  # for one command
INPUT = 16 << 20
AT_ONCE = 10  # commands, as sshd's MaxSessions has it: their input is held in the grader's memory
CONNECTIONS = 20
OUTPUT = 32 << 20  # of each stream: more is cut off on the node, before it comes into the grader's memory

# Both streams through head, the code kept: $1 is the command, $2 the limit.
BOUNDED = """
{ { bash -c "$1" 2>&1 1>&3 3>&- | head -c "$2" >&2 3>&-; exit "${PIPESTATUS[0]}"; } 3>&1; } | head -c "$2"; exit "${PIPESTATUS[0]}"
"""


class Gateway:
    """Listens until `close`. `forced` is what sshd(8) calls a forced command: it runs in place of every command, which it is told."""

    def __init__(self, node: Node, public: str, forced: str = "") -> None:
        import paramiko

        self.node = node
        self.allowed = public.split()[1]
        self.forced = forced
        self.key = paramiko.Ed25519Key(file_obj=io.StringIO(_host_key()))
        self.transports: list[paramiko.Transport] = []
        self.places = threading.BoundedSemaphore(AT_ONCE)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listening.getsockname()[1])
        threading.Thread(target=self._accept, name=f"gateway-{node.name}", daemon=True).start()

    @property
    def access(self) -> dict[str, object]:
        """What a node's record says so that it is reached through here, but for the key."""
        host_key = f"{self.key.get_name()} {self.key.get_base64()}"
        return {"user": "root", "address": "127.0.0.1", "port": self.port, "host_key": host_key}

    def close(self) -> None:
        self.listening.close()
        for transport in self.transports:
            transport.close()

    def _accept(self) -> None:
        import paramiko

        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return  # closed
            with suppress(OSError, EOFError, paramiko.SSHException):
                self.transports = [one for one in self.transports if one.is_active()]
                if len(self.transports) >= CONNECTIONS:
                    connection.close()
                    continue
                transport = paramiko.Transport(connection)
                transport.daemon = True
                transport.add_server_key(self.key)
                self.transports.append(transport)
                transport.start_server(server=_rules(self), event=threading.Event())

    def run(self, channel: paramiko.Channel, line: str) -> None:
        """One command: its input to the end, then its two streams and its code."""
        try:
            data = bytearray()
            while (piece := channel.recv(1 << 16)) and len(data) <= INPUT:
                data += piece
            if self.forced:
                line = f"exec env SSH_ORIGINAL_COMMAND={shlex.quote(line)} {self.forced}"
            try:
                said = self.node.run(["bash", "-c", BOUNDED, "gateway", line, str(OUTPUT)], input=bytes(data), timeout=SECONDS)
                out, err, code = said.stdout, said.stderr, said.code
            except LabError as error:
                out, err, code = "", f"{error}\n", 255  # as ssh itself says that it could not
            channel.sendall(out.encode())
            channel.sendall_stderr(err.encode())
            channel.send_exit_status(code)
        except OSError:
            pass  # whoever asked has gone
        finally:
            self.places.release()
            channel.close()


def _rules(gateway: Gateway) -> paramiko.ServerInterface:
    """One key; sessions with one command, few at once. No forwarding, terminals, agents, subsystems: paramiko refuses unless allowed."""
    import paramiko
    from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED, OPEN_SUCCEEDED

    class Rules(paramiko.ServerInterface):
        def get_allowed_auths(self, username: str) -> str:
            return "publickey"

        def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
            return AUTH_SUCCESSFUL if username == "root" and key.get_base64() == gateway.allowed else AUTH_FAILED

        def check_channel_request(self, kind: str, chanid: int) -> int:
            return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

        def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
            if not gateway.places.acquire(blocking=False):
                return False
            line = command.decode(errors="replace")
            threading.Thread(target=gateway.run, args=(channel, line), daemon=True).start()
            return True

    return Rules()


def _host_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    made = Ed25519PrivateKey.generate()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    return made.private_bytes(*form).decode()
