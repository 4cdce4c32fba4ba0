"""Ports of this host, asked before anything is made."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lab_utils.errors import BadInput
from lab_utils.kind.ports import is_busy, need_free


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield int(one.getsockname()[1])


def test_a_port_on_which_somebody_listens_is_busy(busy: int) -> None:
    with pytest.raises(BadInput, match=rf"--port asks for port {busy} of this host, which another program has. Choose another"):
        need_free([busy])


def test_a_port_on_which_somebody_listens_everywhere_is_busy() -> None:
    with socket.socket() as one:
        one.bind(("0.0.0.0", 0))
        one.listen()
        assert is_busy(one.getsockname()[1])


def test_a_port_that_was_let_go_is_free_also_right_after_a_connection() -> None:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as every server does
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), one.accept()[0]:
            assert is_busy(port)
    need_free([port])
