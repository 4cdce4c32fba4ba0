"""Carries connections from a sandbox's doors to the cluster, and nowhere else.

The listening sockets were opened inside of the sandbox's network namespace; the connections to the cluster
are made out here. There is no address that a student could ask for: each door has one fixed target.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from lab_utils.grading.sandbox import Door


class Relay:
    """Runs in a thread of its own until `close`."""

    def __init__(self, doors: Sequence[tuple[Door, socket.socket]], connections: int) -> None:
        self._doors = doors
        self._connections = connections
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        if doors:
            self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        for door, listening in self._doors:
            listening.setblocking(False)
            self._loop.create_task(self._accept(door, listening))
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with suppress(Exception):
            self._loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(self._loop), return_exceptions=True))
        self._loop.close()

    async def _accept(self, door: Door, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            if len(self._open) >= self._connections:
                connection.close()
                continue
            task = self._loop.create_task(self._carry(door, connection))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _carry(self, door: Door, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            far = await asyncio.wait_for(asyncio.open_connection(*door.target, limit=1 << 16), 10)
        except (OSError, TimeoutError):
            connection.close()
            return
        near = await asyncio.open_connection(sock=connection, limit=1 << 16)
        try:
            await asyncio.gather(_pump(near[0], far[1]), _pump(far[0], near[1]))
        finally:
            for _, writer in (near, far):
                writer.close()

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        elif not self._loop.is_closed():
            self._loop.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, with back pressure: nothing is read faster than it is written."""
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
