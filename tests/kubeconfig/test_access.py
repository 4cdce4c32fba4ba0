"""What kubectl says of itself is told from what a command on the node said."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.kubeconfig.access import of_kubectl, spent, unstarted, usable
from lab_utils.run import Result

# As kubectl v1.36 said each, on a cluster where it was brought about.
REFUSED = [
    'Error from server (NotFound): pods "node-w1" not found',
    'Error from server (Forbidden): pods "node-w1" is forbidden: User "kubernetes-admin" cannot get resource "pods"',
    "The connection to the server 172.31.64.11:6443 was refused - did you specify the right host or port?",
    "Unable to connect to the server: dial tcp: lookup nowhere.invalid on 10.0.0.1:53: no such host",
    'error: unable to upgrade connection: container not found ("node")',
    "error: unable to upgrade connection: error dialing backend: dial tcp 172.31.64.12:10250: connect: connection refused",
    "error: cannot exec into a container in a completed pod; current phase is Succeeded",
]
LOST = [
    "error: error reading from error stream: next reader: websocket: close 1006 (abnormal closure): unexpected EOF",
    'error: Internal error occurred: error executing command in container: exec: "chroot": executable file not found in $PATH',
    "Unable to connect to the server: EOF",
]


@pytest.mark.parametrize(
    "said",
    [
        "command terminated with exit code 3\n",
        "err\ncommand terminated with exit code 3",
        f"{REFUSED[0]}command terminated with exit code 3\n",
    ],
)
def test_a_command_that_fails_is_no_failure_of_kubectl(said: str) -> None:
    assert of_kubectl(Result("", said, 3)) == ""
    assert of_kubectl(Result("", said, 1)), "another code than the one that kubectl names"


def test_a_command_that_succeeds_may_say_anything() -> None:
    assert of_kubectl(Result("", REFUSED[0], 0)) == ""


@pytest.mark.parametrize("said", REFUSED)
def test_what_was_turned_down_may_be_sent_again(said: str) -> None:
    assert of_kubectl(Result("", f"{said}\n", 1)) == said.removeprefix("error: ")
    assert unstarted(Result("", f"{said}\n", 1))
    assert not unstarted(Result("it ran\n", f"{said}\n", 1))


@pytest.mark.parametrize("said", LOST)
def test_what_may_have_been_started_is_not(said: str) -> None:
    assert of_kubectl(Result("", f"{said}\n", 1)) == said.removeprefix("error: ")
    assert not unstarted(Result("", f"{REFUSED[0]}\n{said}\n", 1))


@pytest.mark.parametrize(
    ("pod", "use", "remove"),
    [
        ({}, "", False),
        ({"status": {"phase": "Running"}, "metadata": {"uid": "u"}}, "u", False),
        ({"status": {"phase": "Running"}, "metadata": {"uid": "u", "deletionTimestamp": "now"}}, "", True),
        ({"status": {"phase": "Pending"}, "metadata": {"uid": "u"}}, "", False),
        ({"status": {"phase": "Failed"}, "metadata": {"uid": "u"}}, "", True),
        ({"status": {"phase": "Succeeded"}, "metadata": {"uid": "u"}}, "", True),
    ],
)
def test_a_pod_is_used_or_waited_for_or_made_anew(pod: dict[str, Any], use: str, remove: bool) -> None:
    assert (usable(pod), spent(pod)) == (use, remove)
