"""`lab kubeconfig`, `ssh`, `kubectl`, `logs`: ways into a cluster. Each becomes the program that it starts."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from lab_utils.cli.clusters import name_option
from lab_utils.cluster import ClusterRecord, NodeRecord, load_record, past_proxies, the_obvious_one
from lab_utils.errors import BadInput, HostLacks, Unhealthy

# $0 is the unit, $1 what to say if neither systemd nor the journal knows of it, and the rest the command that reads its journal.
KNOWN = """
systemctl cat "$0" >/dev/null 2>&1 || journalctl -q -n 1 -u "$0" | grep -q . || { echo "$1" >&2; exit 2; }
shift; exec "$@"
"""
PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command()
@name_option
def kubeconfig(name: str | None) -> None:
    """Print the path of the cluster's kubeconfig: export KUBECONFIG=$(lab kubeconfig)"""
    click.echo(_record(name).kubeconfig)


@click.command(context_settings=PASS_ON)
@name_option
@click.argument("node")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str | None, node: str, command: tuple[str, ...]) -> None:
    """A shell on NODE, or one command there: lab ssh w1 -- crictl ps"""
    record = _record(name)
    words = command[1:] if command[:1] == ("--",) else command
    _become(ssh_command(record, _listening(record, node), list(words)))


@click.command(context_settings=PASS_ON)
@name_option
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def kubectl(name: str | None, words: tuple[str, ...]) -> None:
    """kubectl for this cluster: lab kubectl -- get pods -A"""
    record = _record(name)
    words = words[1:] if words[:1] == ("--",) else words
    _become([record.kubectl, "--kubeconfig", record.kubeconfig, *words], past_proxies(record, os.environ))


@click.command()
@name_option
@click.option("-f", "--follow", is_flag=True)
@click.argument("node")
@click.argument("unit", required=False)
def logs(name: str | None, follow: bool, node: str, unit: str | None) -> None:
    """The journal of NODE, or of one UNIT there (kubelet, containerd)."""
    record = _record(name)
    words = ["journalctl", "--no-pager", *(["-u", unit] if unit else []), *(["-f"] if follow else ["-n", "200"])]
    if unit:  # of one that it never heard of, journalctl says that there is nothing, and calls that a success
        words = ["sh", "-c", KNOWN, unit, f"lab: node {node} has no unit {unit!r}. It has: lab ssh {node} -- systemctl list-units", *words]
    _become(ssh_command(record, _listening(record, node), words))


def _listening(record: ClusterRecord, name: str) -> NodeRecord:
    """The node, if anybody is there. ssh would say so in its own words, and end with a code of its own."""
    node = _node(record, name)
    if "key" in node.access:
        try:
            door = (node.access.get("address", node.ip), node.access.get("port", 22))
            socket.create_connection(door, timeout=10 * node.patience).close()
        except OSError as error:
            raise Unhealthy(
                f"node {name} of cluster {record.name!r} does not answer ({error.strerror or error})",
                f"`lab status` says which nodes run; `lab up --name {record.name}` starts those that do not",
            ) from None
    return node


def ssh_command(record: ClusterRecord, node: NodeRecord, words: list[str]) -> list[str]:
    """The command line that reaches a node; by ssh only with its own key and the host key that was made for it."""
    access = node.access
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if "key" not in access:  # containers, and nodes behind a Pod: their provider knows the way
        from lab_utils.providers import provider

        enter = getattr(provider(record.provider), "enter", None)
        if enter is None:
            raise BadInput(f"the nodes of cluster {record.name!r} (provider {record.provider}) are not reached by ssh")
        return list(enter(record, node, words, terminal))
    options = {
        "IdentityFile": quoted(access["key"]),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": quoted(str(record.folder / "known_hosts")),
        "StrictHostKeyChecking": "yes" if access.get("host_key") else "no",
        "LogLevel": "ERROR",
        "ConnectTimeout": f"{10 * node.patience:.0f}",
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    place = ["-p", str(access.get("port", 22)), "-l", access.get("user", "root"), access.get("address", node.ip)]
    # A word list stays a word list: ssh joins its arguments with spaces and hands them to a shell.
    import shlex

    line = [words[0] if len(words) == 1 else shlex.join(words)] if words else []
    return ["ssh", "-F", "none", *flags, *(["-t"] if terminal else []), *place, *(["--", *line] if line else [])]


def quoted(path: str) -> str:
    """A path as one word of ssh_config(5): a space divides words there, as in macOS' "Application Support", and a % begins a token."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _record(name: str | None) -> ClusterRecord:
    return load_record(name or the_obvious_one())


def _node(record: ClusterRecord, name: str) -> NodeRecord:
    for node in record.nodes:
        if node.name == name:
            return node
    raise BadInput(
        f"cluster {record.name!r} has no node {name!r}", f"It has: {', '.join(node.name for node in record.nodes) or 'none yet'}"
    )


def _become(words: list[str], environment: Mapping[str, str] | None = None) -> None:
    """Replace this process: the program's streams, exit code and signals are then its own."""
    sys.stdout.flush()
    try:
        os.execvpe(words[0], words, {**os.environ, **(environment or {})})
    except FileNotFoundError:
        name = Path(words[0]).name
        raise HostLacks(f"the program {name!r} is not on this machine", "Run `lab doctor` to see what to install") from None
