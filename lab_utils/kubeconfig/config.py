"""What a kubeconfig says, and what it means when a server does not answer."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab_utils.errors import BadInput, HostLacks, LabError
from lab_utils.run import last_line

Entries = dict[str, tuple[str, dict[str, Any]]]  # name → the folder of the file that defines it, and what it says


@dataclass(frozen=True)
class Context:
    context: str
    server: str
    plugin: str = ""  # a program that is asked for credentials; absolute, unless it is looked for in $PATH
    hint: str = ""  # how to install it, in the kubeconfig's own words
    folder: str = ""  # what the user's relative paths are beside


def find(said: str) -> list[Path]:
    """The files that are meant: the option's one, all that $KUBECONFIG names, or kubectl's own place. Like kubectl, it passes over files
    of $KUBECONFIG that are not there."""
    asked = said or os.environ.get("KUBECONFIG", "")
    named = [asked] if said else [part for part in asked.split(os.pathsep) if part] or ["~/.kube/config"]
    candidates = [Path(os.path.expanduser(part)) for part in named]  # noqa: PTH111  (Path's own raises where it knows no home)
    if found := [path.absolute() for path in candidates if path.is_file()]:
        return found
    where = "--kubeconfig" if said else "KUBECONFIG" if asked else ""
    missing = f"{where} names {asked}, and there is no such file" if where else f"there is no kubeconfig ({candidates[0]})"
    raise BadInput(missing, "Name one with --kubeconfig FILE")


def load(files: Sequence[Path], context: str = "") -> Context:
    """One context of what these files hold together."""
    texts = {}
    for path in files:
        try:
            texts[str(path)] = path.read_bytes()  # as bytes: YAML says itself how it is encoded, and PowerShell writes UTF-16
        except OSError as error:
            raise BadInput(f"{path} cannot be read ({error.strerror})") from None
    return choose(texts, context)


def read(text: str | bytes, where: str, context: str = "") -> Context:
    """One context of a kubeconfig, by default its current one. Pure."""
    return choose({where: text}, context)


def choose(texts: Mapping[str, str | bytes], context: str = "") -> Context:
    """The same of several, merged as kubectl does it: whatever is defined twice counts as the first file says it, whole. Pure."""
    files = {where: _parsed(text, where) for where, text in texts.items()}
    where = os.pathsep.join(files)
    contexts = _merged(files, "contexts", "context")
    clusters = _merged(files, "clusters", "cluster")
    users = _merged(files, "users", "user")
    current = next(filter(None, (_word(data, "current-context", name) for name, data in files.items())), "")
    wanted, names = context or current, ", ".join(filter(None, contexts))
    if not wanted:
        raise BadInput(f"{where} names no current context", f"Choose one with --context: {names or 'it has none'}")
    if wanted not in contexts:
        raise BadInput(f"{where} has no context {wanted!r}", f"It has: {names or 'none'}")
    chosen = contexts[wanted][1]
    server = _word(clusters.get(_word(chosen, "cluster", where), ("", {}))[1], "server", where)
    if not server:
        raise BadInput(f"{where}: context {wanted!r} names a cluster that the file does not describe")
    folder, user = users.get(_word(chosen, "user", where), ("", {}))
    plugin = _mapping(user.get("exec"), "exec", where)
    command, hint = _word(plugin, "command", where), _word(plugin, "installHint", where)
    return Context(wanted, server, beside(folder, command) if os.sep in command else command, " ".join(hint.split()), folder)


def settled(flattened: str, folder: str) -> str:
    """What `kubectl config view --flatten` wrote, for another folder: of a user it leaves two paths as they were, beside the file that
    they came from. Pure."""
    data = json.loads(flattened)
    for each in data.get("users") or []:
        plugin = each["user"].get("exec") or {}
        if os.sep in plugin.get("command", ""):  # without one, it is looked for in $PATH
            plugin["command"] = beside(folder, plugin["command"])
        if token := each["user"].get("tokenFile"):
            each["user"]["tokenFile"] = beside(folder, token)
    return json.dumps(data, indent=2) + "\n"


def beside(folder: str, path: str) -> str:
    return str(Path(folder) / path)


class _Loader(yaml.SafeLoader):
    """As kubectl reads YAML: what looks like a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _parsed(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        data = yaml.load(text, _Loader)
    # Beside its own errors PyYAML lets through what Python says of a value that is not what its tag promises, or of too deep a nest.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise BadInput(f"{where} is not YAML ({' '.join(str(error).split())})") from None
    if data is not None and not isinstance(data, dict):
        raise BadInput(f"{where} is no kubeconfig", "It has clusters, users and contexts: see `kubectl config view`")
    return data or {}


def _merged(files: Mapping[str, dict[str, Any]], key: str, inner: str) -> Entries:
    found: Entries = {}
    for where, data in files.items():
        entries = data.get(key) or []
        if not isinstance(entries, list):
            raise _misshapen(key, where)
        for each in entries:
            entry = _mapping(each, key, where)
            found.setdefault(_word(entry, "name", where), (str(Path(where).parent), _mapping(entry.get(inner), inner, where)))
    return found


def _mapping(value: Any, key: str, where: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise _misshapen(key, where)
    return value or {}


def _word(data: Mapping[str, Any], key: str, where: str) -> str:
    """A text; like kubectl, nothing for null, and no guess at what a number was meant to be."""
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise _misshapen(key, where)
    return value or ""


def _misshapen(key: str, where: str) -> BadInput:
    return BadInput(f"{where}: {key!r} is not what kubectl writes there", "See `kubectl config view`")


# What kubectl says → what it means, and the way out. The first that fits counts.
REFUSALS = (
    (("getting credentials",), "the kubeconfig's program for tokens failed", "Log in with it (or install it), then try again"),
    (("unauthorized", "must be logged in", "asked for the client to provide credentials"), "it does not accept this user", "Log in anew"),
    (("enter username", "eof"), "the kubeconfig holds no credentials for it", "Log in anew"),
    (("forbidden",), "it does not let this user in", "Use a context with more rights"),
    (("x509", "tls:"), "its certificate is not the one that the kubeconfig expects", "Fetch the kubeconfig anew"),
    (("no such host", "lookup "), "there is no machine of that name", "Is the cluster still there? Are you on its network?"),
    (("refused",), "nothing listens there", "Is the cluster running?"),
    (
        ("timeout", "deadline", "timed out", "ended after", "no route", "unreachable"),
        "it does not answer",
        "Is the cluster running, and reachable?",
    ),
)


def why_no_answer(said: str, server: str) -> LabError:
    lower = said.lower()
    for signs, why, mend in REFUSALS:
        if any(sign in lower for sign in signs):
            return HostLacks(f"the API server {server} cannot be used: {why} ({last_line(said)})", mend)
    return HostLacks(f"the API server {server} cannot be used: {last_line(said)}")


def refused(said: str) -> bool:
    """Whether a machine answered that nothing listens there: the nearest to a cluster that is gone. Even so it may live: behind a tunnel
    that is closed, or at an address that without its VPN is somebody else's. A name that nobody knows and an address to which no way leads
    tell less than that: whoever is without the VPN hears just this of every cluster behind it."""
    return bool(re.match(r"The connection to the server \S+ was refused", last_line(said)))
