"""A Jupyter kernel in a sandbox, and the one loop that talks to it.

The protocol is Jupyter's own (jupyter_client packs, signs and unpacks), but the loop is ours and not
nbclient's, because the other side is hostile: what arrives is counted before it is kept, every wait has a
deadline, and a kernel that will not stop is killed together with its sandbox. Nothing that a kernel says
is believed; it is only shown.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import zmq
from jupyter_client.session import Session

from lab_utils.grading.limits import Limits
from lab_utils.grading.sandbox import HOME, SOCKETS, Door, Sandbox, SandboxFailed, View

End = Literal["ok", "error", "time", "output", "dead", "skipped"]
CONNECTION = f"{SOCKETS}/connection.json"
PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}


@dataclass
class Output:
    """One thing that a cell showed: text, an error, or a picture (PNG in base64, or SVG)."""

    kind: Literal["text", "error", "png", "svg"]
    data: str


@dataclass
class Outcome:
    """How a cell ended. `error` and `time` leave a kernel that goes on; `dead` does not."""

    end: End
    seconds: float = 0.0
    outputs: list[Output] = field(default_factory=list)
    note: str = ""  # for a person: why it ended that way
    output_bytes: int = 0
    alive: bool = True


class Kernel:
    def __init__(self, name: str, view: View, env: Mapping[str, str], limits: Limits, doors: Sequence[Door] = ()) -> None:
        self.limits = limits
        key = secrets.token_hex(32)
        self.session = Session(key=key.encode(), username="grader")
        connection = {"transport": "ipc", "ip": f"{SOCKETS}/k", "key": key, "signature_scheme": "hmac-sha256", **PORTS}
        view = replace(view, files={**view.files, CONNECTION: json.dumps(connection)})
        argv = [sys.executable, "-B", "-m", "ipykernel_launcher", "-f", CONNECTION, "--HistoryManager.enabled=False"]
        self.sandbox = Sandbox(name, view, argv, {**base_env(), **env}, limits, doors)
        self.context = zmq.Context(io_threads=1)
        self.dead = ""
        self.monitors: dict[zmq.Socket[bytes], zmq.Socket[bytes]] = {}
        try:
            self.control = self._socket(zmq.DEALER, 4)
            self.shell = self._open(zmq.DEALER, 1)
            self.iopub = self._open(zmq.SUB, 2)
            self._wait_ready()
        except BaseException:
            self.close()
            raise

    def _socket(self, kind: int, port: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self.context.socket(kind)
        socket.linger = 0
        socket.rcvhwm = 16  # messages that wait; together with maxmsgsize the bound on what a flood can cost us
        socket.maxmsgsize = self.limits.message_bytes
        socket.reconnect_ivl = 20
        # The folder of the sockets exists in the sandbox only; our descriptor of it is the way in.
        socket.connect(f"ipc:///proc/self/fd/{self.sandbox.sockets}/k-{port}")
        return socket

    def _open(self, kind: int, port: int) -> zmq.Socket[bytes]:
        """A channel that is watched: ZeroMQ ends a connection for good when a message is larger than allowed."""
        socket = self._socket(kind, port)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        self.monitors[socket] = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        return socket

    def _cut_off(self, socket: zmq.Socket[bytes]) -> bool:
        """Whether this channel was lost; if so, its monitor is used up."""
        if not self.monitors[socket].poll(0):
            return False
        socket.disable_monitor()
        self.monitors.pop(socket).close(0)
        socket.close(0)
        return True

    def _wait_ready(self) -> None:
        """Ask until it answers, and until its broadcasts reach us (a subscription takes a moment)."""
        deadline = time.monotonic() + self.limits.start_seconds
        answered = heard = False
        asked = 0.0
        while not (answered and heard):
            if not self.sandbox.alive:
                raise SandboxFailed(f"the kernel ended while it started: {self.sandbox.last_words()[-600:]}")
            if time.monotonic() > deadline:
                raise SandboxFailed(f"the kernel did not start within {self.limits.start_seconds:g} s: {self.sandbox.last_words()[-600:]}")
            if time.monotonic() - asked > 0.25:
                self.session.send(self.shell, "kernel_info_request")
                asked = time.monotonic()
            for socket, message, _ in self._receive(0.05):
                answered = answered or (socket is self.shell and bool(message))
                heard = heard or (socket is self.iopub and bool(message))

    def _receive(self, seconds: float) -> list[tuple[zmq.Socket[bytes], dict[str, Any], int]]:
        """What has arrived, one message of each channel at most. A message that cannot be read is empty, but has a size."""
        poller = zmq.Poller()
        poller.register(self.iopub, zmq.POLLIN)
        poller.register(self.shell, zmq.POLLIN)
        found = []
        for socket, _ in poller.poll(max(0, int(seconds * 1000))):
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                continue
            size = sum(len(part) for part in parts)
            message: dict[str, Any] = {}
            # Bad signatures, bad JSON, JSON that is nested too deep, fields that are missing: all the same to us.
            with suppress(Exception):
                _, rest = self.session.feed_identities(parts)
                read = self.session.deserialize(rest)
                message = {
                    "type": str(read["header"]["msg_type"]),
                    "parent": str(read["parent_header"].get("msg_id", "")),
                    "content": dict(read["content"]),
                }
            found.append((socket, message, size))
        return found

    def run(self, code: str, seconds: float) -> Outcome:
        """Run one cell for at most so many seconds (and the grace), whatever it does."""
        if not self.dead and not self.sandbox.alive:
            self.dead = "the kernel had ended (exit, quit)"
        if self.dead:
            return Outcome("skipped", note=f"not executed: {self.dead}", alive=False)
        begun = time.monotonic()
        outcome = Outcome("ok")
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        request = self.session.msg("execute_request", content)
        asked = request["header"]["msg_id"]
        self.session.send(self.shell, request)
        keep = Keeper(self.limits)
        deadline = begun + seconds
        stopping = ""  # why the cell was interrupted
        idle = False
        reply: dict[str, Any] | None = None
        while not (reply and idle):
            now = time.monotonic()
            if now > deadline:
                if reply:  # only the broadcast "idle" is missing, and it may have been dropped in a flood
                    break
                if stopping:
                    self.stop(stopping + "; it ignored the interrupt, so its kernel was killed")
                    break
                stopping = f"the cell ran longer than {seconds:g} s"
                deadline = self._interrupt()
            for socket, message, size in self._receive(min(0.5, max(0.01, deadline - now))):
                outcome.output_bytes += size
                if outcome.output_bytes > self.limits.cell_output_bytes and not stopping:
                    stopping = f"the cell wrote more than {self.limits.cell_output_bytes // 2**20} MiB of output"
                    outcome.end = "output"
                    deadline = self._interrupt()
                if message.get("parent") != asked:
                    continue
                if socket is self.shell and message["type"] == "execute_reply":
                    reply = message["content"]
                    deadline = min(deadline, time.monotonic() + self.limits.idle_seconds)
                elif socket is self.iopub:
                    content = message["content"]
                    idle = idle or (message["type"] == "status" and content.get("execution_state") == "idle")
                    keep.add(message["type"], content)
            if not self.sandbox.alive:
                self.stop(self._why_it_ended())
                break
            if self._cut_off(self.iopub):
                keep.note("an output larger than a message may be was dropped")
                outcome.output_bytes += self.limits.message_bytes
                self.iopub = self._open(zmq.SUB, 2)
            if self._cut_off(self.shell):
                reply = {"status": "error", "ename": "TooLarge", "evalue": "the kernel's reply was larger than a message may be"}
                self.shell = self._open(zmq.DEALER, 1)
                deadline = min(deadline, time.monotonic() + self.limits.idle_seconds)
        if reply is not None and asks_to_exit(reply) and not self.dead:
            self.stop("the cell ended its kernel (exit, quit)")  # it goes by itself, but nobody knows when
        outcome.outputs = keep.outputs
        outcome.seconds = time.monotonic() - begun
        if self.dead:
            outcome.note, outcome.alive = self.dead, False
            outcome.end = outcome.end if outcome.end == "output" else "time" if stopping else "dead"
        elif stopping:
            outcome.note = stopping
            outcome.end = outcome.end if outcome.end == "output" else "time"
        elif reply is not None and reply.get("status") != "ok":
            outcome.end = "error"
            outcome.note = f"{clip(reply.get('ename'))}: {clip(reply.get('evalue'))}"
        return outcome

    def _interrupt(self) -> float:
        self.session.send(self.control, "interrupt_request", {})
        return time.monotonic() + self.limits.grace_seconds

    def stop(self, why: str) -> None:
        """End the kernel now; cells that come later are not executed, and say why."""
        self.dead = why
        self.sandbox.kill()

    def _why_it_ended(self) -> str:
        if self.sandbox.cgroup.out_of_memory():
            return f"the kernel was killed: it used more than {self.limits.memory_bytes // 2**20} MiB of memory"
        return "the kernel ended while the cell ran (sys.exit, os._exit, a crash)"

    def close(self) -> None:
        self.sandbox.kill()
        self.context.destroy(linger=0)
        self.sandbox.close()


class Keeper:
    """Keeps the beginning of what a cell shows, in bounded space."""

    def __init__(self, limits: Limits) -> None:
        self.outputs: list[Output] = []
        self.text_left = limits.kept_bytes
        self.pictures_left = limits.picture_bytes

    def add(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "stream":
            self._text("text", content.get("text"))
        elif kind == "error":
            traceback = content.get("traceback")
            lines = [line for line in traceback if isinstance(line, str)] if isinstance(traceback, list) else []
            self._text("error", "\n".join(lines) or f"{content.get('ename')}: {content.get('evalue')}")
        elif kind in ("display_data", "execute_result"):
            data = content.get("data")
            if isinstance(data, dict) and not (
                self._picture("svg", data.get("image/svg+xml")) or self._picture("png", data.get("image/png"))
            ):
                self._text("text", data.get("text/plain"))

    def note(self, text: str) -> None:
        if not any(output.data.startswith("(" + text) for output in self.outputs):
            self.outputs.append(Output("text", f"({text})\n"))

    def _text(self, kind: Literal["text", "error"], text: object) -> None:
        if not isinstance(text, str) or not text or self.text_left <= 0:
            return
        kept = text[: self.text_left]
        self.text_left -= len(kept) + 16  # an entry costs something too
        if self.text_left <= 0:
            kept += "\n… (the rest was not kept)"
        if self.outputs and self.outputs[-1].kind == kind == "text":
            self.outputs[-1].data += kept
        else:
            self.outputs.append(Output(kind, kept))

    def _picture(self, kind: Literal["png", "svg"], data: object) -> bool:
        if not isinstance(data, str) or len(data) > self.pictures_left:
            return False
        self.pictures_left -= len(data) + 256
        self.outputs.append(Output(kind, data))
        return True


def asks_to_exit(reply: dict[str, Any]) -> bool:
    payload = reply.get("payload")
    return isinstance(payload, list) and any(isinstance(one, dict) and one.get("source") == "ask_exit" for one in payload[:20])


def clip(value: object, length: int = 300) -> str:
    text = str(value) if isinstance(value, str) else ""
    return text if len(text) <= length else text[:length] + "…"


def base_env() -> dict[str, str]:
    """The environment of the kernel, made from nothing."""
    python = str(Path(sys.executable).parent)
    return {
        "PATH": f"{HOME}/bin:{python}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": HOME,
        "USER": "student",
        "LOGNAME": "student",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": "/tmp",
        "IPYTHONDIR": f"{HOME}/.ipython",
        "JUPYTER_CONFIG_DIR": f"{HOME}/.jupyter",
        "JUPYTER_RUNTIME_DIR": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",  # the same order of sets on every run: grading is repeatable
        "OPENBLAS_NUM_THREADS": "1",  # threads count as processes
    }
