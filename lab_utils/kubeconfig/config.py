"""What a kubeconfig says, and what it means when a server does not answer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab_utils.errors import BadInput, HostLacks, LabError


@dataclass(frozen=True)
class Context:
    context: str
    server: str
    plugin: str = ""  # a program that is asked for credentials
    hint: str = ""  # how to install it, in the kubeconfig's own words


def find(said: str) -> Path:
    """The file that is meant: the option, $KUBECONFIG, or kubectl's own place."""
    asked = said or os.environ.get("KUBECONFIG", "")
    candidates = [Path(part).expanduser() for part in asked.split(os.pathsep) if part] or [Path.home() / ".kube/config"]
    for path in candidates:
        if path.is_file():
            return path.absolute()
    where = "--kubeconfig" if said else "KUBECONFIG" if asked else ""
    named = f"{where} names {asked}, and there is no such file" if where else f"there is no kubeconfig ({candidates[0]})"
    raise BadInput(named, "Name one with --kubeconfig FILE")


def read(text: str, where: str, context: str = "") -> Context:
    """One context of a kubeconfig, by default its current one. Pure."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"{where} is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise BadInput(f"{where} is no kubeconfig", "It has clusters, users and contexts: see `kubectl config view`")
    contexts = _named(data, "contexts", "context", where)
    wanted = context or str(data.get("current-context") or "")
    if not wanted:
        raise BadInput(f"{where} names no current context", f"Choose one with --context: {', '.join(contexts) or 'it has none'}")
    if wanted not in contexts:
        raise BadInput(f"{where} has no context {wanted!r}", f"It has: {', '.join(contexts) or 'none'}")
    cluster = _named(data, "clusters", "cluster", where).get(str(contexts[wanted].get("cluster")))
    user = _named(data, "users", "user", where).get(str(contexts[wanted].get("user")), {})
    if not cluster or not cluster.get("server"):
        raise BadInput(f"{where}: context {wanted!r} names a cluster that the file does not describe")
    plugin = user.get("exec") or {}
    return Context(wanted, str(cluster["server"]), str(plugin.get("command", "")), " ".join(str(plugin.get("installHint", "")).split()))


def _named(data: dict[str, Any], key: str, inner: str, where: str) -> dict[str, dict[str, Any]]:
    try:
        return {str(each["name"]): dict(each.get(inner) or {}) for each in data.get(key) or []}
    except (TypeError, KeyError, ValueError, AttributeError):
        raise BadInput(f"{where}: {key!r} is not what kubectl writes there", "See `kubectl config view`") from None


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


def last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"
